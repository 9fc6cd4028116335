"""The papers' findings as a table of claims. Methods are assigned to the roles elsewhere (roles.py).

- "fine" and "coarse" are [L] over the partition with most and with fewest cells, answered at centroids; "fine centre"
  and "coarse centre" are the same at centres.
- "M fine" and "M coarse" are two heads of one network. "L fine" and "L2 coarse" are networks over one of these
  partitions each; L2 starts from the weights of L.
- "ceiling" roles are perfect classifiers. "outdoor" is a method on outdoor photos, "all photos" the same on all.
- "triangles" and "quadtree" have about equal cell counts.
- "classification", "NN", "NN of fewer" (references), "kNN narrow" and "kNN wide" are answers of one network; "first NN"
  is by its first weights.
- "metric NN" is by a metric network, "classifier NN" by the classifier that it started from. "large batch NN" and
  "small batch NN" are by metric networks that differ in their batches.
- "fine-tuned" is a network; "frozen SVM" and "frozen kNN" are classifiers on features of its first weights.
- Roles of time, albums and people are in context.py.
"""

from __future__ import annotations

from geoloc.evaluation.claims.claim import Claim
from geoloc.evaluation.claims.context import CONTEXT_CLAIMS

MARGIN = 0.02
"""Two points of accuracy: "similar" (Revisiting IM2GPS names no number)."""

_REVISITING = "Revisiting IM2GPS, section 4.1, figure 8"
_MULTI_MODAL = "Multi-modal Geolocation, table 6"
_RETRIEVAL = "Revisiting IM2GPS, section 4.2, figure 8"
_DISSERTATION = "Vo's dissertation"
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
        *_each(
            ("street", "city"),
            "retrieval beats classification at fine levels",
            "Localization by NN image retrieval outperforms the classification result at street and city level.",
            _RETRIEVAL,
            ((1, "NN"), (-1, "classification")),
        ),
        *_each(
            ("country", "continent"),
            "kNN beats NN at coarse levels",
            "kNN kernel density estimation improves the accuracy, especially at coarse scales.",
            _RETRIEVAL,
            ((1, "kNN narrow"), (-1, "NN")),
        ),
        *_each(
            ("country", "continent"),
            "a larger σ helps more at coarse levels",
            "Especially at coarse scales (as σ increases): [L] at continent level 53.8 % with σ = 1, 58.9 % with 16.",
            f"{_RETRIEVAL}; {_DISSERTATION}, table 2.3",
            ((1, "kNN wide"), (-1, "kNN narrow")),
        ),
        *_each(
            ("city", "country"),
            "more reference photos help",
            "We can simply index more examples to improve the performance: 28 million in place of 6 million.",
            _RETRIEVAL,
            ((1, "NN"), (-1, "NN of fewer")),
        ),
        *_each(
            ("city", "country"),
            "training for cells improves the features",
            "ImageNet's model can also be used for retrieval, but not as effectively as one trained for geolocation.",
            f"{_DISSERTATION}, section 2.4.6, table 2.3",
            ((1, "NN"), (-1, "first NN")),
        ),
        *_each(
            ("city", "country"),
            "metric fine-tuning improves the features",
            "Retrieval with the metric networks outperforms retrieval with the classifier that they started from.",
            f"{_DISSERTATION}, section 5.3.2, table 5.1",
            ((1, "metric NN"), (-1, "classifier NN")),
        ),
        *_each(
            ("city", "country"),
            "a metric network beats the first weights",
            "Trained for cells and then by place, features are better than ImageNet's (by both tables together).",
            f"after {_DISSERTATION}, tables 2.3 and 5.1",
            ((1, "metric NN"), (-1, "first NN")),
        ),
        *_each(
            ("city", "country"),
            "large batches help",
            "[R2] seems slightly better than [R1], whose batches are an eighth of its own; not significantly.",
            f"{_DISSERTATION}, section 5.3.2, table 5.1",
            ((1, "large batch NN"), (-1, "small batch NN")),
        ),
        *CONTEXT_CLAIMS,
    ]
)
