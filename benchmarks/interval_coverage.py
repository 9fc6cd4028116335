"""How often intervals by photographer hold the truth, and how wide they are, by simulation.

The intervals of geoloc.evaluation.measures.intervals beside the percentile bootstrap that they replace. Each
photographer has a rate of hits of its own, drawn from a beta distribution around the true rate ("alike" is the
intraclass correlation: how much more alike photos of one photographer are), and a number of photos: all 20, or drawn
from a log-normal distribution (skew is the sigma of its logarithm). For differences, "rate" is the share of photos that
only one of two equally good methods gets right. Nominal coverage is 95 per cent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.measures.intervals import Sums, difference_of_sums
from orchestration.tables import markdown

RATES = (0.005, 0.02, 0.1, 0.4)
ALIKE = (0.02, 0.1, 0.4)
SKEWS = (0.0, 1.0, 1.5)
PEOPLE = (12, 35, 150)
RESAMPLES = 400

FloatArray = NDArray[np.float64]


def photos_of(people: int, skew: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The photos of each photographer: 20 on average of the logarithm's middle, at least 1."""
    return np.maximum(1, np.round(20 * np.exp(rng.normal(0, skew, people) - skew**2 / 2))).astype(np.int64)


def hits_of(
    sizes: NDArray[np.int64], rate: float, alike: float, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Hits of each photographer (C,) in each draw: float64 (C, draws)."""
    total = 1 / alike - 1
    rates = rng.beta(rate * total, (1 - rate) * total, (len(sizes), draws))
    return rng.binomial(sizes[:, None], rates).astype(np.float64)


def bootstrap(
    sums: FloatArray, sizes: NDArray[np.int64], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """The percentile interval of resampled photographers for each column of sums (C, K)."""
    weights = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    means = (weights @ sums) / (weights @ sizes)[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0, method="inverted_cdf")
    return low, high


def measure(
    people: int, skew: float, rate: float, alike: float, sets: int, draws: int, seed: int
) -> list[float]:
    """Coverage and mean width in points: of accuracies by ours and by the bootstrap, and the same of differences."""
    rng = np.random.default_rng([seed, people, round(10 * skew), round(1000 * rate), round(100 * alike)])
    found: list[list[tuple[FloatArray, FloatArray]]] = [[], [], [], []]
    for _ in range(sets):  # of photographers, each with several draws of hits
        sizes = photos_of(people, skew, rng)
        floats, hits = sizes.astype(np.float64), hits_of(sizes, rate, alike, draws, rng)
        gained = rng.binomial(hits.astype(np.int64), 0.5).astype(np.float64)
        lost = hits - gained
        found[0].append(Sums(hits, hits.sum(axis=0), floats).shares().interval())
        found[1].append(bootstrap(hits, sizes, rng))
        sums = [Sums(part, part.sum(axis=0), floats) for part in (gained, lost)]
        found[2].append(difference_of_sums(*sums).interval())
        found[3].append(bootstrap(gained - lost, sizes, rng))
    values = []
    for intervals, truth in zip(found, (rate, rate, 0.0, 0.0), strict=True):
        low, high = (np.concatenate(bounds) for bounds in zip(*intervals, strict=True))
        values += [float(((low <= truth) & (truth <= high)).mean()), float(100 * (high - low).mean())]
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, a row for each kind of photographers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographers", type=int, nargs="+", default=PEOPLE)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--sets", type=int, default=60, help="sets of photographers")
    parser.add_argument("--draws", type=int, default=25, help="draws of hits for each set")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = []
    for people in options.photographers:
        for skew in SKEWS:
            for rate in options.rates:
                for alike in ALIKE:
                    made = measure(people, skew, rate, alike, options.sets, options.draws, options.seed)
                    shown = [
                        f"{cover:.3f} ({wide:.1f})" for cover, wide in zip(made[::2], made[1::2], strict=True)
                    ]
                    rows.append([people, f"{skew:g}", f"{100 * rate:g} %", f"{alike:g}", *shown])
    header = ["photographers", "skew", "rate", "alike", "accuracy", "bootstrap", "difference", "bootstrap"]
    print(
        f"coverage (mean width in points) of 95 % intervals; {options.sets * options.draws:,} draws a row\n"
    )
    print(markdown(rows, header))


if __name__ == "__main__":
    main()
