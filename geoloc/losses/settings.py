"""Settings of metric losses. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, setting

TRIPLETS = ("soft_triplet", "hinge_triplet")
BY_DISTANCE = (*TRIPLETS, "soft_sets", "dbl_pairs", "contrastive", "lifted")
"""Kinds that compare distances; the others compare cosines."""
WITH_MARGIN = ("hinge_triplet", "dbl_pairs", "contrastive", "lifted", "circle")


class MetricLossSettings(Settings):
    """A loss over the photos of a batch. See geoloc/losses/triplets.py, sets.py and pairs.py for the formulas.

    DBL for triplets (dissertation 3.7, 3.8) is soft_triplet with the distance squared_euclidean; 5.1 is soft_triplet
    with the distance euclidean; 5.2 is soft_sets.
    """

    kind: Literal[
        "soft_triplet",
        "hinge_triplet",
        "soft_sets",
        "dbl_pairs",
        "info_nce",
        "lifted",
        "angular",
        "contrastive",
        "multi_similarity",
        "circle",
    ] = setting("soft_triplet", help="the loss")
    distance: Literal["euclidean", "squared_euclidean"] = setting(
        "euclidean",
        when=("kind", BY_DISTANCE),
        help="distance of two embeddings; the dissertation has squared_euclidean in chapters 3 and 4, euclidean in 5",
    )
    normalise: bool = setting(
        True, when=("kind", BY_DISTANCE), help="scale embeddings to length 1 before they are compared"
    )
    scale: Number = setting(
        4.0,
        minimum=1e-3,
        when=("kind", BY_DISTANCE),
        help="factor of the embeddings before they are compared (dissertation 4.4.4: 4)",
    )
    learnt_scale: bool = setting(
        False, when=("kind", BY_DISTANCE), help="whether the scale is learnt too, from `scale` on"
    )
    margin: Number | None = setting(
        None,
        minimum=0.0,
        when=("kind", WITH_MARGIN),
        help="margin; null: the published one (hinge_triplet 0.2, dbl_pairs 10, contrastive 1, lifted 1, circle 0.4)",
    )
    mean_over: Literal["all", "violating"] = setting(
        "all",
        when=("kind", ("hinge_triplet",)),
        help="the triplets that the mean is over: all, or those with a loss above 0",
    )
    temperature: Number = setting(
        0.07, minimum=1e-3, when=("kind", ("info_nce",)), help="divisor of the cosines"
    )
    angle: Number = setting(
        45.0, minimum=1.0, maximum=60.0, when=("kind", ("angular",)), help="alpha, in degrees"
    )
