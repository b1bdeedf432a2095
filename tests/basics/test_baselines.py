"""No constant is better than the baselines: the mean by squared error, the class frequencies by log loss and accuracy."""

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import MajorityClass, Mean
from genai.tasks.classification import measure

POOR = {
    "check_regressors_train": "it looks at no feature, and so fits no better than the mean",
    "check_classifiers_train": "it looks at no feature, and so knows one class",
}


def test_they_are_estimators_as_scikit_learn_means_them_but_that_they_look_at_no_feature():
    check_estimator(Mean(), expected_failed_checks=POOR)
    check_estimator(MajorityClass(), expected_failed_checks=POOR)


def test_the_mean_has_the_least_squared_error_of_all_constants():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.gamma(2.0, size=40)
    predicted = Mean().fit(x, y).predict(x[:3])
    np.testing.assert_allclose(predicted, DummyRegressor().fit(x, y).predict(x[:3]))
    errors = [((y - c) ** 2).sum() for c in np.linspace(y.min(), y.max(), 1001)]
    assert ((y - predicted[0]) ** 2).sum() <= min(errors)


def test_the_class_frequencies_have_the_least_log_loss_of_all_constants_and_it_is_the_entropy():
    rng = np.random.default_rng(0)
    x, y = np.zeros((60, 1)), rng.choice(3, 60, p=[0.5, 0.3, 0.2])
    model = MajorityClass().fit(x, y)
    p = model.predict_proba(x)
    np.testing.assert_allclose(p, DummyClassifier(strategy="prior").fit(x, y).predict_proba(x))
    assert (model.predict(x) == np.bincount(y).argmax()).all()
    entropy = -(p[0] * np.log(p[0])).sum()
    np.testing.assert_allclose(measure(p, y)[0]["log_loss"], entropy)
    for other in rng.dirichlet([5, 3, 2], size=200):
        assert measure(np.tile(other, (60, 1)), y)[0]["log_loss"] >= entropy
