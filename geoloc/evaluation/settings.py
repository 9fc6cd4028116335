"""Settings of an evaluation."""

from __future__ import annotations

from geoloc.settings import Number, Settings, setting


class EvaluationSettings(Settings):
    """How an evaluation is measured."""

    resamples: int = setting(
        1000, minimum=10, maximum=100_000, help="bootstrap resamples of photographers, for medians"
    )
    confidence: Number = setting(0.95, minimum=0.5, maximum=0.999, help="nominal coverage of the intervals")
    max_candidates: int = setting(
        5000,
        minimum=1,
        help="best constant point: most reference locations to try; if there are more, a random sample",
    )
    max_references: int = setting(
        50_000, minimum=1, help="baselines: most references to use; if there are more, a random sample"
    )
    compare_with: str = setting(
        "", help="the method that all others are compared with; empty: compare all pairs"
    )
    curve_points: int = setting(61, minimum=5, maximum=1000, help="number of distances on the accuracy curve")
    leave_photographer_out: bool = setting(
        False,
        help="also evaluate every stored photo against all photos by other photographers, with the initial backbone",
    )
    reference_halvings: int = setting(
        4,
        minimum=0,
        maximum=12,
        help="also measure answers by neighbour with a random half of the references, a quarter, ... so many times; "
        "with several sources, also with as many references of the query's own source and of others; 0: not at all",
    )
    explained: int = setting(
        4,
        minimum=0,
        maximum=100,
        help="number of photos of the main test set to explain by a probability map and an occlusion map, up to three "
        "also by their neighbours; 0: none",
    )
    confident_cells: int = setting(
        4,
        minimum=0,
        maximum=100,
        help="number of cells, the most frequent answers first, to show the most confident photos of; 0: none",
    )
    tsne: int = setting(
        0,
        minimum=0,
        maximum=10_000,
        help="most test photos on a t-SNE map of each model's embeddings; 0: no map",
    )
    exciting_units: int = setting(
        0,
        minimum=0,
        maximum=100,
        help="number of dimensions of each model's embeddings to show the photos with the largest values of; 0: none",
    )
