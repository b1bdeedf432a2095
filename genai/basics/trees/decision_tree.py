"""Decision trees (CART): questions "is feature d at most t?", each the one that lowers the impurity most; pruning.

Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984; Hastie, Tibshirani and Friedman,
"The Elements of Statistical Learning", 2nd edition (ESL), section 9.2.
"""

import heapq
import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy.special import xlogy
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils import Bunch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords

MaxFeatures = Literal["sqrt"] | Count | Annotated[float, Field(gt=0, le=1)] | None
AtLeastTwo = Annotated[int, Field(ge=2)]
BLOCK = 2**16  # examples times features that are looked at in one go: what they need stays in the cache


# --- The mathematics of a split ---------------------------------------------------------------------------------------
#
# A node with n examples has the impurity Q; a split into left and right lowers the sum n Q over the leaves by
# n Q - n_L Q_L - n_R Q_R. With S_k the sum of the targets (for classes: the number of examples of class k),
#
#   squared error   n Q = sum_i t_i^2 - S^2 / n             Gini     n Q = n - sum_k S_k^2 / n
#   entropy         n Q = n log n - sum_k S_k log S_k
#
# so the best split is that of the greatest purity(left) + purity(right): sums over each side suffice. Along the values
# of a feature in order, all left sums are one cumulative sum, and the right sums are the total less the left ones.


def term(sums: np.ndarray, criterion: str) -> np.ndarray:
    """Return what a class or a sum adds to the purity: S_k^2, for the entropy S_k log S_k."""
    return xlogy(sums, sums) if criterion == "entropy" else sums * sums


def purity(terms: np.ndarray, n: np.ndarray, criterion: str) -> np.ndarray:
    """Return -n Q up to what no split changes, from the sum of the terms over k."""
    return terms - xlogy(n, n) if criterion == "entropy" else terms / n


