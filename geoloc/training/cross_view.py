"""Train a network that matches street photos with overhead tiles; a killed run is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch.nn import functional

from geoloc.losses.metric import metric_loss
from geoloc.losses.orientation import orientation_loss
from geoloc.models.cross_view import CrossViewNetwork, CrossViewShape
from geoloc.models.cross_view_prediction import embed_photos, embed_tiles
from geoloc.models.matching import bearings, best_threshold, distance_blocks, pair_distances, ranking
from geoloc.models.prediction import mixed_precision
from geoloc.settings import replace, settings_hash
from geoloc.training import loop
from geoloc.training.cross_view_pairs import CrossViewPairs, PairSource, Pool
from geoloc.training.cross_view_settings import CrossViewSettings, HardPairsSettings
from geoloc.training.groups import Mined
from geoloc.training.loop import OnProgress, Task, TrainingResult, loop_fingerprint
from geoloc.training.mining import MINED, mined_at
from geoloc.training.samplers import epoch_starts, shuffled
from geoloc.training.source import Inputs, TrainingError

NOT_TRAINED_BY = ("splits", "search")
"""The settings of the section that the training itself does not use."""


def train_cross_view(
    model: CrossViewNetwork,
    pools: tuple[Pool, Pool],
    train: CrossViewPairs,
    validation: CrossViewPairs,
    settings: CrossViewSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: OnProgress = lambda event: None,
) -> TrainingResult:
    """Train `model` in place on pairs of photos and tiles, which are in the two `pools`; it ends in eval mode with the
    weights of the best epoch.

    `validation` may be empty. `checkpoint_folder` makes the training resumable, and `on_progress` receives dicts, see
    loop.train. Pairs of unknown heading have no orientation loss, and are counted in `left_out`.

    Raises TrainingError if model, pairs and settings do not fit each other, or if the loss is no longer finite.
    """
    settings.check("cross_view")
    folder = Path(checkpoint_folder)
    if model.shape != shape_of(settings):
        raise TrainingError("the network was built with other settings of cross_view than it is trained with")
    if len(train) < settings.batch_size:
        raise TrainingError(
            f"cross_view.batch_size must be at most {len(train)}, the number of training pairs; "
            f"got {settings.batch_size}"
        )
    model.requires_grad_(True)
    try:
        model.freeze_backbones(settings.trainable_blocks)
    except ValueError as error:
        raise TrainingError(f"cross_view.{error}") from None
    # What a training does not use must not make it start again.
    own = replace(settings, **{name: type(settings).model_fields[name].default for name in NOT_TRAINED_BY})
    fingerprint = loop_fingerprint(model, own, seed) | {
        "model settings": settings_hash(replace(model.settings, weights="none"), model.preprocess),
        "training pairs": train.fingerprint,
        "validation pairs": validation.fingerprint,
    }

    def source(pairs: CrossViewPairs, training: bool) -> PairSource:
        return PairSource(
            *pools,
            pairs,
            model,
            settings.augmentation if training else None,
            settings.rotation_range if training else None,
            settings.tile_jitter,
            seed,
            settings.workers,
            settings.channels_last,
        )

    def prepare(device: torch.device) -> Task:
        near = None if settings.mining is None else _near_by(train, settings.mining, settings.negative_km)

        def order(epoch: int) -> NDArray[np.int64]:
            plain = shuffled(len(train), seed, epoch)[: steps * settings.batch_size]
            mining = settings.mining
            if mining is None:
                return plain
            hard = near
            if mining.by == "embedding":
                hard = mined_at(
                    folder, epoch, mining.every_epochs, settings_hash(fingerprint),
                    lambda: _mined(model, source(train, False), settings, mining),
                ).wrong  # fmt: skip
            assert hard is not None
            return with_hard_pairs(plain, hard, settings.batch_size, mining.share, seed, epoch)

        steps = len(train) // settings.batch_size
        return Task(
            source(train, True),
            order,
            epoch_starts([steps * settings.batch_size] * settings.epochs, settings.batch_size),
            _loss_of(model, train, settings, device),
            (lambda: validation_measures(model, source(validation, False), settings))
            if len(validation)
            else None,
        )

    result = loop.train(model, prepare, settings, seed, folder, fingerprint, on_progress)
    (folder / MINED).unlink(missing_ok=True)
    left_out = {"training_without_heading": train.without_heading} if train.without_heading else {}
    return dataclasses.replace(result, left_out=left_out | result.left_out)


def shape_of(settings: CrossViewSettings) -> CrossViewShape:
    """What the network of these settings is built from."""
    embedding = settings.kind == "embedding"
    return CrossViewShape(
        kind=settings.kind,
        towers=settings.towers if settings.kind != "classification" else "separate",
        embedding_size=settings.embedding_size if embedding else None,
        grid=settings.grid,
        hidden=settings.hidden,
        orientation_hidden=settings.orientation.hidden if embedding and settings.orientation else None,
        scale=settings.loss.scale if embedding and settings.loss.learnt_scale else None,
        normalise=embedding and (settings.loss.normalise or settings.loss.kind == "info_nce"),
        polar=settings.polar,
        rotation_range=settings.rotation_range,
        field_of_view=settings.field_of_view,
    )


def rotations_needed(rotation_range: int) -> int:
    """The fewest test rotations that a network needs which is invariant to a range of rotation: 1 for 360 degrees, 4
    for 90; 16 without invariance."""
    return 360 // rotation_range if rotation_range else 16


def _loss_of(
    model: CrossViewNetwork, pairs: CrossViewPairs, settings: CrossViewSettings, device: torch.device
) -> Callable[[Inputs], torch.Tensor]:
    """The loss of a batch of pairs."""
    metric = metric_loss(settings.loss, model.scale)

    def embedding_loss(batch: Inputs) -> torch.Tensor:
        photos, tiles, up, scale, angle = batch.tensors
        with mixed_precision(device, settings.precision):
            of_photos, of_tiles = model.photos(photos), model.tiles(tiles, up, scale)
        relations = pairs.relations(batch.positions, settings.negative_km, settings.negatives).to(device)
        loss = metric(torch.cat([of_photos, of_tiles]), relations)
        if settings.orientation is not None and settings.orientation.weight:
            found = model.orientation(of_photos, of_tiles)
            loss = loss + settings.orientation.weight * orientation_loss(found, angle)
        return loss

    def matching_loss(batch: Inputs) -> torch.Tensor:
        photos, tiles, up, scale, _ = batch.tensors
        relations = pairs.relations(batch.positions, settings.negative_km, "one")
        count = len(batch.positions)
        negatives = relations.negatives[:count, count:]
        valid = negatives.any(dim=1)
        wrong = negatives.int().argmax(dim=1)
        with mixed_precision(device, settings.precision):
            seen = model.seen(tiles, up, scale)
            logits = model.match(torch.cat([photos, photos[valid]]), torch.cat([seen, seen[wrong[valid]]]))
        matched = torch.cat([torch.ones(count), torch.zeros(int(valid.sum()))]).to(device)
        return functional.binary_cross_entropy_with_logits(logits.float(), matched)

    return embedding_loss if settings.kind == "embedding" else matching_loss


def validation_measures(
    model: CrossViewNetwork, source: PairSource, settings: CrossViewSettings
) -> dict[str, Any]:
    """Measures of N pairs whose orientation is unknown, with as many rotations of each tile as rotation_range needs.

    `reciprocal_rank` (mean) and `recall_at_1` are of the true tile among all N, ties against the model; None for a
    network that scores pairs. `verification_accuracy` tells pairs from as many unmatched ones at the best threshold.
    """
    pairs, turns = source.pairs, rotations_needed(settings.rotation_range)
    wrong = pairs.unmatched(settings.negative_km, source.seed)
    every = np.arange(len(pairs))
    if settings.kind != "embedding":
        matched = -match_scores(model, source, every, bearings(turns), settings.precision)
        unmatched = -match_scores(model, source, wrong, bearings(turns), settings.precision)
        unmatched[wrong < 0] = np.nan
        return {
            "reciprocal_rank": None,
            "recall_at_1": None,
            "verification_accuracy": best_threshold(matched, unmatched[wrong >= 0])[1],
        }
    photos, tiles = embed_pairs(model, source, turns, 64, settings.precision)
    found = ranking(photos, tiles, every, next(model.parameters()).device)
    unmatched = pair_distances(photos, tiles, wrong)
    return {
        "reciprocal_rank": float((1 / found.rank).mean()),
        "recall_at_1": float((found.rank == 1).mean()),
        "verification_accuracy": best_threshold(found.distance, unmatched[wrong >= 0])[1],
    }


def embed_pairs(
    model: CrossViewNetwork, source: PairSource, rotations: int, batch_size: int, precision: str = "float32"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of the photos (N, D) and of the tiles (N, R, D) of N pairs, without augmentation."""
    every = np.arange(len(source))
    photos = embed_photos(model, source.photos(every, batch_size, 0), len(source), precision)
    tiles = source.tiles(every, batch_size)
    return photos, embed_tiles(model, tiles, len(source), bearings(rotations), precision)


