"""Random forests: the mean of trees, each grown on a bootstrap sample and offered a few random features at each split.

Breiman, "Random Forests", 2001; Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", chapter 15.
"""

from typing import Any, Literal

import numpy as np
from sklearn.metrics import accuracy_score, r2_score

from genai.basics.trees.decision_tree import (
    BLOCK,
    AtLeastTwo,
    Classifier,
    MaxFeatures,
    Nodes,
    Regressor,
    Trees,
    descend,
    grow,
    ranked,
)
from genai.core.config import Count, Seed


def bootstrap_counts(n: int, n_trees: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of n examples is drawn when n are drawn with replacement, (n_trees, n)."""
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_trees)])


def joined(batches: list[Nodes]) -> Nodes:
    """Return the trees of all batches as one, their nodes and trees numbered on."""
    nodes = np.cumsum([0, *(len(b.left) for b in batches[:-1])])
    trees = np.cumsum([0, *(b.tree[-1] + 1 for b in batches[:-1])])
    each = zip(batches, nodes, trees, strict=True)
    moved = [b._replace(left=b.left + n, tree=b.tree + t) for b, n, t in each]
    return Nodes(*map(np.concatenate, zip(*moved, strict=True)))


class Forest(Trees):
    """How a forest is grown, whatever its leaves hold; a tree errs by chance, their mean errs less (ESL 15.1)."""

    n_estimators: int
    bootstrap: bool
    oob_score: bool

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        """X: (N, D), y: (N,). Raises ValueError where oob_score is asked for without bootstrap."""
        X, y, n_classes = self.examples(X, y)
        if self.oob_score and not self.bootstrap:
            raise ValueError("oob_score: True should be False where bootstrap is: no example is left out of a tree")
        rng, table, rules = np.random.default_rng(self.random_state), ranked(X), self.rules(X.shape[1], n_classes)
        batch = max(1, 4 * BLOCK // len(X))  # trees that grow together: few array operations where examples are few
        batches, out_of_bag = [], OutOfBag(X, n_classes)
        for first in range(0, self.n_estimators, batch):
            n_trees = min(batch, self.n_estimators - first)
            counts = bootstrap_counts(len(X), n_trees, rng) if self.bootstrap else np.ones((n_trees, len(X)), int)
            batches.append(grow(table, y, counts, rules, rng))
            if self.oob_score:
                out_of_bag.add(batches[-1], counts)
        self.keep(joined(batches))
        if self.oob_score:
            self.score_out_of_bag(out_of_bag.mean(), y)
        return self

    def score_out_of_bag(self, mean: np.ndarray, y: np.ndarray) -> None:
        """Set oob_score_ and what it is the score of."""
        raise NotImplementedError


class OutOfBag:
    """The mean prediction for each example of the trees that did not see it: a test set that costs nothing."""

    def __init__(self, X: np.ndarray, n_classes: int):
        self.X, self.n_trees = X, np.zeros(len(X))
        self.sum = np.zeros((len(X), n_classes) if n_classes else len(X))

    def add(self, nodes: Nodes, counts: np.ndarray) -> None:
        """Add the trees of a batch, which saw each example `counts` (T, N) times."""
        for root, count in zip(np.searchsorted(nodes.tree, np.arange(len(counts))), counts, strict=True):
            unseen = np.flatnonzero(count == 0)
            leaf = descend(self.X[unseen], np.array([root]), nodes.left, nodes.feature, nodes.threshold)[0]
            self.sum[unseen] += nodes.value[leaf]
            self.n_trees[unseen] += 1

    def mean(self) -> np.ndarray:
        """Return the means, NaN for an example that every tree saw."""
        with np.errstate(invalid="ignore"):
            return (self.sum.T / self.n_trees).T


class RandomForestClassifier(Forest, Classifier):
    """The mean of the class shares of n_estimators trees.

    With oob_score it learns oob_score_, the accuracy, of oob_decision_function_, (N, K), NaN where every tree saw one.
    """

    takes = frozenset({"table", "images"})

    def __init__(
        self,
        n_estimators: Count = 100,
        *,
        criterion: Literal["gini", "entropy"] = "gini",
        max_depth: Count | None = None,
        min_samples_split: AtLeastTwo = 2,
        min_samples_leaf: Count = 1,
        max_features: MaxFeatures = "sqrt",
        bootstrap: bool = True,
        oob_score: bool = False,
        random_state: Seed | None = None,
    ):
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.random_state = random_state

    def score_out_of_bag(self, mean: np.ndarray, y: np.ndarray) -> None:
        """Set oob_decision_function_ and oob_score_, the accuracy."""
        known = ~np.isnan(mean[:, 0])
        self.oob_decision_function_ = mean
        self.oob_score_ = accuracy_score(y[known], mean[known].argmax(1))


class RandomForestRegressor(Forest, Regressor):
    """The mean of n_estimators regression trees.

    With oob_score it learns oob_score_, the R2, of oob_prediction_, (N,), NaN where every tree saw an example.
    """

    takes = frozenset({"table", "images"})

    def __init__(
        self,
        n_estimators: Count = 100,
        *,
        criterion: Literal["squared_error"] = "squared_error",
        max_depth: Count | None = None,
        min_samples_split: AtLeastTwo = 2,
        min_samples_leaf: Count = 1,
        max_features: MaxFeatures = 1.0,
        bootstrap: bool = True,
        oob_score: bool = False,
        random_state: Seed | None = None,
    ):
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.random_state = random_state

    def score_out_of_bag(self, mean: np.ndarray, y: np.ndarray) -> None:
        """Set oob_prediction_ and oob_score_, the R2."""
        known = ~np.isnan(mean)
        self.oob_prediction_ = mean
        self.oob_score_ = r2_score(y[known], mean[known])
