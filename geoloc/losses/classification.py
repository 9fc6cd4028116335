"""Cross-entropy over cells, targets smoothed by distance, and class weights against the imbalance of cells."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional

from geoloc.sphere import EARTH_RADIUS_KM

CLASS_WEIGHTS = ("none", "balanced", "sqrt")
_LEAD = 0.01
"""What the true cell is nearer than any other in distance_targets, at least, in units of tau."""


def class_weights(counts: ArrayLike, kind: str) -> torch.Tensor | None:
    """The weight of each cell from its number of training photos, `counts` integers (C,): float32 [C]; None for kind
    none.

    balanced: inversely proportional to the count; sqrt: to its square root, a compromise. Scaled to a mean over photos
    of 1, so the learning rate keeps its meaning. A cell without photos has weight 0. Raises ValueError for any other
    kind or for no photos.
    """
    if kind not in CLASS_WEIGHTS:
        raise ValueError(f"class_weights must be one of {', '.join(CLASS_WEIGHTS)}; got {kind!r}")
    if kind == "none":
        return None
    n = np.asarray(counts, dtype=np.float64)
    if n.sum() <= 0:
        raise ValueError("class weights need at least one photo in a cell, got none")
    with np.errstate(divide="ignore"):
        weights = np.where(n > 0, 1 / (n if kind == "balanced" else np.sqrt(n)), 0.0)
    return torch.from_numpy((weights * n.sum() / (weights * n).sum()).astype(np.float32))


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy of logits [B, C] against labels int64 [B]: a scalar in float32, whatever the dtype of the
    logits.

    A label of -1 (a photo in no cell) has loss 0 and gradient 0, and counts in the mean.

    With `weights` [C], each photo has its cell's weight, and the sum is divided by B. Dividing by the sum of the
    weights would give a rare cell no more influence in a small batch than a common one. `label_smoothing` s moves s / C
    of the target to every cell (Szegedy et al., Rethinking the inception architecture, section 7).
    """
    losses = functional.cross_entropy(
        logits.float(), labels, reduction="none", ignore_index=-1, label_smoothing=label_smoothing
    )
    return (losses if weights is None else losses * weights[labels]).mean()


def unit_vectors(coordinates: ArrayLike) -> torch.Tensor:
    """Unit vectors float64 [N, 3] of points (N, 2): latitude, longitude in degrees."""
    latitude, longitude = torch.deg2rad(torch.from_numpy(np.array(coordinates, dtype=np.float64))).unbind(
        dim=1
    )
    flat = torch.cos(latitude)
    return torch.stack([flat * torch.cos(longitude), flat * torch.sin(longitude), torch.sin(latitude)], dim=1)


def distance_targets(
    points: torch.Tensor, places: torch.Tensor, tau_km: float, labels: torch.Tensor | None = None
) -> torch.Tensor:
    """Targets smoothed by distance, float32 [B, C], each row sums to 1. For a photo taken at x in the true cell t:

        target of cell c ∝ exp(-(d(c, x) - d(t, x)) / tau)

    with d the great-circle distance in km from a cell's point (Haas et al., PIGEON: Predicting image geolocations,
    2023, section 3.2, whose targets are not scaled to sum to 1; scaled so, d(t, x) cancels out). `points` [C, 3] and
    `places` [B, 3] are unit vectors in float64: in float32, near points would seem to be kilometres apart.

    A photo may be nearer to the point of another cell than to its own's. With `labels` int64 [B], the true cells, its
    own cell then counts as a hundredth of tau nearer than that, so that the largest target is always the true cell; a
    label of -1 changes nothing.
    """
    cosine = (places @ points.T).clamp(-1.0, 1.0)
    km = 2 * EARTH_RADIUS_KM * torch.asin(torch.sqrt((1 - cosine) / 2))
    if labels is not None and km.shape[1] > 1:
        own = labels.clamp(min=0)[:, None]
        others = km.scatter(1, own, torch.inf).amin(dim=1, keepdim=True)
        nearest = torch.where(labels[:, None] >= 0, others - _LEAD * tau_km, torch.inf)
        km = km.scatter(1, own, torch.minimum(km.gather(1, own), nearest))
    return torch.softmax(-km / tau_km, dim=1).float()


def soft_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over photos of -sum over cells c of target_c · log p_c: logits and targets [B, C] to a scalar in float32.

    `labels` int64 [B] are the true cells, with `weights` [C] as in cross_entropy; -1 has loss 0 and counts in the mean.
    """
    losses = -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)
    losses = torch.where(labels >= 0, losses, torch.zeros_like(losses))
    return (losses if weights is None else losses * weights[labels]).mean()
