"""What a user may do with any estimator of the basics: search, pipe, frames, one row, images of bytes, names as classes."""

import inspect
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import genai.basics
from genai.basics import PCA, SVC, GaussianMixture, KMeans, MultinomialNB, RandomForestClassifier
from genai.model import state

FEW = {
    "n_estimators": 5,
    "max_iter": 20,
    "random_state": 0,
    "reg_covar": 1.0,
    "tol": 1e-2,
}  # quick, and alike each time
SEARCHED = {
    "n_clusters": [2, 3], "n_components": [1, 2], "n_neighbors": [1, 5], "var_smoothing": [1e-9, 1e-3], "C": [0.1, 1.0],
    "alpha": [0.1, 1.0], "max_depth": np.array([2, 3]), "fit_intercept": [True, False],
}  # fmt: skip
METHODS = ("predict", "predict_proba", "decision_function", "transform", "score_samples", "kneighbors")


def made(name):
    cls = getattr(genai.basics, name)
    takes = inspect.signature(cls).parameters
    few = {key: value for key, value in FEW.items() if key in takes and (key != "max_iter" or name.startswith("Hist"))}
    return cls(**few)


def answers(model, x):
    """All that a model says of x, but for a density where PCA has none."""
    methods = [m for m in METHODS if hasattr(model, m) and not (m == "score_samples" and hasattr(model, "components_"))]
    return {m: np.asarray(getattr(model, m)(x)) for m in methods}


def table(model):
    return (load_diabetes if is_regressor(model) else load_iris)(return_X_y=True, as_frame=True)


NAMES = [name for name in genai.basics.__all__ if name != "KneserNey"]
every = pytest.mark.parametrize("name", NAMES)
ignored = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("name", NAMES)
def test_only_what_can_be_built_says_what_it_takes(name):
    """A class with `takes` may be named in params.yaml, and stands in its schema."""
    assert {c.__name__ for c in getattr(genai.basics, name).__mro__ if "takes" in vars(c)} <= set(NAMES)


@every
@ignored
def test_grid_search_goes_through_a_pipeline(name):
    model = made(name)
    X, y = table(model)
    grid = {f"{name.lower()}__{key}": values for key, values in SEARCHED.items() if key in model.get_params()}
    search = GridSearchCV(make_pipeline(MinMaxScaler(), model), grid, cv=3, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert not [key for key in vars(clone(search.best_estimator_[-1])) if key.endswith("_")]


@every
@ignored
def test_a_frame_is_its_array_and_a_row_alone_is_what_it_is_among_others(name):
    X, y = table(made(name))
    model = made(name).fit(X, y)
    of_array = answers(made(name).fit(X.to_numpy(), y.to_numpy()), X.to_numpy())
    for method, found in answers(model, X).items():
        np.testing.assert_array_equal(found, of_array[method])
        alone = np.asarray(getattr(model, method)(X.iloc[[7]]))
        np.testing.assert_allclose(
            alone, found[..., [7], :] if method == "kneighbors" else found[[7]], rtol=1e-9, atol=1e-9
        )
    with pytest.raises(ValueError, match="feature names should match"):
        getattr(model, method)(X.iloc[:, ::-1])


@every
@ignored
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_bytes_and_single_precision_are_reckoned_in_double(name, kind):
    images, y = load_digits(return_X_y=True)
    images = np.kron(images[:200].reshape(-1, 8, 8), np.ones((3, 3)))
    images = np.round(images * 255 / 16).astype(kind).reshape(200, -1)
    exact = answers(made(name).fit(images.astype(np.float64), y[:200]), images.astype(np.float64))
    for method, found in answers(made(name).fit(images, y[:200].astype(np.uint8)), images).items():
        np.testing.assert_array_equal(found, exact[method])


VARIANTS = [
    *map(made, NAMES),
    GaussianMixture(2, covariance_type="diag", random_state=0),
    PCA(2, whiten=True),
    SVC(kernel="linear"),
    RandomForestClassifier(5, oob_score=True, random_state=0),
]


@ignored
@pytest.mark.parametrize("model", VARIANTS, ids=repr)
def test_what_it_learned_is_arrays_of_numbers_that_another_instance_answers_from(model):
    X, y = (part.to_numpy() for part in table(model))
    for target in (y, y > 0) if is_classifier(model) else (y,):
        fitted, fresh = clone(model).fit(X, target), clone(model)
        for key, array in state(fitted).items():
            assert array.dtype.kind in "fib"
            setattr(fresh, key, array)
        again = answers(fresh, X)
        for method, found in answers(fitted, X).items():
            np.testing.assert_array_equal(again[method], found)
        if hasattr(fitted, "feature_importances_"):
            np.testing.assert_array_equal(fresh.feature_importances_, fitted.feature_importances_)


@pytest.mark.parametrize("name", [name for name in NAMES if is_classifier(made(name))])
def test_names_are_classes(name):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    numbers = made(name).fit(X, y).predict(X)
    for kind in (str, object, "category"):
        np.testing.assert_array_equal(made(name).fit(X, pd.Series(names[y]).astype(kind)).predict(X), names[numbers])


@ignored
@pytest.mark.parametrize(
    "model",
    [
        KMeans(4, random_state=0),
        GaussianMixture(2, max_iter=3, random_state=0),
        GaussianMixture(2, covariance_type="diag", max_iter=3, random_state=0),
        PCA(2),
        MultinomialNB(),
    ],
    ids=repr,
)
def test_fit_holds_no_second_table(model):
    X, y = np.random.default_rng(0).random((60_000, 40)), np.arange(60_000) % 2
    model.fit(X[:100], y[:100])  # imports
    tracemalloc.start()
    model.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 3