def running_sums(v: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cumulative sum of v within each segment, the segments' first places being `starts`, and the totals."""
    totals = np.add.reduceat(v, starts)
    v[starts[1:]] -= totals[:-1]  # so that one cumulative sum starts anew at each segment
    return v.cumsum(), totals


def best_cuts(
    rank: np.ndarray, starts: np.ndarray, weight: np.ndarray, target: np.ndarray, rules: "Rules"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the best split of each segment: the examples of one node in the order of one feature.

    rank: (M,) ints, the place of the feature's value among its distinct values, ascending within a segment; weight:
    (M,) ints, how often an example counts; target: (M,) numbers, or ints, the classes. Returns for each segment the
    greatest purity (-inf where no split is possible), and the ranks between which it cuts.
    """
    segment = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rank)))
    n_left, n = running_sums(weight.copy(), starts)
    cuts = np.flatnonzero(rank[:-1] != rank[1:])  # equal values cannot be told apart
    at, n_left = segment[cuts], n_left[cuts]
    n_right = n[at] - n_left
    allowed = np.minimum(n_left, n_right) >= rules.min_samples_leaf
    cuts, at, n_left, n_right = cuts[allowed], at[allowed], n_left[allowed], n_right[allowed]
    terms_left = terms_right = np.zeros(len(cuts))
    for k in range(max(1, rules.n_classes)):
        sums, total = running_sums(weight * (target == k) if rules.n_classes else weight * target, starts)
        left = sums[cuts]
        terms_left = terms_left + term(left, rules.criterion)
        terms_right = terms_right + term(total[at] - left, rules.criterion)
    score = purity(terms_left, n_left, rules.criterion) + purity(terms_right, n_right, rules.criterion)
    best, first = segment_maxima(score, at, len(starts))
    low, high = (np.full(len(starts), -1) for _ in range(2))
    found = first >= 0
    low[found], high[found] = rank[cuts[first[found]]], rank[cuts[first[found]] + 1]
    return best, low, high


def segment_maxima(score: np.ndarray, at: np.ndarray, n_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the greatest score of each segment and its first place; -inf and -1 for a segment without scores.

    at: the segment of each score, ascending.
    """
    counts = np.bincount(at, minlength=n_segments)
    best, first = np.full(n_segments, -np.inf), np.full(n_segments, -1)
    if len(score):
        best[counts > 0] = np.maximum.reduceat(score, (counts.cumsum() - counts)[counts > 0])
        hits = np.flatnonzero(score == best[at])[::-1]
        first[at[hits]] = hits  # of equal ones, the last assignment stays: the first place
    return best, first


# --- All splits of a level at once ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """What makes a node a leaf, and how the splits of the others are chosen; n_classes is 0 in regression."""

    n_classes: int
    criterion: str
    max_depth: int | None
    min_samples_split: int
    min_samples_leaf: int
    max_features: int


class Ranked(NamedTuple):
    """A table with each value replaced by its rank among the distinct values of its feature."""

    rank: np.ndarray  # (N, D)
    values: np.ndarray  # the distinct values, ascending, feature after feature
    offset: np.ndarray  # (D,) where the values of each feature begin


class Level(NamedTuple):
    """The examples of the nodes of one depth, node after node: row of the table, weight, target; the nodes' sizes."""

    row: np.ndarray
    weight: np.ndarray
    target: np.ndarray
    sizes: np.ndarray

    def take(self, examples: Any, sizes: np.ndarray) -> "Level":
        """Return the examples of a mask or a slice."""
        return Level(self.row[examples], self.weight[examples], self.target[examples], sizes)


class Nodes(NamedTuple):
    """Trees as arrays, one entry a node, a child after its parent, a right child right after the left one.

    A leaf is its own left child and its threshold is inf, so that descending further stays there.
    """

    left: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray  # the share of each class (M, K), or the mean (M,)
    impurity: np.ndarray
    n: np.ndarray  # examples, each as often as it was drawn
    tree: np.ndarray  # the number of the tree


def ranked(x: np.ndarray) -> Ranked:
    """x: (N, D)."""
    rank, values = np.empty(x.shape, np.int32), []
    for d in range(x.shape[1]):
        distinct, rank[:, d] = np.unique(x[:, d], return_inverse=True)
        values.append(distinct)
    sizes = np.array([len(v) for v in values])
    return Ranked(rank, np.concatenate(values), sizes.cumsum() - sizes)


def radix_argsort(key: np.ndarray) -> np.ndarray:
    """Return the stable order of ints below 2^63, digit by digit: NumPy sorts 16 bits by radix, in linear time."""
    order = np.argsort(key.astype(np.uint16), kind="stable")
    for shift in range(16, int(key.max()).bit_length(), 16):
        order = order[np.argsort((key >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def grow(table: Ranked, y: np.ndarray, weights: np.ndarray, rules: Rules, rng: np.random.Generator) -> Nodes:
    """Grow one tree for each row of weights (T, N), how often it sees each example, all of them level by level.

    The examples of a level stand node after node, so that each step is a few array operations for all nodes.
    """
    tree, row = np.nonzero(weights)
    weight = weights[tree, row]
    tree_of, ids, total, depth = np.arange(len(weights)), np.arange(len(weights)), len(weights), 0
    sizes = np.bincount(tree, minlength=len(weights))
    scale, levels, numbers = 0.0, [], []
    while len(ids):
        starts = sizes.cumsum() - sizes
        node = np.repeat(np.arange(len(ids)), sizes)
        value, impurity, n, target = summary(y[row], weight, node, starts, rules)
        scale = max(scale, impurity.max())  # of which rounding leaves a little in a pure node
        split = (impurity > np.finfo(float).eps * scale) & (n >= rules.min_samples_split)
        split &= rules.max_depth is None or depth < rules.max_depth
        keep = split[node]
        part = Level(row[keep], weight[keep], target[keep], sizes[split])
        feature, low, high = np.full((3, len(ids)), -1)
        if split.any():
            feature[split], low[split], high[split] = find_splits(table, part, rules, rng)
        split = low >= 0
        at = table.offset[feature[split]]
        left, threshold = ids.copy(), np.full(len(ids), np.inf)
        left[split] = total + 2 * np.arange(split.sum())
        threshold[split] = midpoints(table.values[at + low[split]], table.values[at + high[split]])
        levels.append(Nodes(left, np.maximum(feature, 0), threshold, value, impurity, n, tree_of))
        numbers.append(ids)

        goes_right = table.rank.ravel()[row * table.rank.shape[1] + feature[node]] > low[node]
        sides = [np.flatnonzero(split[node] & ~goes_right), np.flatnonzero(split[node] & goes_right)]
        sizes = np.concatenate([np.bincount(node[side], minlength=len(ids))[split] for side in sides])
        row, weight = (np.concatenate([a[side] for side in sides]) for a in (row, weight))
        ids, tree_of = np.concatenate([left[split], left[split] + 1]), np.tile(tree_of[split], 2)
        total, depth = total + len(ids), depth + 1
    return in_order(Nodes(*map(np.concatenate, zip(*levels, strict=True))), np.concatenate(numbers))


def summary(
    y: np.ndarray, weight: np.ndarray, node: np.ndarray, starts: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each node's value, impurity and weight, and the targets that its split is sought with."""
    n = np.add.reduceat(weight, starts)
    if not rules.n_classes:
        mean = np.add.reduceat(weight * y, starts) / n
        deviation = y - mean[node]  # sums of these round less than sums of y
        return mean, np.add.reduceat(weight * deviation**2, starts) / n, n, deviation
    counts = np.bincount(node * rules.n_classes + y, weights=weight, minlength=len(n) * rules.n_classes)
    p = counts.reshape(len(n), -1) / n[:, None]
    return p, -xlogy(p, p).sum(1) / np.log(2) if rules.criterion == "entropy" else 1 - (p**2).sum(1), n, y


def find_splits(table: Ranked, level: Level, rules: Rules, rng: np.random.Generator) -> np.ndarray:
    """Return the feature of each node's best split and the ranks it cuts between, (3, nodes), -1 where there is none.

    Each node draws max_features features, and as many again while none of them can split it.
    """
    n_features, drawn = table.rank.shape[1], rules.max_features
    features = np.tile(np.arange(n_features), (len(level.sizes), 1))
    if drawn < n_features:  # shuffled within each row, as ints with random upper bits
        features = np.sort(rng.integers(2**32, size=features.shape) * n_features + features) % n_features
    result = np.full((3, len(level.sizes)), -1)
    for first in range(0, n_features, drawn):
        todo = result[0] < 0
        if not todo.any():
            break
        part = level.take(np.repeat(todo, level.sizes), level.sizes[todo])
        result[:, todo] = best_splits(table, part, features[todo, first : first + drawn], rules)
    return result


def best_splits(table: Ranked, level: Level, features: np.ndarray, rules: Rules) -> np.ndarray:
    """Return the best split of each node among its features (nodes, S), as find_splits does, BLOCK after BLOCK."""
    ends = level.sizes.cumsum()
    blocks = np.flatnonzero(np.diff(ends // BLOCK, prepend=-1, append=-1))  # the first node of each, and the end
    found = []
    for a, b in itertools.pairwise(blocks):
        block = level.take(slice(ends[a] - level.sizes[a], ends[b - 1]), level.sizes[a:b])
        step = max(1, BLOCK // len(block.row))
        parts = [
            sort_and_cut(table, block, features[a:b, s : s + step], rules) for s in range(0, features.shape[1], step)
        ]
        score, low, high = (np.concatenate(p) for p in zip(*parts, strict=True))
        pick = score.argmax(0), np.arange(b - a)
        found.append([np.where(low[pick] < 0, -1, features[a:b].T[pick]), low[pick], high[pick]])
    return np.concatenate(found, axis=1)


def sort_and_cut(table: Ranked, level: Level, features: np.ndarray, rules: Rules) -> list[np.ndarray]:
    """Return best_cuts of each node and each of its features (nodes, S), each (S, nodes)."""
    shape = features.T.shape
    sizes = np.tile(level.sizes, shape[0])
    starts = sizes.cumsum() - sizes
    row = np.tile(level.row, shape[0])
    rank = table.rank.ravel()[row * table.rank.shape[1] + np.repeat(features.T.ravel(), sizes)]
    bits = int(table.rank.max()).bit_length()
    key = np.repeat(np.arange(len(sizes)) << bits, sizes) | rank
    order = radix_argsort(key)
    weight, target = (np.tile(v, shape[0])[order] for v in (level.weight, level.target))
    return [v.reshape(shape) for v in best_cuts(rank[order], starts, weight, target, rules)]


def midpoints(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return (low + high) / 2, or low where rounding would reach high: x <= threshold must tell them apart."""
    middle = low / 2 + high / 2
    return np.where(middle < high, middle, low)


def in_order(nodes: Nodes, numbers: np.ndarray) -> Nodes:
    """Put the nodes tree after tree, and number them anew, by their places."""
    order = np.lexsort((numbers, nodes.tree))
    place = np.empty(len(order), int)
    place[numbers[order]] = np.arange(len(order))
    return Nodes(*(a[order] for a in nodes._replace(left=place[nodes.left])))


def descend(
    x: np.ndarray, root: np.ndarray, left: np.ndarray, feature: np.ndarray, threshold: np.ndarray
) -> np.ndarray:
    """Return the leaf that each row of x (N, D) reaches from each root (T,), (T, N)."""
    leaf = np.repeat(root, len(x))
    at = np.tile(np.arange(len(x)) * x.shape[1], len(root))
    moving, node = np.arange(len(leaf)), leaf.copy()
    while len(moving):
        for _ in range(4):  # a leaf leads to itself, so it costs less to look for them now and then
            node = left.take(node) + (x.take(at + feature.take(node)) > threshold.take(node))
        leaf[moving] = node
        go_on = np.flatnonzero(left.take(node) != node)
        moving, node, at = moving[go_on], node[go_on], at[go_on]
    return leaf.reshape(len(root), len(x))


# --- Pruning ----------------------------------------------------------------------------------------------------------


def prune(left: np.ndarray, cost: np.ndarray, until: float) -> tuple[np.ndarray, list[float], list[float]]:
    """Prune the weakest links (ESL 9.16): cut, again and again, below the node whose subtree pays least for its leaves.

    cost: (M,) n Q / N of each node. A subtree with the leaves T below node t pays alpha = (cost_t - sum of cost_T) /
    (|T| - 1) a leaf. Returns which nodes are leaves then, and the path: the alphas, up to `until`, and the tree's costs.
    """
    child, own = left.tolist(), cost.tolist()  # one by one, where Python's numbers are quicker than NumPy's
    inner = [t for t in range(len(child)) if child[t] != t]
    parent = {c: t for t in inner for c in (child[t], child[t] + 1)}
    below, leaves = own.copy(), [1] * len(own)
    for t in reversed(inner):  # children come after their parents
        below[t] = below[child[t]] + below[child[t] + 1]
        leaves[t] = leaves[child[t]] + leaves[child[t] + 1]

    def link(t: int) -> tuple[float, int]:
        return (own[t] - below[t]) / (leaves[t] - 1), t

    heap = [link(t) for t in inner]
    heapq.heapify(heap)
    alphas, costs = [0.0], [below[0]]
    while heap and heap[0][0] <= until:
        alpha, t = heapq.heappop(heap)
        if leaves[t] == 1 or (alpha, t) != link(t):
            continue  # cut off meanwhile, or changed, and then it stands in the heap anew
        cut, more = leaves[t] - 1, own[t] - below[t]
        gone = [t]
        while gone:
            u = gone.pop()
            gone += [child[u], child[u] + 1] if leaves[u] > 1 else []
            leaves[u] = 1
        below[t] = own[t]
        while t in parent:
            t = parent[t]
            below[t] += more
            leaves[t] -= cut
            heapq.heappush(heap, link(t))
        alphas.append(alpha)
        costs.append(below[0])
    return np.array(leaves) == 1, alphas, costs


def without(nodes: Nodes, leaf: np.ndarray) -> Nodes:
    """Return the tree in which the nodes of the mask are leaves, without what was below them."""
    reached, front = np.zeros(len(leaf), bool), np.zeros(1, int)
    while len(front):
        reached[front] = True
        front = nodes.left[front[~leaf[front]]]
        front = np.concatenate([front, front + 1])
    number = reached.cumsum() - 1
    left = np.where(leaf, number, number[nodes.left])
    feature, threshold = np.where(leaf, 0, nodes.feature), np.where(leaf, np.inf, nodes.threshold)
    return Nodes(*(a[reached] for a in nodes._replace(left=left, feature=feature, threshold=threshold)))


# --- The estimators ---------------------------------------------------------------------------------------------------


def share(max_features: Any, n_features: int) -> int:
    """Return how many features a node draws."""
    if max_features == "sqrt":
        return max(1, int(np.sqrt(n_features)))
    if isinstance(max_features, float):
        return max(1, int(max_features * n_features))
    return n_features if max_features is None else min(max_features, n_features)


class Trees(BaseEstimator):
    """What a tree and a forest share: the trees as arrays, and the mean of their values at the leaves reached.

    Learned: children_left_ (a right child is the next node; a leaf its own child), feature_, threshold_, value_,
    impurity_ and n_node_samples_, one entry a node, and offsets_, (T + 1,), between which the nodes of a tree stand.
    """

    criterion: str
    max_depth: int | None
    min_samples_split: int
    min_samples_leaf: int
    max_features: Any
    random_state: int | None

    def examples(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Check the examples and return X, y as `grow` takes it, and the number of classes."""
        raise NotImplementedError

    def rules(self, n_features: int, n_classes: int) -> Rules:
        """Return the keywords as what `grow` takes."""
        return Rules(
            n_classes=n_classes,
            criterion=self.criterion,
            max_depth=self.max_depth,
            min_samples_split=self.min_samples_split,
            min_samples_leaf=self.min_samples_leaf,
            max_features=share(self.max_features, n_features),
        )

    def keep(self, nodes: Nodes) -> None:
        """Set the learned attributes."""
        self.children_left_, self.feature_, self.threshold_ = nodes.left, nodes.feature, nodes.threshold
        self.value_, self.impurity_, self.n_node_samples_ = nodes.value, nodes.impurity, nodes.n
        self.offsets_ = np.searchsorted(nodes.tree, np.arange(nodes.tree[-1] + 2))

    def mean_value(self, X: np.ndarray) -> np.ndarray:
        """Return the mean over the trees of the value at the leaf that each row reaches: (N, K) shares, or (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, order="C")
        mean = np.zeros((len(X), *self.value_.shape[1:]))
        roots = self.offsets_[:-1]
        for rows in (slice(i, i + BLOCK // 4) for i in range(0, len(X), BLOCK // 4)):
            step = max(1, BLOCK // len(X[rows]))
            for some in (roots[i : i + step] for i in range(0, len(roots), step)):
                leaf = descend(X[rows], some, self.children_left_, self.feature_, self.threshold_)
                mean[rows] += self.value_[leaf].sum(0)
        return mean / len(roots)

    @property
    def feature_importances_(self) -> np.ndarray:
        """Return how much of the impurity each feature took away, (D,), summing to 1; the mean over trees (ESL 10.42)."""
        check_is_fitted(self)
        n_trees, n_features = len(self.offsets_) - 1, int(self.n_features_in_)
        split = np.flatnonzero(self.children_left_ != np.arange(len(self.children_left_)))
        cost = self.n_node_samples_ * self.impurity_
        lost = cost[split] - cost[self.children_left_[split]] - cost[self.children_left_[split] + 1]
        tree = np.searchsorted(self.offsets_, split, side="right") - 1
        by_tree = np.bincount(tree * n_features + self.feature_[split], lost, n_trees * n_features)
        by_tree = by_tree.reshape(n_trees, n_features)
        whole = by_tree.sum(1, keepdims=True)
        mean = np.divide(by_tree, whole, out=np.zeros_like(by_tree), where=whole > 0).mean(0)
        return mean / mean.sum() if mean.any() else mean


class Classifier(ClassifierMixin, Trees):
    """Trees whose values are shares of classes."""

    task = "classification"

    def examples(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Check the examples, set classes_, and return X, the class numbers and their count."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, y = np.unique(y, return_inverse=True)
        return X, y, len(self.classes_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the share of each class at the leaf, the mean over the trees, (N, K)."""
        return self.mean_value(X)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class of the greatest share, (N,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class Regressor(RegressorMixin, Trees):
    """Trees whose values are means."""

    task = "regression"

    def examples(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Check the examples and return X, y as floats, and 0 for no classes."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        return X, y.astype(np.float64), 0

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the mean target at the leaf, the mean over the trees, (N,)."""
        return self.mean_value(X)


class DecisionTree(Trees):
    """One tree: how it is grown and pruned, whatever its leaves hold."""

    ccp_alpha: float

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        """X: (N, D), y: (N,)."""
        nodes = self.grow(X, y)
        if self.ccp_alpha > 0:
            leaf, _, _ = prune(nodes.left, nodes.n / nodes.n[0] * nodes.impurity, self.ccp_alpha)
            nodes = without(nodes, leaf)
        self.keep(nodes)
        return self

    def grow(self, X: np.ndarray, y: np.ndarray) -> Nodes:
        """Return the tree before pruning."""
        X, y, n_classes = self.examples(X, y)
        rng = np.random.default_rng(self.random_state)
        return grow(ranked(X), y, np.ones((1, len(X)), int), self.rules(X.shape[1], n_classes), rng)

    def cost_complexity_pruning_path(self, X: np.ndarray, y: np.ndarray) -> Bunch:
        """Return the ccp_alphas at which a leaf more is cut off, and the impurities of the trees left."""
        nodes = clone(self).grow(X, y)
        _, alphas, costs = prune(nodes.left, nodes.n / nodes.n[0] * nodes.impurity, np.inf)
        return Bunch(ccp_alphas=np.array(alphas), impurities=np.array(costs))


class DecisionTreeClassifier(DecisionTree, Classifier):
    """Grows one tree until its leaves are pure, or as the keywords allow, and prunes it by ccp_alpha."""

    takes = frozenset({"table", "images"})

    def __init__(
        self,
        *,
        criterion: Literal["gini", "entropy"] = "gini",
        max_depth: Count | None = None,
        min_samples_split: AtLeastTwo = 2,
        min_samples_leaf: Count = 1,
        max_features: MaxFeatures = None,
        random_state: Seed | None = None,
        ccp_alpha: Annotated[float, Field(ge=0)] = 0.0,
    ):
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.ccp_alpha = ccp_alpha


class DecisionTreeRegressor(DecisionTree, Regressor):
    """Grows one tree by squared error, and prunes it by ccp_alpha; a leaf predicts its mean."""

    takes = frozenset({"table", "images"})

    def __init__(
        self,
        *,
        criterion: Literal["squared_error"] = "squared_error",
        max_depth: Count | None = None,
        min_samples_split: AtLeastTwo = 2,
        min_samples_leaf: Count = 1,
        max_features: MaxFeatures = None,
        random_state: Seed | None = None,
        ccp_alpha: Annotated[float, Field(ge=0)] = 0.0,
    ):
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.ccp_alpha = ccp_alpha
