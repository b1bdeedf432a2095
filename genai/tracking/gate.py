"""The gate's statistics: whether a challenger is better than the champion beyond chance, at the level of this look.

Every comparison with one champion is another look at the same test set. The k-th is taken at level
alpha / (k (k + 1)); over all k these sum to alpha, so that however many challengers no better than the champion
come, one of them passes with probability at most alpha.
"""

import math
from collections.abc import Callable

import numpy as np

ALPHA = 0.05
HITS = 20  # resamples at least as extreme as what was seen: as many settle a p-value to a fifth of itself
MEMORY = 2_000_000  # numbers drawn at a time


def level(look: int) -> float:
    """Return the level of the look-th comparison with a champion, counted from 1."""
    return ALPHA / (look * (look + 1))


def p_value(draw: Callable[[int], np.ndarray], at: float) -> float:
    """Return a Monte Carlo p-value, exact enough to be compared with the level `at`.

    draw: n -> (statistics, n) of bool, whether each of n resamples is at least as extreme as what was seen;
    of several statistics the one with the largest p-value counts. Besag and Clifford, "Sequential Monte
    Carlo p-values", Biometrika 1991: most challengers are far from passing, and cost a hundred resamples
    instead of HITS / at.
    """
    enough, seen = math.ceil(HITS / at), 0
    hits: np.ndarray | int = 0
    while seen < enough:
        drawn = draw(min(max(100, seen), 5000, enough - seen))  # 100, as many again, ...
        total = (np.cumsum(drawn, 1) + np.reshape(hits, (-1, 1))).max(0)
        if total[-1] >= HITS:
            return HITS / (seen + int(np.searchsorted(total, HITS)) + 1)
        hits, seen = hits + drawn.sum(1), seen + drawn.shape[1]
    return (int(np.max(hits)) + 1) / (seen + 1)


def better_score(difference: np.ndarray, block: int, at: float, seed: int = 0) -> float:
    """Return the p-value of paired differences (N,), lower is better, against a mean that is not below zero.

    block: 1 where examples are independent, else the length of a moving block of neighbours (Künsch, Annals of
    Statistics 1989). The larger of two p-values:

    - the studentised bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 12.5; with
      blocks Götze and Künsch, Annals of Statistics 1996), whose error is small also for skewed differences;
    - signs flipped at random, block by block, which is exact where the two models are exchangeable, however few
      examples they differ in and however heavy the tails (`scipy.stats.permutation_test` with
      permutation_type="samples"; there the bootstrap alone passes two to four times too often).

    SciPy's bootstrap knows neither blocks nor this interval, and neither stops early.
    """
    n, mean = len(difference), float(difference.mean())
    blocks, rng = n // block, np.random.default_rng(seed)
    if mean >= 0 or blocks < 2:
        return 1.0
    totals = np.concatenate([[0.0], np.cumsum(difference - mean)])
    centred = (totals[block:] - totals[:-block]) / block  # mean of each block of neighbours, less the mean
    centred -= centred.mean()
    apart = difference[: blocks * block].reshape(blocks, block).mean(1)
    noise = 1e-9 * abs(mean)  # of rounding: the same resample summed in another order is as extreme
    t = mean / max(centred.std(ddof=1) / math.sqrt(n / block), noise)

    def draw(size: int) -> np.ndarray:
        parts = []
        for k in _sizes(size, blocks):
            x = centred[rng.integers(len(centred), size=(k, blocks))]
            error = np.maximum(x.std(1, ddof=1) / math.sqrt(blocks), noise)
            signs = 2.0 * rng.integers(2, size=(k, blocks), dtype=np.int8) - 1
            parts.append(np.stack([x.mean(1) <= t * error, signs @ apart / blocks <= apart.mean() + noise]))
        return np.concatenate(parts, 1)

    return p_value(draw, at)


def better_samples(ours: np.ndarray, theirs: np.ndarray, real: np.ndarray, at: float, seed: int = 0) -> float:
    """Return the p-value of our samples being no nearer to the real examples than theirs, by the kernel distance.

    ours (N, F), theirs (M, F), real (K, F): a judge's features. A bootstrap over the rows of all three: the share of
    resamples in which our distance is not the smaller. The kernel is computed once, a resample only counts its
    rows; a row drawn twice is not compared with itself, which would add what the unbiased estimate leaves out.
    """
    from genai.tasks.image_generation import kernel, within

    rng = np.random.default_rng(seed)
    own = [kernel(x, x) for x in (ours, theirs)]
    cross = [kernel(x, real) for x in (ours, theirs)]

    def draw(size: int) -> np.ndarray:
        parts = []
        for k in _sizes(size, 4 * max(len(ours), len(theirs), len(real))):
            w = _counts(len(real), k, rng)
            distance = []
            for x, x_real in zip(own, cross, strict=True):
                u = _counts(len(x), k, rng)
                distance.append(within(u, x) - 2 * ((u @ x_real) * w).sum(1) / (len(x) * len(real)))
            parts.append(distance[0] >= distance[1])  # the real rows' distance among themselves is in both
        return np.concatenate(parts)[None]

    return p_value(draw, at)


def _sizes(size: int, numbers: int) -> list[int]:
    """Return how many resamples of so many numbers each to draw at a time, `size` in all."""
    step = max(1, MEMORY // numbers)
    return [min(step, size - i) for i in range(0, size, step)]


def _counts(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of n rows is drawn, (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
