"""Settings of health: how far new photos, accuracy and indexes may be from what they were."""

from __future__ import annotations

from geoloc.settings import Number, Settings, setting


class HealthSettings(Settings):
    """Bounds of the checks of a build's health. A drift counts where its measure is above the bound and chance rarely
    gives as much (`p`)."""

    psi: Number = setting(0.25, minimum=0, help="the largest population stability index of places")
    ks: Number = setting(
        0.2,
        minimum=0,
        maximum=1,
        help="the largest Kolmogorov-Smirnov distance of times and image statistics",
    )
    energy: Number = setting(
        0.05,
        minimum=0,
        maximum=1,
        help="the largest energy distance of embeddings, as a share of the mean distance",
    )
    p: Number = setting(
        0.05,
        minimum=0,
        maximum=1,
        help="what is above its bound counts if chance gives as much this rarely",
    )
    least_photos: int = setting(30, minimum=2, help="new photos below which nothing is said of drift")
    sample: int = setting(
        500, minimum=10, help="photos of each side that are decoded and compared by embedding"
    )
    accuracy_fall: Number = setting(
        0.05,
        minimum=0,
        maximum=1,
        help="the largest fall of the accuracy in a region from one report to the next",
    )
    calibration: Number = setting(0.1, minimum=0, maximum=1, help="the largest expected calibration error")
    recall: Number = setting(
        0.9, minimum=0, maximum=1, help="the least share of the ten nearest references that an index finds"
    )
    fresh_days: int = setting(
        0,
        minimum=0,
        help="days after which a report is too old; 0: never (Dagster shows it as a freshness policy)",
    )
