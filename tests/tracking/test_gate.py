"""The gate's statistics, held to SciPy, to closed forms and to what they promise of many challengers."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, permutation_test, ttest_1samp

from genai.tasks.image_generation import kernel_distance
from genai.tasks.language_model import block_length
from genai.tracking import gate


def test_the_levels_of_all_looks_sum_to_alpha():
    looks = np.arange(1, 100_001)
    assert sum(gate.level(k) for k in looks) == pytest.approx(gate.ALPHA * (1 - 1 / 100_001))
    assert gate.level(1) == gate.ALPHA / 2


def test_a_p_value_is_the_share_of_resamples_as_extreme():
    for share in (0.5, 0.03, 0.002):
        rng = np.random.default_rng(0)
        found = [gate.p_value(lambda n, rng=rng, s=share: rng.random((1, n)) < s, at=0.0005) for _ in range(40)]
        assert np.mean(found) == pytest.approx(share, rel=0.15)
    drawn = []
    assert gate.p_value(lambda n: drawn.append(n) or np.zeros((2, n), bool), at=1e-3) == 1 / 20_001
    assert sum(drawn) == 20_000


def test_a_p_value_far_from_the_level_costs_few_resamples():
    drawn = []
    rng = np.random.default_rng(0)
    gate.p_value(lambda n: drawn.append(n) or rng.random((1, n)) < 0.3, at=1e-6)
    assert sum(drawn) == 100


def test_of_normal_differences_the_p_value_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    for shift in (0.05, 0.15, 0.25):
        difference = rng.normal(size=300)
        difference += -shift - difference.mean()
        expected = ttest_1samp(difference, 0, alternative="less").pvalue
        assert gate.better_score(difference, 1, at=1e-3) == pytest.approx(expected, rel=0.4, abs=1e-3)


def test_of_exchangeable_models_the_p_value_is_not_below_that_of_scipys_exact_test():
    difference = np.array([-1.0] * 6 + [0.0] * 200 + [1.0])  # better in 6 examples, worse in 1
    p = gate.better_score(difference, 1, at=1e-3)
    exact = permutation_test((difference[difference != 0],), np.mean, permutation_type="samples", alternative="less")
    assert exact.pvalue == 8 / 128
    assert p == pytest.approx(exact.pvalue, rel=0.5)


def test_the_studentised_bootstrap_is_what_all_resamples_give():
    difference = np.array([-0.9, -0.5, -1.2, 0.3])
    t = difference.mean() / (difference.std(ddof=1) / 2)
    resamples = np.array(list(product(difference - difference.mean(), repeat=4)))
    exact = np.mean(resamples.mean(1) <= t * np.maximum(resamples.std(1, ddof=1) / 2, 1e-9))
    signs = np.array(list(product((-1, 1), repeat=4)))
    flipped = np.mean((signs * difference).mean(1) <= difference.mean() + 1e-9)
    found = np.mean([gate.better_score(difference, 1, at=1e-3, seed=seed) for seed in range(40)])
    assert found == pytest.approx(max(exact, flipped), rel=0.1)


def test_no_difference_and_a_worse_model_do_not_pass_and_a_constant_gain_does():
    assert gate.better_score(np.zeros(50), 1, at=0.025) == 1
    assert gate.better_score(np.full(50, 0.1), 1, at=0.025) == 1
    assert gate.better_score(np.full(50, -0.1), 1, at=0.025) < 0.01
    assert gate.better_score(np.array([-0.1]), 1, at=0.025) == 1  # one example shows nothing


def autoregressive(rng, challengers, n, rho):
    """Return stationary rows (challengers, n) of variance 1 and lag-1 correlation rho."""
    x = rng.normal(size=(challengers, n))
    for i in range(1, n):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return x


def promotes_one(differences, block):
    """Say whether one of the challengers, each one's differences to the champion a row, is promoted."""
    return any(gate.better_score(d, block, gate.level(k), k) <= gate.level(k) for k, d in enumerate(differences, 1))


# Challengers no better than the champion: scores with the heavy tails of log losses, right or wrong in few
# examples, text whose neighbouring stretches are correlated (lag 1: 0.4). Either all are compared with the one
# champion, whose luck with this test set is then in every look, or each look is independent of the others.
@pytest.mark.parametrize("kind", ["heavy tails", "few examples", "text"])
@pytest.mark.parametrize("looks", ["one champion", "independent"])
def test_twenty_equally_good_challengers_promote_one_in_at_most_5_percent(kind, looks):
    rng = np.random.default_rng(0)
    n, trials = (150, 200) if kind != "text" else (300, 200)
    count = 0
    for _ in range(trials):
        if kind == "text":
            scores = autoregressive(rng, 40, n, 0.4)
        elif kind == "heavy tails":
            scores = rng.exponential(size=(40, n)) ** 3
        else:
            scores = (rng.random((40, n)) < 0.05).astype(float)
        champion = scores[20] if looks == "one champion" else scores[20:]
        count += promotes_one(scores[:20] - champion, block_length(n) if kind == "text" else 1)
    assert count <= 18  # the 99 % quantile of the binomial distribution of 200 at 5 %


def test_a_clearly_better_challenger_passes_even_at_the_twentieth_look():
    rng = np.random.default_rng(0)
    at, block = gate.level(20), block_length(600)
    assert all(gate.better_score(row - 0.6, block, at) <= at for row in autoregressive(rng, 4, 600, 0.4))
    assert all(gate.better_score(row - 0.4, 1, at) <= at for row in rng.normal(size=(4, 200)))


def test_resampling_neighbours_one_by_one_would_promote_too_often():
    rng = np.random.default_rng(0)
    rows = autoregressive(rng, 400, 300, 0.4)
    blocks = np.mean([gate.better_score(row, block_length(300), 0.025) <= 0.025 for row in rows])
    singly = np.mean([gate.better_score(row, 1, 0.025) <= 0.025 for row in rows])
    assert blocks <= 0.045 < singly


# --- samples ---


def test_the_resampled_distance_has_the_spread_that_fresh_samples_show():
    def sets(rng):
        return [rng.normal(size=(150, 4)) + shift for shift in (0.40, 0.52, 0)]

    fresh = [sets(np.random.default_rng(seed)) for seed in range(300)]
    differences = np.array([kernel_distance(a, real) - kernel_distance(b, real) for a, b, real in fresh])
    p = [gate.better_samples(a, b, real, at=0.01, seed=i) for i, (a, b, real) in enumerate(fresh[:20])]
    expected = norm.cdf(differences[:20] / differences.std())
    assert np.corrcoef(p, expected)[0, 1] > 0.95
    assert np.abs(np.array(p) - expected).mean() < 0.05


def test_equally_good_generators_pass_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(150, 4))
    passed = 0
    for seed in range(150):
        ours, theirs = (rng.normal(size=(100, 4)) + 0.3 for _ in range(2))
        passed += gate.better_samples(ours, theirs, real, 0.025, seed) <= 0.025
    assert passed <= 9  # the 99 % quantile of the binomial at 2.5 %


def test_a_generator_that_repeats_one_good_image_does_not_pass():
    rng = np.random.default_rng(0)
    real, champion = rng.normal(size=(150, 4)), rng.normal(size=(150, 4)) + 0.2
    collapsed = np.tile(real.mean(0), (150, 1))  # what a judge would find most likely
    assert gate.better_samples(collapsed, champion, real, at=0.025) > 0.9
    assert gate.better_samples(rng.normal(size=(150, 4)), champion + 0.5, real, at=0.025) <= 0.025