def match_scores(
    model: CrossViewNetwork,
    source: PairSource,
    tile_of: NDArray[np.int64],
    up: NDArray[np.float64],
    precision: str = "float32",
) -> NDArray[np.float32]:
    """Logits float32 (N,) of N photos with the tiles at `tile_of`, each the highest over R rotations of the tile, with
    `up` (R,) or (N, R) at the top; NaN if one of the two is unreadable."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found = np.full(len(source), np.nan, dtype=np.float32)
    every = np.arange(len(source))
    turns = torch.from_numpy(np.broadcast_to(up, (len(source), up.shape[-1])).astype(np.float32))
    both = zip(source.photos(every, 32, 0), source.tiles(np.maximum(tile_of, 0), 32), strict=True)
    start = 0
    try:
        for photo, tile in both:
            count = len(photo.row_indices) + len(photo.unreadable_indices)
            asked = np.arange(start, start + count)
            start += count
            # Tiles may repeat, so they are known by their order: the readable ones of the batch, in it.
            tiles_kept = ~np.isin(np.maximum(tile_of[asked], 0), tile.unreadable_indices)
            photos_kept = ~np.isin(asked, photo.unreadable_indices)
            kept = tiles_kept & photos_kept
            if not kept.any():
                continue
            photos = photo.images[torch.from_numpy(kept[photos_kept])].to(device)
            tiles = tile.images[torch.from_numpy(kept[tiles_kept])].to(device)
            with torch.inference_mode(), mixed_precision(device, precision):
                scores = [
                    model.match(photos, model.seen(tiles, turn))
                    for turn in turns[torch.from_numpy(asked[kept])].to(device).T
                ]
                found[asked[kept]] = torch.stack(scores).amax(dim=0).float().cpu().numpy()
    finally:
        model.train(was_training)
    return found


def with_hard_pairs(
    order: NDArray[np.int64], near: NDArray[np.int64], batch_size: int, share: float, seed: int, epoch: int
) -> NDArray[np.int64]:
    """`order` int64 (N,) rearranged so that `share` of each batch are hard negatives of others in it, from `near`
    (N, K; -1: none). Each pair comes once; where no hard negative is left, the next pair of `order` follows.
    """
    numbers = np.random.default_rng([seed, epoch, 1])
    waiting = dict.fromkeys(order.tolist())
    made: list[int] = []
    owed = 0.0
    while waiting:
        seed_pair = next(iter(waiting))
        del waiting[seed_pair]
        made.append(seed_pair)
        owed += share / (1 - share)
        candidates = near[seed_pair]
        for other in candidates[numbers.permutation(len(candidates))].tolist():
            if owed < 1 or len(made) % batch_size == 0:
                break
            if other in waiting:
                del waiting[other]
                made.append(other)
                owed -= 1
    return np.array(made, dtype=np.int64)


def _near_by(
    pairs: CrossViewPairs, mining: HardPairsSettings, negative_km: float
) -> NDArray[np.int64] | None:
    """The nearest negatives of each pair on the Earth, int64 (N, K), -1 where there are fewer; None if mining is by
    embedding."""
    if mining.by != "place":
        return None
    wanted = min(2 * mining.nearest + 1, len(pairs))
    _, near = cKDTree(pairs.place).query(pairs.place, wanted)
    found = np.full((len(pairs), mining.nearest), -1, dtype=np.int64)
    for pair, others in enumerate(near.reshape(len(pairs), -1)):
        good = others[pairs.related(np.array([pair]), others, negative_km)[1][0]][: mining.nearest]
        found[pair, : len(good)] = good
    return found


def _mined(
    model: CrossViewNetwork, source: PairSource, settings: CrossViewSettings, mining: HardPairsSettings
) -> Mined:
    """The negatives with the tiles most similar to each photo, of all pairs, by the network as it is."""
    pairs = source.pairs
    photos, tiles = embed_pairs(
        model, source, rotations_needed(settings.rotation_range), 64, settings.precision
    )
    found = np.full((len(pairs), mining.nearest), -1, dtype=np.int64)
    every = np.arange(len(pairs))
    for rows, apart, _ in distance_blocks(photos, tiles, next(model.parameters()).device):
        valid = torch.from_numpy(pairs.related(every[rows], every, settings.negative_km)[1])
        best = apart.cpu().masked_fill(~valid, torch.inf).topk(min(mining.nearest, len(pairs)), largest=False)
        found[rows, : best.indices.shape[1]] = torch.where(best.values < torch.inf, best.indices, -1).numpy()
    return Mined(found, np.empty((len(pairs), 0), dtype=np.int64))
