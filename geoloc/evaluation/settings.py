"""Settings of an evaluation."""

from __future__ import annotations

from geoloc.settings import Number, Settings, setting


class EvaluationSettings(Settings):
    """How an evaluation is measured. The defaults are the ones that reports quote."""

    resamples: int = setting(1000, minimum=10, maximum=100_000, help="bootstrap resamples of photographers")
    confidence: Number = setting(0.95, minimum=0.5, maximum=0.999, help="share that an interval covers")
    max_candidates: int = setting(
        5000, minimum=1, help="best constant point: reference locations tried; more are sampled by the seed"
    )
    max_references: int = setting(
        50_000, minimum=1, help="baselines: references counted; more are sampled by the seed"
    )
    compare_with: str = setting("", help="a method all others are compared with; empty compares all pairs")
    curve_points: int = setting(61, minimum=5, maximum=1000, help="distances on the accuracy curve")
    leave_photographer_out: bool = setting(
        False,
        help="also try every stored photo against all photos by other photographers, with the initial backbone",
    )
    explained: int = setting(
        4,
        minimum=0,
        maximum=100,
        help="photos of the main test set explained by a probability map and an occlusion map; 0: none",
    )
    confident_cells: int = setting(
        4,
        minimum=0,
        maximum=100,
        help="cells, those that are most often the answer, whose most confident photos are shown; 0: none",
    )
