"""Gradient boosting with histograms: trees added one by one, each a Newton step down the loss, split between few bins.

Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", 2001; Chen and Guestrin, "XGBoost", 2016;
Ke et al., "LightGBM", 2017 (histograms, growth best first).
"""

import heapq
import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy.sparse import csc_array
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.basics.trees.decision_tree import BLOCK, AtLeastTwo, descend, midpoints
from genai.core.config import Count, Seed, check_keywords

CHUNK = 2**18  # codes in one product: index, statistics and histogram stay in the cache
SAMPLE = 200_000  # rows that quantiles are taken from
LEAST_HESSIAN = 1e-3  # below it a Newton step is rounding, not learning
Rate = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
BinCount = Annotated[int, Field(ge=2, le=255)]


# --- Losses: raw predictions (N, T), one column for a number or two classes, K for K classes -----------------------------


def baseline(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the constant raw prediction with the least loss, (T,)."""
    if not n_classes:
        return np.array([y.mean()])
    log_p = np.log(np.bincount(y, minlength=n_classes) / len(y))
    return log_p[1:] - log_p[:1] if n_classes == 2 else log_p - log_p.mean()


def derivatives(raw: np.ndarray, y: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return gradient and hessian of the loss by each raw prediction, (N, T) each; None for a hessian of 1.

    (raw - y)^2 / 2 in regression; cross-entropy of the logistic function, or of softmax with its diagonal hessian.
    """
    if not n_classes:
        return raw - y[:, None], None
    p = expit(raw) if n_classes == 2 else softmax(raw, axis=1)
    return p - (y[:, None] == (1 if n_classes == 2 else np.arange(n_classes))), p * (1 - p)


def mean_loss(raw: np.ndarray, y: np.ndarray, n_classes: int) -> float:
    """Return the mean over the examples of the loss that `derivatives` differentiates."""
    if not n_classes:
        return float(np.mean((raw[:, 0] - y) ** 2) / 2)
    if n_classes == 2:
        return float(np.mean(np.logaddexp(0, np.where(y == 1, -raw[:, 0], raw[:, 0]))))
    return float(-log_softmax(raw, axis=1)[np.arange(len(y)), y].mean())


# --- Bins ---------------------------------------------------------------------------------------------------------------


class Bins(NamedTuple):
    """A table in bins. They are numbered through all features: those of a feature in order, then one for its NaN if any."""

    first: np.ndarray  # (D,) the first bin of each feature
    feature: np.ndarray  # (B,) the feature of each bin
    edge: np.ndarray  # (B,) the upper edge of each bin: the threshold of a split after it
    missing: np.ndarray  # (B,) the bin of its feature's missing values, -1 for none
    codes: np.ndarray  # (N, D) int32, the bin of each value, row after row: for histograms
    columns: np.ndarray  # (D, N) uint8, the same less the feature's first, column after column: for splits


def quantile_edges(values: np.ndarray, max_bins: int) -> np.ndarray:
    """Return the ascending edges between at most max_bins bins: between distinct values if few, else quantiles."""
    distinct = np.unique(values)
    if len(distinct) <= max_bins:
        return midpoints(distinct[:-1], distinct[1:])
    return np.unique(np.quantile(values, np.arange(1, max_bins) / max_bins))


def bin_features(x: np.ndarray, max_bins: int, rng: np.random.Generator) -> Bins:
    """Put each value of x (N, D) into the first bin whose edge is not below it; NaN gets a bin of its own."""
    sample = x[rng.choice(len(x), SAMPLE, replace=False)] if len(x) > SAMPLE else x
    columns = np.empty(x.shape[::-1], np.uint8)
    edges, has_missing = [], np.zeros(x.shape[1], int)
    for d in range(x.shape[1]):
        column, known = np.ascontiguousarray(x[:, d]), sample[:, d]
        absent = np.isnan(column)
        inner = quantile_edges(known[~np.isnan(known)], max_bins)
        columns[d] = np.where(absent, len(inner) + 1, np.searchsorted(inner, column))
        has_missing[d] = absent.any()
        edges.append(np.concatenate([inner, np.full(1 + has_missing[d], np.finfo(float).max)]))
    sizes = np.array([len(e) for e in edges])
    end = sizes.cumsum()
    missing = np.repeat(np.where(has_missing > 0, end - 1, -1), sizes)
    codes = np.add(columns.T, end - sizes, dtype=np.int32, casting="unsafe", order="C")
    return Bins(end - sizes, np.repeat(np.arange(len(sizes)), sizes), np.concatenate(edges), missing, codes, columns)


# --- One tree -----------------------------------------------------------------------------------------------------------


class Rules(NamedTuple):
    """How far a tree grows."""

    max_leaf_nodes: int | None
    max_depth: int | None
    min_samples_leaf: int
    l2_regularization: float

    def may_split(self, node: "Node") -> bool:
        """Return whether a node is large and shallow enough."""
        shallow = self.max_depth is None or node.depth < self.max_depth
        return shallow and len(node.rows) >= 2 * self.min_samples_leaf


class Split(NamedTuple):
    """The best split of a node: what it gains, after which bin, where missing values go, the sums on its left."""

    gain: float
    bin: int
    missing_left: bool
    left: np.ndarray  # (S,)


@dataclass(eq=False)
class Node:
    """A node of a growing tree; S statistics: the gradient, 1 and, where it is not 1, the hessian."""

    rows: np.ndarray
    total: np.ndarray  # (S,) their sums
    depth: int = 0
    histogram: np.ndarray | None = None  # (S, B) their sums in each bin, in whole numbers
    split: Split | None = None
    children: tuple["Node", ...] = ()


def whole(stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return stats (N, S) in whole numbers of units (S,), powers of two so small that sums just stay below 2^53.

    Sums of these are exact, in any order and by subtraction too, and as integers NumPy cumulates them ten times as fast.
    """
    exponents = np.frexp(np.abs(stats).max(0))[1] + len(stats).bit_length() - 53
    return np.rint(np.ldexp(stats, -exponents)), np.ldexp(1.0, exponents)


def histogram(bins: Bins, rows: np.ndarray, stats: np.ndarray) -> np.ndarray:
    """Return the sums of stats (N, S) over the rows that fall into each bin, (S, B).

    With C the one-hot matrix of the codes, they are C^T stats: a sparse product with D ones for each row.
    """
    n_features, n_bins = bins.codes.shape[1], len(bins.edge)
    sums = np.zeros((n_bins, stats.shape[1]))
    step = max(1, CHUNK // n_features)
    ones = np.ones(min(step, len(rows)) * n_features)
    ends = np.arange(min(step, len(rows)) + 1, dtype=np.int32) * n_features
    for some in (rows[i : i + step] for i in range(0, len(rows), step)):
        codes = bins.codes.take(some, axis=0).ravel()
        one_hot = csc_array((ones[: len(codes)], codes, ends[: len(some) + 1]), shape=(n_bins, len(some)))
        sums += one_hot @ stats.take(some, axis=0)
    return np.ascontiguousarray(sums.T)


def find_splits(nodes: list[Node], used: np.ndarray, bins: Bins, units: np.ndarray, rules: Rules) -> None:
    """Set the best split of each node among those after the `used` bins, the others being empty; units: (S,).

    A leaf that moves its examples by w changes the loss by G w + (H + l2) w^2 / 2, at best by -G^2 / (H + l2) / 2, G and
    H being sums of gradient and hessian. So a split gains, up to the half (XGBoost, equation 7),
    G_L^2 / (H_L + l2) + G_R^2 / (H_R + l2) - G^2 / (H + l2).
    """
    sums = np.stack([node.histogram.take(used, axis=1) for node in nodes], axis=1)  # type: ignore[union-attr]
    sums, units = sums.astype(np.int64), units[:, None, None]
    total = np.stack([node.total for node in nodes], axis=1)[:, :, None]
    first = np.searchsorted(used, bins.first)
    by_feature = np.add.reduceat(sums, first, axis=2)
    missing = None
    if (bins.missing >= 0).any():
        missing = np.add.reduceat(np.where(bins.missing[used] == used, sums, 0), first, axis=2) * units
        missing = np.repeat(missing, np.diff(first, append=len(used)), axis=2)
    sums[:, :, first[1:]] -= by_feature[:, :, :-1]  # so that one cumulative sum starts anew at each feature
    left = sums.cumsum(axis=2) * units
    options = [left] if missing is None else [left, left + missing]
    gains = [gain(option, total, rules) for option in options]
    for i, node in enumerate(nodes):
        direction = int(np.argmax([g[i].max() for g in gains]))
        at = int(gains[direction][i].argmax())
        left_sums = options[direction][:, i, at]
        # without a missing value there is no direction to learn: the one that more examples take
        seen = missing is not None and missing[1, i, at] > 0
        missing_left = direction == 1 if seen else 2 * left_sums[1] > node.total[1]
        node.split = Split(float(gains[direction][i, at]), int(used[at]), bool(missing_left), left_sums)


def gain(left: np.ndarray, total: np.ndarray, rules: Rules) -> np.ndarray:
    """Return what the splits gain, (nodes, bins), -inf where one is not allowed; left: (S, nodes, bins)."""

    def score(sums: np.ndarray) -> np.ndarray:
        return sums[0] ** 2 / (np.maximum(sums[-1], LEAST_HESSIAN) + rules.l2_regularization)

    right = total - left
    gains = score(left) + score(right) - score(total)
    gains[np.minimum(left[1], right[1]) < rules.min_samples_leaf] = -np.inf
    if len(left) > 2:  # else the hessian is 1, its sums are the counts
        gains[np.minimum(left[2], right[2]) < LEAST_HESSIAN] = -np.inf
    return gains


def grow(bins: Bins, stats: np.ndarray, rules: Rules) -> Node:
    """Grow a tree best first: of all leaves, the one whose split gains most is split next. Returns the root."""
    rows = np.arange(len(stats))
    values, units = whole(stats)
    root = Node(rows, stats.sum(0), histogram=histogram(bins, rows, values))
    leaves: list[tuple[float, int, Node]] = []  # a heap by gain, the older first where two gain the same
    n_leaves, order = 1, itertools.count()

    def offer(nodes: list[Node], used: np.ndarray) -> None:
        find_splits(nodes, used, bins, units, rules)
        for node in nodes:
            if node.split is not None and node.split.gain > 0:
                heapq.heappush(leaves, (-node.split.gain, next(order), node))

    if rules.may_split(root):
        offer([root], np.arange(len(bins.edge)))
    while leaves and (rules.max_leaf_nodes is None or n_leaves < rules.max_leaf_nodes):
        node = heapq.heappop(leaves)[-1]
        node.children = children(node, bins)
        n_leaves += 1
        if nodes := [child for child in node.children if rules.may_split(child)]:
            used = (node.histogram[1] > 0).nonzero()[0]  # type: ignore[index]
            share_histogram(node, bins, values)
            offer(nodes, used)
        node.histogram = None
    return root


def children(node: Node, bins: Bins) -> tuple[Node, Node]:
    """Return the two nodes that the rows of a node are split into."""
    assert node.split is not None
    _, at, missing_left, left = node.split
    feature = bins.feature[at]
    first, missing = int(bins.first[feature]), int(bins.missing[at])  # as NumPy's, they would widen all codes
    code = bins.columns[feature].take(node.rows)
    goes_left = code <= at - first
    if missing_left and missing >= 0:
        goes_left |= code == missing - first
    rows = node.rows.compress(goes_left), node.rows.compress(~goes_left)
    return Node(rows[0], left, node.depth + 1), Node(rows[1], node.total - left, node.depth + 1)


def share_histogram(node: Node, bins: Bins, values: np.ndarray) -> None:
    """Set the children's histograms: the smaller one's by counting, its sibling's is what is left of the parent's."""
    small, large = sorted(node.children, key=lambda child: len(child.rows))
    small.histogram = histogram(bins, small.rows, values)
    large.histogram = node.histogram - small.histogram


class Flat(NamedTuple):
    """A tree as arrays, a right child right after the left one; a leaf is its own left child, its threshold inf."""

    left: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray


def flatten(root: Node, bins: Bins, rules: Rules, learning_rate: float) -> tuple[Flat, list[tuple[np.ndarray, float]]]:
    """Return the tree as arrays, and the rows and the value of each leaf: a step of learning_rate -G / (H + l2)."""
    nodes, flat, leaves = [root], [], []
    for i, node in enumerate(nodes):  # which grows meanwhile
        if node.children:
            assert node.split is not None
            at = node.split.bin
            flat.append((len(nodes), bins.feature[at], bins.edge[at], node.split.missing_left, 0.0))
            nodes.extend(node.children)
        else:
            denominator = max(node.total[-1], LEAST_HESSIAN) + rules.l2_regularization
            value = -learning_rate * float(node.total[0]) / denominator
            flat.append((i, 0, np.inf, False, value))
            leaves.append((node.rows, value))
    return Flat(*map(np.array, zip(*flat, strict=True))), leaves


# --- The estimators -----------------------------------------------------------------------------------------------------


def both_ways(x: np.ndarray) -> np.ndarray:
    """Return x beside itself, missing values first the greatest, then the least, (N, 2 D), where there are any.

    So a missing value goes right of any threshold in column d, left of it in column D + d, and a descent knows no NaN.
    """
    absent = np.isnan(x)
    return np.hstack([np.where(absent, np.inf, x), np.where(absent, -np.inf, x)]) if absent.any() else x


def leaves_reached(x: np.ndarray, n_features: int, roots: np.ndarray, trees: Flat) -> np.ndarray:
    """Return the leaf that each row of x, as both_ways returns it for n_features, reaches from each root, (roots, N)."""
    beside = n_features if x.shape[1] > n_features else 0  # where the columns begin in which a missing value goes left
    return descend(x, roots, trees.left, trees.feature + beside * trees.missing_left, trees.threshold)


class Boosting(BaseEstimator):
    """What both share: the sum of a constant and of trees.

    Learned: children_left_, feature_, threshold_, missing_left_ and value_, one entry a node (a right child is the next
    node; a leaf its own child), offsets_ between which the nodes of a tree stand, the trees of an iteration together;
    baseline_, (T,); n_iter_; train_score_ and validation_score_, minus the mean loss from the baseline on.
    """

    def __init__(
        self,
        *,
        learning_rate: Rate = 0.1,
        max_iter: Count = 100,
        max_leaf_nodes: AtLeastTwo | None = 31,
        max_depth: Count | None = None,
        min_samples_leaf: Count = 20,
        l2_regularization: NotNegative = 0.0,
        max_bins: BinCount = 255,
        early_stopping: Literal["auto"] | bool = "auto",
        validation_fraction: Part = 0.1,
        n_iter_no_change: Count = 10,
        tol: NotNegative = 1e-7,
        random_state: Seed | None = None,
    ):
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.max_leaf_nodes = max_leaf_nodes
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization
        self.max_bins = max_bins
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state

    def boost(self, X: np.ndarray, y: np.ndarray, n_classes: int) -> None:
        """Learn from X (N, D), where NaN is missing, and y (N,): numbers, or the classes' indices."""
        rng = np.random.default_rng(self.random_state)
        stopping = len(X) > 10_000 if self.early_stopping == "auto" else self.early_stopping
        X_val, y_val = X[:0], y[:0]
        if stopping:
            X, X_val, y, y_val = train_test_split(
                X,
                y,
                test_size=self.validation_fraction,
                stratify=y if n_classes else None,
                random_state=int(rng.integers(2**31)),
            )
        rules = Rules(self.max_leaf_nodes, self.max_depth, self.min_samples_leaf, self.l2_regularization)
        bins = bin_features(X, self.max_bins, rng)
        self.baseline_ = baseline(y, n_classes)
        raw, raw_val = (np.tile(self.baseline_, (n, 1)) for n in (len(X), len(X_val)))
        X_val, n_features = both_ways(X_val), X.shape[1]
        train, validation, trees = [-mean_loss(raw, y, n_classes)], [], []
        if stopping:
            validation.append(-mean_loss(raw_val, y_val, n_classes))
        while len(train) <= self.max_iter and not (stopping and self.stalled(validation)):
            gradient, hessian = derivatives(raw, y, n_classes)
            for k in range(raw.shape[1]):
                columns = [gradient[:, k], np.ones(len(y))] + ([] if hessian is None else [hessian[:, k]])
                root = grow(bins, np.stack(columns, axis=1), rules)
                tree, leaves = flatten(root, bins, rules, self.learning_rate)
                trees.append(tree)
                moved = np.empty(len(y))
                for rows, value in leaves:
                    moved[rows] = value
                raw[:, k] += moved
                if stopping:
                    raw_val[:, k] += tree.value[leaves_reached(X_val, n_features, np.zeros(1, int), tree)[0]]
            train.append(-mean_loss(raw, y, n_classes))
            if stopping:
                validation.append(-mean_loss(raw_val, y_val, n_classes))
        self.n_iter_, self.train_score_, self.validation_score_ = len(train) - 1, np.array(train), np.array(validation)
        self.keep(trees)

    def stalled(self, scores: list[float]) -> bool:
        """Return whether none of the last n_iter_no_change scores is better than the one before them, by tol."""
        n = self.n_iter_no_change
        return len(scores) > n and max(scores[-n:]) <= scores[-n - 1] + self.tol

    def keep(self, trees: list[Flat]) -> None:
        """Set the learned attributes."""
        self.offsets_ = np.cumsum([0, *(len(t.left) for t in trees)])
        moved = [t._replace(left=t.left + offset) for t, offset in zip(trees, self.offsets_[:-1], strict=True)]
        joined = Flat(*map(np.concatenate, zip(*moved, strict=True)))
        self.children_left_, self.feature_, self.threshold_, self.missing_left_, self.value_ = joined

    def raw_prediction(self, X: np.ndarray) -> np.ndarray:
        """Return the baseline plus what the trees say, (N, T)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        raw = np.tile(self.baseline_, (len(X), 1))
        step = BLOCK // 4
        for i in range(0, len(X), step):
            self.add_trees(raw[i : i + step], both_ways(X[i : i + step]))
        return raw

    def add_trees(self, raw: np.ndarray, x: np.ndarray) -> None:
        """Add to raw (n, T) what the trees say of x, as both_ways returns it."""
        trees = Flat(self.children_left_, self.feature_, self.threshold_, self.missing_left_, self.value_)
        roots, n_columns = self.offsets_[:-1], raw.shape[1]
        step = n_columns * max(1, BLOCK // raw.size)  # whole iterations
        for some in (roots[i : i + step] for i in range(0, len(roots), step)):
            leaf = leaves_reached(x, self.n_features_in_, some, trees)
            raw += trees.value[leaf].reshape(-1, n_columns, len(x)).sum(0).T

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class HistGradientBoostingClassifier(ClassifierMixin, Boosting):
    """Log loss: one tree an iteration for two classes, one a class for more; missing values are NaN."""

    takes = frozenset({"table", "images"})
    task = "classification"

    def fit(self, X: np.ndarray, y: np.ndarray) -> "HistGradientBoostingClassifier":
        """X: (N, D), y: (N,) classes. Raises ValueError where there is one class only."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, y = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError(f"y: should hold two classes or more, it holds 1 class: {self.classes_[0]}")
        self.boost(X, y, len(self.classes_))
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (N, K)."""
        raw = self.raw_prediction(X)
        return softmax(raw, axis=1) if raw.shape[1] > 1 else np.hstack([expit(-raw), expit(raw)])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class, (N,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class HistGradientBoostingRegressor(RegressorMixin, Boosting):
    """Squared error; missing values are NaN."""

    takes = frozenset({"table", "images"})
    task = "regression"

    def fit(self, X: np.ndarray, y: np.ndarray) -> "HistGradientBoostingRegressor":
        """X: (N, D), y: (N,)."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_all_finite="allow-nan")
        self.boost(X, y.astype(np.float64), 0)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the prediction, (N,)."""
        return self.raw_prediction(X)[:, 0]
