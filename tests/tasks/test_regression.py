"""R2 and its error against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sk

from genai.tasks.regression import measure

RNG = np.random.default_rng(0)


def test_the_figures_are_scikit_learns_and_the_scores_are_squared_errors():
    y, prediction = RNG.normal(size=(2, 50))
    figures, columns = measure(prediction, y)
    assert figures["r2"] == pytest.approx(sk.r2_score(y, prediction))
    assert figures["rmse"] ** 2 == pytest.approx(sk.mean_squared_error(y, prediction))
    assert figures["rmse"] ** 2 == pytest.approx(columns["score"].mean())


def test_the_error_of_r2_is_scipys_bootstrap_of_it():
    y = RNG.normal(size=80)
    prediction = y + RNG.normal(size=80)
    figures, _ = measure(prediction, y)
    theirs = bootstrap(
        (y, prediction), sk.r2_score, paired=True, vectorized=False, n_resamples=1000, rng=1, method="basic"
    )
    assert figures["r2_se"] == pytest.approx(theirs.standard_error, rel=0.15)
