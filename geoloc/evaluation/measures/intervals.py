"""Intervals of accuracies and of paired differences, by photographer, that cover also when hits are rare.

Photos by one photographer are right or wrong together, so a share of N photos by C photographers knows less than N
photos do: its variance is the design effect times that of independent photos. An interval is Wilson's (JASA 1927) for
the effective number of photos, N / design effect, with a quantile of Student's t. (The percentile bootstrap of
photographers, used here before, covers 2 per cent of hits by 35 photographers in 7 to 8 cases of 10, and says [0, 0] of
no hit at all: benchmarks/interval_coverage.py measures both.)

- The design effect is estimated from the spread between photographers (linearised, with the correction of Bell and
  McCaffrey, Survey Methodology 2002). A few photographers with hits do not determine it, so it is shrunk
  towards that of photographers who are all right or all wrong, with the weight of half a photographer. Without a hit
  there is no estimate of it: then each photographer counts about once.
- The degrees of freedom are the geometric mean of two effective numbers of photographers: by their photos (Kish, Survey
  Sampling, 1965), and by their parts in the variance (Satterthwaite, Biometrics Bulletin 1946).
- A difference is the share of photos that only one method gets right, less the share that only the other does. The
  intervals of the two are combined by the method of variance estimates recovery (Zou and Donner, Statistics in Medicine
  2008), so methods that never differ have an interval too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PRIOR_PHOTOGRAPHERS = 0.5
"""What an unknown design effect weighs, in photographers with hits."""
_LEAST_P = 1e-7
_HALVINGS = 26
"""Of the range of a p-value's logarithm: 26 leave a quarter of a millionth of it."""


