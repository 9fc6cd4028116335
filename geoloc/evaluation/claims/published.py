"""The papers' findings as a table of claims. Methods are assigned to the roles elsewhere (roles.py).

- "fine" and "coarse" are [L] over the partition with most and with fewest cells, answered at centroids; "fine centre"
  and "coarse centre" are the same at centres.
- "M fine" and "M coarse" are two heads of one network. "L fine" and "L2 coarse" are networks over one of these
  partitions each; L2 starts from the weights of L.
- "ceiling" roles are perfect classifiers. "outdoor" is a method on outdoor photos, "all photos" the same on all.
- "triangles" and "quadtree" have about equal cell counts.
- "fine-tuned" is a network; "frozen SVM" and "frozen kNN" are classifiers on features of its first weights.
"""

from __future__ import annotations

from geoloc.evaluation.claims.claim import Claim

MARGIN = 0.02
"""Two points of accuracy: "similar" (Revisiting IM2GPS names no number)."""

_REVISITING = "Revisiting IM2GPS, section 4.1, figure 8"
_MULTI_MODAL = "Multi-modal Geolocation, table 6"
_DIVING = "Diving Deeper into IM2GPS, table 1"


def _each(
    levels: tuple[str, ...],
    name: str,
    finding: str,
    source: str,
    terms: tuple[tuple[float, str], ...],
    direction: str = "greater",
    margin: float = 0.0,
    paired: bool = True,
) -> list[Claim]:
    """The same claim at each of several levels."""
    return [Claim(name, finding, source, terms, level, direction, margin, paired) for level in levels]


PUBLISHED_CLAIMS: tuple[Claim, ...] = tuple(
    [
        *_each(
            ("street", "city"),
            "finer wins at fine levels",
            "The fine-grained classification output outperforms others at street and city level.",
            _REVISITING,
            ((1, "fine"), (-1, "coarse")),
        ),
        *_each(
            ("country", "continent"),
            "coarser wins at coarse levels",
            "The accuracy at coarse level gets worse if the partitioning is too fine.",
            _REVISITING,
            ((1, "coarse"), (-1, "fine")),
        ),
        *_each(
            ("region",),
            "coarser wins at region level",
            "A coarse mesh is a superior grid for 200 km resolutions.",
            "Multi-modal Geolocation, section 5 and table 6",
            ((1, "coarse"), (-1, "fine")),
        ),
        *_each(
            ("street", "city"),
            "centroid beats centre, perfect classifier, fine",
            "Best possible with the imagery centroid is above that with the cell centroid.",
            _MULTI_MODAL,
            ((1, "fine ceiling"), (-1, "fine ceiling centre")),
        ),
        *_each(
            ("street", "city", "region"),
            "centroid beats centre, perfect classifier, coarse",
            "Best possible with the imagery centroid is above that with the cell centroid.",
            _MULTI_MODAL,
            ((1, "coarse ceiling"), (-1, "coarse ceiling centre")),
        ),
        # At street level the published gain is larger on the fine mesh (9.3 points against 2.5).
        *_each(
            ("city", "region"),
            "centroid gains most on coarse meshes",
            "From cell to imagery centroid: 18.1 points at city level on the coarse mesh, 10.1 on the fine.",
            _MULTI_MODAL,
            (
                (1, "coarse ceiling"),
                (-1, "coarse ceiling centre"),
                (-1, "fine ceiling"),
                (1, "fine ceiling centre"),
            ),
        ),
        *_each(
            ("city",),
            "centroid beats centre, answers, fine",
            "The same of a trained classifier's answers, which the paper shows for a perfect one.",
            f"after {_MULTI_MODAL}",
            ((1, "fine"), (-1, "fine centre")),
        ),
        *_each(
            ("city", "region"),
            "centroid beats centre, answers, coarse",
            "The same of a trained classifier's answers, which the paper shows for a perfect one.",
            f"after {_MULTI_MODAL}",
            ((1, "coarse"), (-1, "coarse centre")),
        ),
        *_each(
            ("city", "country", "continent"),
            "[M] is as good as [L] on the fine partition",
            "[M]7011C and [L]7011C achieve similar accuracy.",
            _REVISITING,
            ((1, "M fine"), (-1, "L fine")),
            "equal",
            MARGIN,
        ),
        *_each(
            ("country", "continent"),
            "[M] is no worse than [L2] on a coarse partition",
            "In the case of 359C, [M] is slightly better than [L2].",
            _REVISITING,
            ((1, "M coarse"), (-1, "L2 coarse")),
            "not less",
            MARGIN,
        ),
        *_each(
            ("city", "region", "country", "continent"),
            "outdoor photos are easier",
            "Outdoor only results are better than results for all images.",
            "Multi-modal Geolocation, section 5 and table 6",
            ((1, "outdoor"), (-1, "all photos")),
            paired=False,
        ),
        *_each(
            ("city", "country"),
            "triangles are no worse than a quadtree",
            "Delaunay triangles are an effective type of mesh in relatively low volume scenarios when compared to "
            "models which use quad trees (the paper compares different data; here: equal data and cell counts).",
            "Multi-modal Geolocation, abstract",
            ((1, "triangles"), (-1, "quadtree")),
            "not less",
            MARGIN,
        ),
        *_each(
            ("city",),
            "fine-tuning beats an SVM on frozen features",
            "AlexNet 22.03 %, fc7 features + SVM 18.77 % (share of right cities of 37).",
            _DIVING,
            ((1, "fine-tuned"), (-1, "frozen SVM")),
        ),
        *_each(
            ("city",),
            "an SVM beats kNN on frozen features",
            "fc7 features + SVM 18.77 %, fc7 features + KNN 2.90 % (share of right cities of 37).",
            _DIVING,
            ((1, "frozen SVM"), (-1, "frozen kNN")),
        ),
    ]
)
