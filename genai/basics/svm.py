"""Support vector classification with a linear or an RBF kernel: the dual by SMO within working sets, one against one.

Platt, "Fast training of support vector machines using sequential minimal optimization", 1998; Joachims, "Making
large-scale SVM learning practical", 1998; Fan, Chen and Lin, "Working set selection using second order information for
training SVM", 2005, here FCL.
"""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import check_keywords

WORKING_SET = 512  # variables optimised at a time, or twice those between their bounds, as cache_size allows
STILL = 20  # steps without a variable reaching or leaving a bound, after which Newton's method finishes the face
INNER = 0.1  # share of the gap at which a working set is left for the next
CHUNK = 2**20  # values of the kernel at a time, 8 MiB
MIB = 2**20


def squared_distances(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return |a_m - b_n|^2, (M, N), about the mean of b, where the products cancel least."""
    a, b = a - b.mean(0), b - b.mean(0)
    left = np.column_stack([-2 * a, (a**2).sum(1), np.ones(len(a))])
    right = np.column_stack([b, np.ones(len(b)), (b**2).sum(1)])
    products = np.matmul(left, right.T, out=out)
    return np.maximum(products, 0, out=products)


def rbf(a: np.ndarray, b: np.ndarray, gamma: float, out: np.ndarray | None = None) -> np.ndarray:
    """Return exp(-gamma |a_m - b_n|^2), (M, N)."""
    exponents = squared_distances(a, b, out)
    exponents *= -gamma
    return np.exp(exponents, out=exponents)


def expand(x: np.ndarray, vectors: np.ndarray, weights: np.ndarray, gamma: float) -> np.ndarray:
    """Return sum_s w_s exp(-gamma |x_n - v_s|^2), (N, ...), for weights (S, ...), never with all of the kernel at once."""
    size = max(1, CHUNK // max(1, len(vectors)))
    return np.concatenate([rbf(x[n : n + size], vectors, gamma) @ weights for n in range(0, len(x), size)])


class Linear:
    """K = X X^T, never written out: a change of the dual variables is a change of the weights."""

    def __init__(self, x: np.ndarray, room: np.ndarray):
        self.x, self.room = x, room

    def distances(self, chosen: np.ndarray) -> np.ndarray:
        """Return |x_i - x_j|^2 among the chosen, (Q, Q)."""
        size = len(chosen)
        return squared_distances(self.x[chosen], self.x[chosen], self.room[: size**2].reshape(size, size))

    def product(self, chosen: np.ndarray, change: np.ndarray, _: np.ndarray) -> np.ndarray:
        """Return K[:, chosen] change, (N,)."""
        return self.x @ (change @ self.x[chosen])


class RBF:
    """K_ij = exp(-gamma |x_i - x_j|^2)."""

    def __init__(self, x: np.ndarray, room: np.ndarray, gamma: float):
        self.x, self.room, self.gamma = x, room, gamma

    def distances(self, chosen: np.ndarray) -> np.ndarray:
        """Return the squared distances among the chosen in the space of the kernel, K_ii + K_jj - 2 K_ij, (Q, Q)."""
        size = len(chosen)
        s = rbf(self.x[chosen], self.x[chosen], self.gamma, self.room[: size**2].reshape(size, size))
        s *= -2
        s += 2
        return s

    def product(self, chosen: np.ndarray, change: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Return K[:, chosen] change, (N,), for changes that sum to 0; s: the distances among the chosen."""
        if len(chosen) == len(self.x):
            return change @ s / -2
        moved = change != 0
        return expand(self.x, self.x[chosen[moved]], change[moved], self.gamma)


def newton(s: np.ndarray, g: np.ndarray, beta: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> int:
    """Maximise over the variables strictly between their bounds, the others held; return the steps taken.

    A step that would leave the box stops at its wall, where one variable fewer is free.
    """
    free = np.flatnonzero((lower < beta) & (beta < upper))
    if len(free) < 2:
        return 0
    s_free, g_free, x, lo, hi = s[np.ix_(free, free)], g[free], beta[free], lower[free], upper[free]
    inside = np.arange(len(free))
    steps = 0
    while len(inside) > 1 and steps < max(1, 2000 // len(free)):
        # the first one pays for the others, as the sum is fixed: their Gram matrix is that of the differences from it
        first, rest = inside[0], inside[1:]
        gram = (s_free[first, rest][:, None] + s_free[first, rest] - s_free[np.ix_(rest, rest)]) / 2
        gram[np.diag_indices(len(rest))] *= 1 + 1e-9
        try:
            step = cho_solve(cho_factor(gram, check_finite=False), g_free[rest] - g_free[first], check_finite=False)
        except LinAlgError:
            break
        step = np.concatenate([[-step.sum()], step])
        wall = np.where(step > 0, hi[inside], lo[inside])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.nan_to_num((wall - x[inside]) / step, nan=np.inf)
        nearest = share.argmin()
        step *= min(1, share[nearest])
        x[inside] += step
        g_free += step @ s_free[inside] / 2
        steps += 1
        if share[nearest] > 1:
            break
        x[inside[nearest]] = wall[nearest]
        inside = np.flatnonzero((lo < x) & (x < hi))
    x = np.clip(x, lo, hi)
    g += (x - beta[free]) @ s[free] / 2
    beta[free] = x
    return steps


def smo(
    s: np.ndarray, g: np.ndarray, beta: np.ndarray, lower: np.ndarray, upper: np.ndarray, tol: float, max_iter: float
) -> int:
    """Maximise a working set's part of the dual, changing beta and, up to a constant, g; return the steps taken.

    s: (Q, Q), squared distances in the space of the kernel: as the sum of beta is fixed, nothing else is needed. A step
    moves an amount from j to i, which changes the gradient by amount (s_i - s_j) / 2, and has the curvature s_ij.
    """
    np.maximum(s, 1e-12, out=s)  # FCL, section 2.2: equal examples
    violation, gain, change = np.empty_like(g), np.empty_like(g), np.empty_like(g)
    lo: list[float] = lower.tolist()
    hi: list[float] = upper.tolist()
    steps, converged = 0, False
    while not converged and steps < max_iter:
        up, down = np.where(beta < upper, g, -np.inf), np.where(beta > lower, g, np.inf)
        b: list[float] = beta.tolist()
        still, wait = 0, max(STILL, int(np.count_nonzero((lower < beta) & (beta < upper))))
        while still < wait and steps < max_iter:
            i = int(up.argmax())
            g_i, s_i = float(up[i]), s[i]
            np.maximum(np.subtract(g_i, down, out=violation), 0, out=violation)
            np.divide(np.multiply(violation, violation, out=gain), s_i, out=gain)
            j = int(gain.argmax())  # FCL (9): second order
            violation_j, g_j = float(violation[j]), float(down[j])
            if violation_j <= tol and violation.max() <= tol:
                converged = True
                break
            b_i, b_j, room_i, room_j = b[i], b[j], hi[i] - b[i], b[j] - lo[j]
            amount = min(violation_j / float(s_i[j]), room_i, room_j)
            if b_i == lo[i]:
                down[i] = g_i
            if b_j == hi[j]:
                up[j] = g_j
            np.multiply(np.subtract(s_i, s[j], out=change), amount / 2, out=change)
            up += change
            down += change
            b[i], b[j] = b_i + amount, b_j - amount
            still = still + 1 if lo[i] < b_i and b_j < hi[j] else 0
            if amount == room_i:
                b[i], up[i], still = hi[i], -np.inf, 0
            if amount == room_j:
                b[j], down[j], still = lo[j], np.inf, 0
            steps += 1
        beta[:] = b
        g[:] = np.where(np.isfinite(up), up, down)
        if not converged:
            steps += newton(s, g, beta, lower, upper)
    return steps


def working_set(up: np.ndarray, down: np.ndarray, free: np.ndarray, most: int) -> np.ndarray:
    """Return the variables to optimise next, (Q,) sorted: the worst violators, then those between their bounds."""
    size = min(most, max(WORKING_SET, 2 * len(free)))
    if len(up) <= size:
        return np.arange(len(up))
    worst = np.concatenate(
        [np.argpartition(-up, size // 4)[: size // 4], np.argpartition(down, size // 4)[: size // 4]]
    )
    worst = np.unique(worst[(up[worst] > down.min()) | (down[worst] < up.max())])
    return np.sort(np.concatenate([worst, np.setdiff1d(free, worst)[: size - len(worst)]]))


def solve_dual(
    kernel: Linear | RBF, y: np.ndarray, C: float, tol: float, max_iter: float
) -> tuple[np.ndarray, float, int]:
    """Maximise y.beta - beta.K beta / 2 where the betas sum to 0 and lie between 0 and C y, y: (N,) of -1 and 1.

    Return beta = y alpha, (N,), the intercept and the steps taken; the gradients g of any two betas that may trade
    agree within tol.
    """
    lower, upper = np.minimum(0, C * y), np.maximum(0, C * y)
    beta, g = np.zeros(len(y)), y.astype(np.float64)
    steps = 0
    while True:
        up, down = np.where(beta < upper, g, -np.inf), np.where(beta > lower, g, np.inf)
        gap = up.max() - down.min()
        if gap <= tol or steps >= max_iter:
            break
        most = math.isqrt(len(kernel.room))
        chosen = working_set(up, down, np.flatnonzero((lower < beta) & (beta < upper)), most)
        part, before = beta[chosen], beta[chosen]
        limits = lower[chosen], upper[chosen]
        inner = max(tol, INNER * gap) if len(chosen) < len(y) else tol
        s = kernel.distances(chosen)
        steps += smo(s, g[chosen], part, *limits, inner, max_iter - steps)
        beta[chosen] = part
        g -= kernel.product(chosen, part - before, s)
    free = (lower < beta) & (beta < upper)
    return beta, float(g[free].mean() if free.any() else (up.max() + down.min()) / 2), steps


class SVC(ClassifierMixin, BaseEstimator):
    """The widest margin between each two classes, C the price of a unit of trespass; a majority of the pairs decides.

    f(x) = sum_s beta_s K(x_s, x) + b, with beta_s = y_s alpha_s other than 0 for the support vectors x_s alone; K is
    x.x' or exp(-gamma |x - x'|^2). gamma "scale" is 1 / (D var(X)), "auto" 1 / D. `fit` ends where no two variables
    violate their optimality by more than tol, or for each pair of classes after max_iter steps (-1: no limit); its
    working sets take at most cache_size MiB.
    """

    takes = frozenset({"table", "images"})
    task = "classification"

    def __init__(
        self,
        *,
        C: Annotated[float, Field(gt=0)] = 1.0,
        kernel: Literal["linear", "rbf"] = "rbf",
        gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0)] = "scale",
        tol: Annotated[float, Field(gt=0)] = 1e-3,
        cache_size: Annotated[float, Field(gt=0)] = 200,
        max_iter: Annotated[int, Field(ge=-1)] = -1,
        decision_function_shape: Literal["ovr", "ovo"] = "ovr",
    ):
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.tol = tol
        self.cache_size = cache_size
        self.max_iter = max_iter
        self.decision_function_shape = decision_function_shape

    def fit(self, X: np.ndarray, y: np.ndarray) -> "SVC":
        """X: (N, D), y: (N,) classes. Raises ValueError where there is only one; warns where max_iter ends it."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if (classes := len(self.classes_)) < 2:
            raise ValueError(f"y: should have at least 2 classes, not 1 class ({self.classes_[0]})")
        variance = X.var()
        named = {"scale": 1 / (X.shape[1] * variance) if variance > 0 else 1.0, "auto": 1 / X.shape[1]}
        self.gamma_ = named[self.gamma] if isinstance(self.gamma, str) else float(self.gamma)
        members = [np.flatnonzero(index == k) for k in range(classes)]
        beta = np.zeros((classes - 1, len(X)))  # row of an example: the classes other than its own, in order
        most = min(len(X), max(8, math.isqrt(int(self.cache_size * MIB / 8))))
        room = np.empty(most**2)  # one for all pairs: fresh memory costs as much as the products that fill it
        solutions = []
        for i, j in itertools.combinations(range(classes), 2):
            pair = np.concatenate([members[i], members[j]])
            sign = np.where(index[pair] == i, 1.0, -1.0)
            solution, *rest = self._solve(X[pair], sign, room)
            beta[j - 1, members[i]], beta[i, members[j]] = solution[sign > 0], solution[sign < 0]
            solutions.append(rest)
        intercepts, steps = zip(*solutions, strict=True)
        self.support_ = np.concatenate([m[beta[:, m].any(0)] for m in members])
        self.support_vectors_, self.dual_coef_ = X[self.support_], beta[:, self.support_]
        self.n_support_ = np.bincount(index[self.support_], minlength=classes)
        self.intercept_, self.n_iter_ = np.array(intercepts), np.array(steps)
        if classes == 2:  # scikit-learn's sign: positive for the second class
            self.dual_coef_, self.intercept_ = -self.dual_coef_, -self.intercept_
        return self

    def _solve(self, x: np.ndarray, sign: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, float, int]:
        kernel = Linear(x, room) if self.kernel == "linear" else RBF(x, room, self.gamma_)
        limit = np.inf if self.max_iter < 0 else self.max_iter
        solution = solve_dual(kernel, sign, self.C, self.tol, limit)
        if solution[2] >= limit:
            message = f"max_iter: {self.max_iter} steps did not reach tol; scale the features, or raise it"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        return solution

    def _pairs(self, weigh: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return for each pair of classes what weigh gives the support vectors of the one and of the other, (M, P)."""
        ends = np.concatenate([[0], np.cumsum(self.n_support_)])
        weighed = [
            weigh(slice(*ends[k : k + 2]), self.dual_coef_[:, ends[k] : ends[k + 1]].T) for k in range(len(ends) - 1)
        ]
        i, j = np.triu_indices(len(weighed), 1)
        return np.stack([weighed[a][:, b - 1] + weighed[b][:, a] for a, b in zip(i, j, strict=True)], axis=1)

    @property
    def coef_(self) -> np.ndarray:
        """The weights w of f(x) = w.x + b, (P, D), a row for each pair of classes, one where there are two."""
        if self.kernel != "linear":
            raise AttributeError(f"kernel: {self.kernel!r} should be 'linear' for coef_, the weights of the features")
        return self._pairs(lambda own, dual: self.support_vectors_[own].T @ dual).T

    def _votes(self, X: np.ndarray) -> np.ndarray:
        """Return f(x) of each pair of classes i < j, (N, P), positive for i."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if self.kernel == "linear":
            values = X @ self.coef_.T
        else:
            values = self._pairs(lambda own, dual: expand(X, self.support_vectors_[own], dual, self.gamma_))
        values += self.intercept_
        return -values if len(self.classes_) == 2 else values

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return (N,), positive for the second of two classes; else (N, K), or for "ovo" f of each pair, (N, P).

        In "ovr" a class has its number of votes, and less than half a vote more or less by how clear they were.
        """
        pairs = self._votes(X)
        if len(self.classes_) == 2:
            return -pairs[:, 0]
        if self.decision_function_shape == "ovo":
            return pairs
        votes, clear = self._tally(pairs)
        return votes + clear

    def _tally(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the votes for each class, and how clear they were within (-1/3, 1/3), (N, K) each."""
        i, j = np.triu_indices(len(self.classes_), 1)
        sides = (i[:, None] == np.arange(len(self.classes_))), (j[:, None] == np.arange(len(self.classes_)))
        votes = (pairs > 0) @ sides[0].astype(float) + (pairs <= 0) @ sides[1].astype(float)
        clear = pairs @ (sides[0].astype(float) - sides[1])
        return votes, clear / (3 * (abs(clear) + 1))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class with most votes, the first of equals, (N,)."""
        votes, _ = self._tally(self._votes(X))
        return self.classes_[votes.argmax(1)]