@dataclass(frozen=True, eq=False)
class Shares:
    """K shares in [0, 1] of the same photos, float64 (K,) each: the estimate, its effective number of independent
    photos, and its degrees of freedom. All NaN but the estimate for a single photographer: there is no interval."""

    estimate: FloatArray
    effective: FloatArray
    freedom: FloatArray

    def interval(self, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Returns the bounds, float64 (K,) each; NaN for a single photographer."""
        return self._interval(np.full(self.estimate.shape, confidence))

    def _interval(self, confidence: FloatArray) -> tuple[FloatArray, FloatArray]:
        z = stdtrit(self.freedom, (1 + confidence) / 2)
        wide = 1 + z**2 / self.effective
        centre = (self.estimate + z**2 / (2 * self.effective)) / wide
        spread = self.estimate * (1 - self.estimate) / self.effective + (z / (2 * self.effective)) ** 2
        half = z / wide * np.sqrt(spread)
        # Rounding must not put a share of 0 or 1 outside of its own interval.
        low, high = np.minimum(centre - half, self.estimate), np.maximum(centre + half, self.estimate)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)


@dataclass(frozen=True, eq=False)
class Differences:
    """K numbers that are sums of weighted shares, float64 (K,): such as what one method gains less what it loses.

    `weights` are of the T `parts`; `correlations` float64 (T, T, K) are those of the parts' estimates; `spread` and
    `freedom` are as `widened` says. Intervals are NaN for a single photographer.
    """

    weights: tuple[float, ...]
    parts: tuple[Shares, ...]
    correlations: FloatArray
    spread: FloatArray | None = None
    freedom: int = 1

    def widened(self, spread: FloatArray, freedom: int) -> Differences:
        """Returns the same numbers with a further, independent source of error: of standard deviation `spread` (K,),
        estimated with `freedom` degrees of freedom."""
        return replace(self, spread=spread, freedom=freedom)

    @property
    def estimate(self) -> FloatArray:
        """The sums, float64 (K,)."""
        return np.asarray(sum(w * part.estimate for w, part in zip(self.weights, self.parts, strict=True)))

    def interval(self, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Returns the bounds, float64 (K,) each; NaN for a single photographer."""
        return self._interval(np.full(self.estimate.shape, confidence))

    def _interval(self, confidence: FloatArray) -> tuple[FloatArray, FloatArray]:
        below, above = [], []
        for weight, part in zip(self.weights, self.parts, strict=True):
            low, high = part._interval(confidence)
            moved = [weight * (part.estimate - low), weight * (high - part.estimate)]
            below.append(moved[weight < 0])
            above.append(moved[weight > 0])
        least, most = (sum(kept(w, 0.0) for w in self.weights) for kept in (min, max))
        further = 0.0 if self.spread is None else stdtrit(self.freedom, (1 + confidence) / 2) * self.spread
        low = self.estimate - np.hypot(self._combined(below), further)
        high = self.estimate + np.hypot(self._combined(above), further)
        return np.maximum(low, least), np.minimum(high, most)

    def _combined(self, moved: list[FloatArray]) -> FloatArray:
        """Returns the distance to a bound, from those of the parts to theirs, signed by their weights."""
        ways = np.stack(moved)
        return np.asarray(np.sqrt(np.maximum(np.einsum("sk,tk,stk->k", ways, ways, self.correlations), 0)))

    def p_value(self, decided: Callable[[FloatArray, FloatArray], BoolArray] | None = None) -> FloatArray:
        """Returns the smallest level at which the interval (1 - level) decides, float64 (K,); 1 if none does.

        `decided(low, high)` says it of intervals; by default, whether they exclude 0: the p-value of the two-sided test
        of no difference. It must stay true for narrower intervals.
        """
        decided = decided or _excludes_zero
        least, most = np.full(self.estimate.shape, _LEAST_P), np.ones(self.estimate.shape)
        never = ~decided(*self._interval(np.zeros(self.estimate.shape)))
        for _ in range(_HALVINGS):
            middle = np.sqrt(least * most)
            yes = decided(*self._interval(1 - middle))
            most, least = np.where(yes, middle, most), np.where(yes, least, middle)
        return np.where(never, 1.0, most)


def shares(values: ArrayLike, clusters: ArrayLike) -> Shares:
    """The mean of each column of `values`, float (N, K) in [0, 1], as a share of photos by photographers.

    `clusters` int (N,) are the photographers, from 0. Raises ValueError for no photos or values outside of [0, 1].
    """
    x, codes = _checked(values, clusters)
    return Sums.of(x, codes).shares()


def differences(contributions: ArrayLike, clusters: ArrayLike, scale: float = 1.0) -> Differences:
    """The mean of each column of `contributions`, float (N, K) in [-scale, scale], by photographers (N,) from 0.

    A contribution is, for example, 1 where only the one method is right, -1 where only the other is, 0 elsewhere.
    Raises ValueError as `shares` does.
    """
    x = np.asarray(contributions, dtype=np.float64) / scale
    gained, codes = _checked(np.maximum(x, 0), clusters)
    lost, _ = _checked(np.maximum(-x, 0), clusters)
    return difference_of_sums(Sums.of(gained, codes), Sums.of(lost, codes), scale)


def difference_of_sums(gained: Sums, lost: Sums, scale: float = 1.0) -> Differences:
    """As `differences`, from the sums of gains and of losses."""
    # Photographers who show how gains cluster show it of losses too: each is drawn to both together.
    both = Sums(gained.sums + lost.sums, gained.squares + lost.squares, gained.sizes).design_effect()
    parts = (gained.shares(both), lost.shares(both))
    return Differences(
        (scale, -scale), parts, _correlations([gained.residuals(), lost.residuals()], (scale, -scale))
    )


def sum_of_shares(
    weights: Sequence[float], values: FloatArray, present: BoolArray, clusters: NDArray[np.int64]
) -> Differences:
    """A weighted sum of T shares, each of its own photos: one number (K = 1).

    `values` float (N, T) in [0, 1] count where `present` bool (N, T), at least one photo in each column. `clusters`
    (N,) are numbered from 0. How many photos each share is of is taken as given.
    """
    parts, rests = [], []
    for term in range(len(weights)):
        codes, own = np.unique(clusters[present[:, term]], return_inverse=True)
        sums = Sums.of(values[present[:, term], term : term + 1], own)
        rest = np.zeros((int(clusters.max()) + 1, 1))
        rest[codes] = sums.residuals()
        parts.append(sums.shares())
        rests.append(rest)
    return Differences(tuple(weights), tuple(parts), _correlations(rests, weights))


@dataclass(frozen=True, eq=False)
class Sums:
    """K columns of values in [0, 1] summed by photographer: `sums` float64 (C, K); `squares` (K,), the sums of squares
    over all photos; `sizes` (C,), the photos of each photographer, each at least 1."""

    sums: FloatArray
    squares: FloatArray
    sizes: FloatArray

    @classmethod
    def of(cls, values: FloatArray, clusters: NDArray[np.int64]) -> Sums:
        """The sums of `values` (N, K) over clusters numbered from 0."""
        sizes = np.bincount(clusters)
        sums = np.zeros((len(sizes), values.shape[1]))
        for column, of_column in enumerate(values.T):
            sums[:, column] = np.bincount(clusters, weights=of_column, minlength=len(sizes))
        return cls(sums, (values**2).sum(axis=0), sizes.astype(np.float64))

    @property
    def photos(self) -> float:
        return float(self.sizes.sum())

    @property
    def estimate(self) -> FloatArray:
        """The mean of each column, float64 (K,)."""
        return np.clip(self.sums.sum(axis=0) / self.photos, 0, 1)

    def residuals(self) -> FloatArray:
        """Each photographer's part in the error of the mean, float64 (C, K): linearised, they add up to 0."""
        return np.asarray((self.sums - self.sizes[:, None] * self.estimate) / self.photos)

    def design_effect(self, known: FloatArray | None = None) -> FloatArray:
        """Returns the design effect, float64 (K,), at least 1: what the spread shows, drawn to `known`, (K,), or else
        to that of photographers who are all right or all wrong."""
        shares = self.sizes / self.photos
        all_or_none = self.photos / np.sqrt(len(shares) / (shares**2).sum())
        prior = np.full(self.squares.shape, all_or_none) if known is None else known
        plain = self._plain()
        parts = (self.residuals() ** 2 / (1 - shares[:, None])).sum(axis=0)
        seen = np.divide(parts, plain, out=prior.copy(), where=plain > 0)
        missed = np.maximum(self.sizes[:, None] - self.sums, 0)
        shown = np.minimum(_effective_number(self.sums), _effective_number(missed))
        drawn = shown * seen + PRIOR_PHOTOGRAPHERS * np.maximum(prior, seen)
        return np.asarray(np.maximum(1, drawn / (shown + PRIOR_PHOTOGRAPHERS)))

    def shares(self, known: FloatArray | None = None) -> Shares:
        """Returns the means as shares; `known` as in `design_effect`."""
        estimate = self.estimate
        if len(self.sizes) < 2:
            nothing = np.full(estimate.shape, np.nan)
            return Shares(estimate, nothing, nothing)
        # Of fractions, unlike hits and misses, independent photos would vary less than estimate * (1 - estimate).
        binary, plain = estimate * (1 - estimate) / self.photos, self._plain()
        steadier = np.divide(binary, plain, out=np.ones(plain.shape), where=plain > 0)
        effective = self.photos / self.design_effect(known) * steadier
        by_photos = self.photos**2 / (self.sizes**2).sum()
        rest = self.residuals() ** 2
        by_spread = np.where(rest.sum(axis=0) > 0, _effective_number(rest), len(self.sizes))
        return Shares(estimate, effective, np.maximum(1, np.sqrt(by_photos * by_spread)))

    def _plain(self) -> FloatArray:
        """The variance of the means as if photos were independent, float64 (K,)."""
        found = np.maximum(self.squares / self.photos - self.estimate**2, 0) / self.photos
        return np.where(found > 1e-12 / self.photos, found, 0)  # rounding


def holm(p_values: ArrayLike) -> FloatArray:
    """Returns p-values corrected for their number, float64 (K,): Holm, Scandinavian Journal of Statistics 1979.

    The chance that any true hypothesis of the family has one at most `level` is at most `level`, however they depend on
    each other. NaN (not tested) stays, and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def _checked(values: ArrayLike, clusters: ArrayLike) -> tuple[FloatArray, NDArray[np.int64]]:
    x, codes = np.asarray(values, dtype=np.float64), np.asarray(clusters, dtype=np.int64)
    if not len(codes) or x.ndim != 2 or len(x) != len(codes):
        raise ValueError(
            f"an interval needs at least one photo and a row for each, got {x.shape} and {codes.shape}"
        )
    if x.size and not (x.min() >= 0 and x.max() <= 1):  # NaN fails too
        raise ValueError(f"shares must be of values from 0 to 1, got {x.min()} to {x.max()}")
    return x, codes


def _excludes_zero(low: FloatArray, high: FloatArray) -> BoolArray:
    return np.asarray((low > 0) | (high < 0))


def _effective_number(parts: FloatArray) -> FloatArray:
    """Returns how many equal parts would be as unequal as each column of `parts` (C, K), all at least 0; 0 for none."""
    squares = (parts**2).sum(axis=0)
    return np.divide(parts.sum(axis=0) ** 2, squares, out=np.zeros(squares.shape), where=squares > 0)


def _correlations(rests: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Returns the correlations of T estimates from their residuals (C, K) each: float64 (T, T, K).

    Those that would narrow the sum by `weights` are drawn to 0 where few photographers show them; all are 0 where one
    of two does not vary.
    """
    stacked = np.stack(rests)
    products = np.einsum("sck,tck->stk", stacked, stacked)
    squares = np.einsum("ttk->tk", products)
    scale = np.sqrt(squares[:, None] * squares[None, :])
    found = np.divide(products, scale, out=np.zeros(scale.shape), where=scale > 0)
    more = np.maximum(_effective_number((stacked**2).sum(axis=0)) - 1, 0)
    narrows = found * np.multiply.outer(weights, weights)[:, :, None] < 0
    found = np.where(narrows, found * more / (more + 2), found)
    every = np.arange(len(rests))
    found[every, every] = 1
    return np.asarray(found)
