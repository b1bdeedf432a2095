"""No constant prediction is better than the baselines."""

import numpy as np

from genai.basics.baselines import MajorityClass, Mean
from genai.core.dataset import Description


def test_the_mean_has_the_least_squared_error_of_all_constants():
    y = np.random.default_rng(0).gamma(2, size=101)
    x = np.zeros((101, 1))
    predicted = Mean(Mean.Config(), Description(kind="table", shape=[1])).fit(x, y, 0).predict(x[:3])
    assert predicted.shape == (3,)
    grid = np.linspace(0, 8, 8001)
    best = grid[((y[:, None] - grid) ** 2).sum(0).argmin()]
    np.testing.assert_allclose(predicted, best, atol=1e-3)


def test_majority_class_gives_the_frequencies_even_of_an_absent_class():
    from sklearn.dummy import DummyClassifier

    y = np.array([0, 2, 2, 2, 1, 0])
    x = np.zeros((6, 1, 2, 2))
    model = MajorityClass(MajorityClass.Config(), Description(kind="images", shape=[1, 2, 2], classes=list("abcd")))
    p = model.fit(x, y, 0).predict_proba(x[:2])
    np.testing.assert_allclose(p[:, :3], DummyClassifier(strategy="prior").fit(x, y).predict_proba(x[:2]))
    assert p.shape == (2, 4) and (p[:, 3] == 0).all()
