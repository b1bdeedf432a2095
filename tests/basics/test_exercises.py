"""Solutions of the exercises in genai/basics/README.md."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from genai.basics import (
    PCA,
    SVC,
    DecisionTreeClassifier,
    GaussianMixture,
    KMeans,
    LinearRegression,
    LogisticRegression,
    Ridge,
)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.3, random_state=0, stratify=y)


def bias_variance(make, degree, sets=200, n=20, noise=0.3):
    """Return bias^2, variance and error of polynomials fitted to draws of a sine, averaged over the interval."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, 101)
    powers = np.arange(1, degree + 1)
    truth = np.sin(np.pi * grid)
    predicted, errors = [], []
    for _ in range(sets):
        x = rng.uniform(-1, 1, n)
        y = np.sin(np.pi * x) + noise * rng.normal(size=n)
        predicted.append(make().fit(x[:, None] ** powers, y).predict(grid[:, None] ** powers))
        errors.append((truth + noise * rng.normal(size=len(grid)) - predicted[-1]) ** 2)
    predicted = np.array(predicted)
    bias, variance = ((predicted.mean(0) - truth) ** 2).mean(), predicted.var(0).mean()
    return bias, variance, np.median(np.mean(errors, 1)), np.mean(errors)


def test_1_bias_and_variance_add_up_and_ridge_trades_one_for_the_other():
    line, cubic, ninth = (bias_variance(LinearRegression, degree) for degree in (1, 3, 9))
    for bias, variance, _, error in (line, cubic, ninth):
        assert bias + variance + 0.3**2 == pytest.approx(error, rel=0.05)
    assert line[0] > 5 * cubic[0] and ninth[1] > 5 * cubic[1]  # a line cannot bend; the ninth degree follows the noise
    ridge = bias_variance(lambda: Ridge(alpha=0.1), 9)
    assert ridge[1] < ninth[1] / 5 and ridge[0] > cubic[0] and ridge[3] < ninth[3]


def test_2_on_separable_data_the_weights_grow_without_bound():
    X, y = np.array([[-2.0], [-1], [1], [2]]), np.array([0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norms = [np.abs(LogisticRegression(C=C).fit(X, y).coef_).sum() for C in (1.0, 100.0, 1e4)]
    assert norms[1] > 1.5 * norms[0] and norms[2] > 1.5 * norms[1]


def test_3_the_inertia_falls_with_every_cluster_more(digits):
    X, other, _, _ = digits
    found = [KMeans(k, n_init=4, random_state=0).fit(X) for k in (2, 5, 10, 20)]
    inertias = [model.inertia_ for model in found]
    assert inertias == sorted(inertias, reverse=True)
    # with a cluster an example it would be 0, which says nothing of the data: on others it stays
    assert -KMeans(400, n_init=1, random_state=0).fit(X).score(other) > 0.3 * -found[2].score(other)


def test_4_crossed_clouds_want_full_covariances():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 300, 2)) * [3.0, 0.3]
    turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    X, y = np.concatenate([z[0] @ turn, z[1] @ turn.T]), np.repeat([0, 1], 300)
    full, diagonal = (GaussianMixture(2, covariance_type=t, n_init=20, random_state=0).fit(X) for t in ("full", "diag"))
    assert full.bic(X) < diagonal.bic(X) - 100

    def agreement(labels):
        return max(np.mean(labels == y), np.mean(labels != y))

    assert agreement(full.predict(X)) > 0.85
    assert agreement(KMeans(2, random_state=0).fit(X).labels_) < 0.7


def test_5_a_third_of_the_numbers_hold_nearly_all(digits):
    X, other, y, labels = digits
    pca = PCA(0.9).fit(X)
    assert 15 < pca.n_components_ < 25
    whole = SVC(C=10.0).fit(X, y).score(other, labels)
    compressed = SVC(C=10.0).fit(pca.transform(X), y).score(pca.transform(other), labels)
    assert whole - compressed < 0.01


def test_6_the_pruned_tree_is_smaller_and_no_worse(digits):
    X, other, y, labels = digits
    grown = DecisionTreeClassifier(random_state=0).fit(X, y)
    alphas = grown.cost_complexity_pruning_path(X, y)["ccp_alphas"]
    trees = [DecisionTreeClassifier(random_state=0, ccp_alpha=float(a)).fit(X, y) for a in alphas[:: len(alphas) // 12]]
    best = max(trees, key=lambda tree: tree.score(other, labels))
    assert best.score(other, labels) >= grown.score(other, labels)
    sizes = [len(tree.feature_) for tree in trees]
    assert sizes == sorted(sizes, reverse=True)


def test_7_what_can_represent_anything_learns_noise_too(digits):
    X, other, y, labels = digits
    shuffled = np.random.default_rng(0).permutation(y)
    tree = DecisionTreeClassifier(random_state=0).fit(X, shuffled)
    margin = SVC(C=1e4).fit(X, shuffled)
    linear = LogisticRegression(C=1.0).fit(X, shuffled)
    assert tree.score(X, shuffled) == 1 and margin.score(X, shuffled) > 0.99 and linear.score(X, shuffled) < 0.5
    assert max(model.score(other, labels) for model in (tree, margin, linear)) < 0.2


def test_8_held_out_likelihood_knows_signal_from_noise_and_a_share_of_the_variance_does_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 9)) + rng.normal(size=(400, 9))
    assert GridSearchCV(PCA(), {"n_components": range(1, 9)}).fit(X).best_params_ == {"n_components": 3}
    assert PCA(0.5).fit(X).n_components_ < 3 < PCA(0.9).fit(X).n_components_
