"""R2 and its error against scikit-learn and SciPy."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sk

from genai.core.dataset import Description
from genai.tasks.regression import figures, measure

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


@pytest.mark.parametrize("prediction", ["a guess", "one number"])
def test_predictions_residuals_and_the_most_wrong_are_drawn(tmp_path, prediction):
    y, x = RNG.normal(size=50), RNG.normal(size=(50, 3)).astype(np.float32)
    _, columns = measure(y + RNG.normal(size=50) if prediction == "a guess" else np.zeros(50), y)
    data = SimpleNamespace(description=Description(kind="table", shape=[3]), arrays=lambda split: {"x": x, "y": y})
    (table,) = figures(SimpleNamespace(name="m"), data, columns, tmp_path).values()
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.png", "residuals.png", "most_wrong.png"}
    rows = [dict(zip(table[0], map(float, row), strict=True)) for row in table[1:]]
    assert all(row["true"] - row["prediction"] == pytest.approx(row["residual"], abs=1e-4) for row in rows)
    assert np.mean([row["residual"] ** 2 for row in rows]) == pytest.approx(columns["score"].mean(), rel=1e-4)
