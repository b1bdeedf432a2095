"""The basics against scikit-learn and two from-scratch libraries, same data, one thread each: python -m bench.basics.

    python -m bench.basics [--size small] [--size medium] [--size large] [--turns N] [--peers] [NAME ...]

Every measurement is a process of its own, so that its peak of memory is its own; the two take turns, and medians are
compared. Sizes: small 1,000 rows, medium 10^5, large as many as 4 GiB hold beside what scikit-learn itself takes, both
less where scikit-learn's own fit takes minutes. `fit` and `predict` are CPU-seconds of ours over theirs (lower is
better, below 1 we are faster), `memory` the peaks of the processes above that of the data, each taken for a mebibyte
at least, `difference` that of the objective, relative, above 0 where ours is better. With --peers: mlxtend and
numpy-ml (`make peers` installs them), small and medium.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.child import HAS_PEERS, measured, peak

PATIENCE = 60  # CPU-seconds that a from-scratch library is given
TURNS = {"small": 5, "medium": 3, "large": 1}
SECONDS = 1.0  # a quick fit is repeated for so long, and the median taken
Objective = Callable[[Any, np.ndarray, np.ndarray], float]


def squares(alpha: float = 0.0, l1: float = 0.0, l2: float = 0.0) -> Objective:
    """Minus the penalised squares: of least squares and ridge (alpha), of lasso and elastic net (l1, l2)."""

    def value(model: Any, X: np.ndarray, y: np.ndarray) -> float:
        loss = ((y - model.predict(X)) ** 2).sum()
        if l1 or l2:
            return -(loss / (2 * len(y)) + l1 * np.abs(model.coef_).sum() + l2 / 2 * (model.coef_**2).sum())
        return -(loss + alpha * (model.coef_**2).sum())

    return value


def likelihood(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    """Minus the penalised log loss of logistic regression, C = 1."""
    loss = -np.log(model.predict_proba(X)[np.arange(len(y)), y]).sum()
    return -(loss + (model.coef_**2).sum() / 2)


def dual(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    """The dual objective of a support-vector machine of two classes with the kernel exp(-|x - x'|^2 / D)."""
    from sklearn.metrics.pairwise import rbf_kernel

    alpha, support = np.ravel(model.dual_coef_), model.support_vectors_
    value = np.abs(alpha).sum()
    for i in range(0, len(alpha), 2000):  # a block of the kernel at a time
        value -= alpha[i : i + 2000] @ rbf_kernel(support[i : i + 2000], support, gamma=1 / X.shape[1]) @ alpha / 2
    return float(value)


def accuracy(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(X) == y).mean())


def r2(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    return float(1 - ((y - model.predict(X)) ** 2).mean() / y.var())


@dataclass(frozen=True)
class Case:
    """An algorithm, what both libraries build it with, its data, its objective (higher is better), rows at each size."""

    module: str  # of scikit-learn
    keywords: dict[str, Any]
    data: str  # regression, classification, counts or blobs
    objective: Objective
    rows: tuple[int, int, int] = (1000, 100_000, 4_000_000)
    features: int = 50
    predict: str = "predict"
    peers: tuple[str, ...] = ()


CASES = {
    "LinearRegression": Case("linear_model", {}, "regression", squares(), peers=("mlxtend", "numpy_ml")),
    "Ridge": Case("linear_model", {"alpha": 10.0}, "regression", squares(10.0), peers=("numpy_ml",)),
    "Lasso": Case("linear_model", {"alpha": 0.1}, "regression", squares(l1=0.1)),
    "ElasticNet": Case("linear_model", {"alpha": 0.1, "l1_ratio": 0.5}, "regression", squares(l1=0.05, l2=0.05)),
    "LogisticRegression": Case(
        "linear_model", {"tol": 1e-6}, "classification", likelihood, (1000, 100_000, 2_000_000), peers=("mlxtend", "numpy_ml")
    ),
    "KMeans": Case(
        "cluster", {"n_clusters": 10, "n_init": 1, "tol": 0.0, "max_iter": 50}, "blobs",
        lambda model, X, y: -model.inertia_, (1000, 100_000, 3_000_000), peers=("mlxtend",),
    ),
    "GaussianMixture": Case(
        "mixture", {"n_components": 5, "max_iter": 20, "tol": 1e-12}, "blobs",
        lambda model, X, y: float(model.score_samples(X).mean()), (1000, 100_000, 1_000_000), 20, peers=("numpy_ml",),
    ),
    "PCA": Case(
        "decomposition", {"n_components": 10}, "blobs", lambda model, X, y: float(model.explained_variance_.sum()),
        predict="transform", peers=("mlxtend",),
    ),
    "KNeighborsClassifier": Case(
        "neighbors", {"n_neighbors": 5}, "classification", accuracy, (1000, 20_000, 100_000), 20, peers=("numpy_ml",)
    ),
    "KNeighborsRegressor": Case("neighbors", {"n_neighbors": 5}, "regression", r2, (1000, 20_000, 100_000), 20),
    "GaussianNB": Case("naive_bayes", {}, "classification", accuracy),
    "MultinomialNB": Case("naive_bayes", {}, "counts", accuracy),
    "SVC": Case("svm", {"gamma": 1 / 20}, "classification", dual, (1000, 10_000, 40_000), 20),
    "DecisionTreeClassifier": Case(
        "tree", {"random_state": 0}, "classification", accuracy, (1000, 100_000, 1_000_000), 20, peers=("numpy_ml",)
    ),
    "DecisionTreeRegressor": Case("tree", {"random_state": 0}, "regression", r2, (1000, 100_000, 1_000_000), 20),
    "RandomForestClassifier": Case(
        "ensemble", {"n_estimators": 20, "random_state": 0}, "classification", accuracy, (1000, 100_000, 300_000), 20,
        peers=("numpy_ml",),
    ),
    "RandomForestRegressor": Case(
        "ensemble", {"n_estimators": 10, "random_state": 0, "max_features": 0.5}, "regression", r2, (1000, 50_000, 100_000), 20
    ),
    "HistGradientBoostingClassifier": Case(
        "ensemble", {"early_stopping": False, "random_state": 0}, "classification", accuracy, (1000, 100_000, 2_000_000), 20,
        peers=("numpy_ml",),
    ),
    "HistGradientBoostingRegressor": Case(
        "ensemble", {"early_stopping": False, "random_state": 0}, "regression", r2, (1000, 100_000, 2_000_000), 20
    ),
}  # fmt: skip
SIZES = ("small", "medium", "large")


def make(kind: str, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return X (n, d) float64 and y (n,): a linear function, two or ten overlapping classes, counts of words."""
    rng = np.random.default_rng(0)
    if kind == "blobs":
        y = rng.integers(10, size=n)
        X = rng.normal(size=(n, d))
        X += rng.normal(scale=2, size=(10, d))[y]
        return X, y
    if kind == "counts":
        y = rng.integers(2, size=n)
        rates = rng.gamma(1.0, size=(2, d))
        X = rng.poisson(rates[y]).astype(np.float64)
        return X, y
    X = rng.normal(size=(n, d))
    signal = X @ (rng.normal(size=d) * (rng.random(d) < 0.5)) + np.sin(3 * X[:, 0]) * X[:, 1]
    if kind == "regression":
        return X, signal + rng.normal(size=n)
    return X, (signal + rng.normal(size=n) > 0).astype(np.int64)


def build(name: str, library: str) -> Any:
    """Return the algorithm, not fitted; those of other libraries behind `fit` and `predict`."""
    case = CASES[name]
    if library == "genai":
        import genai.basics

        return getattr(genai.basics, name)(**case.keywords)
    if library == "sklearn":
        import importlib

        numbers = dict(case.keywords)
        if name == "KMeans":
            numbers |= {"algorithm": "lloyd"}
        return getattr(importlib.import_module(f"sklearn.{case.module}"), name)(**numbers)
    return peer(name, library)


def peer(name: str, library: str) -> Any:
    """Return a from-scratch library's algorithm with the numbers nearest to ours."""
    if library == "mlxtend":
        from mlxtend import classifier, cluster, feature_extraction, regressor

        return {
            "LinearRegression": lambda: regressor.LinearRegression(method="qr"),
            "LogisticRegression": lambda: classifier.LogisticRegression(eta=1e-5, epochs=1000, l2_lambda=1.0),
            "KMeans": lambda: cluster.Kmeans(k=10, max_iter=50, random_seed=0),
            "PCA": lambda: feature_extraction.PrincipalComponentAnalysis(n_components=10),
        }[name]()
    import collections
    import collections.abc

    # numpy-ml 0.1.2 was written for Python 3.7 and NumPy 1
    collections.Hashable = collections.abc.Hashable  # type: ignore[attr-defined]
    for alias, kind in {"float": float, "int": int, "bool": bool}.items():
        if not hasattr(np, alias):
            setattr(np, alias, kind)
    from numpy_ml import gmm, linear_models, nonparametric, trees

    return {
        "LinearRegression": lambda: linear_models.LinearRegression(),
        "Ridge": lambda: linear_models.RidgeRegression(alpha=10.0),
        "LogisticRegression": lambda: linear_models.LogisticRegression(gamma=1.0),
        "KNeighborsClassifier": lambda: nonparametric.KNN(k=5),
        "GaussianMixture": lambda: gmm.GMM(C=5, seed=0),
        "DecisionTreeClassifier": lambda: trees.DecisionTree(criterion="gini", seed=0),
        "RandomForestClassifier": lambda: trees.RandomForest(20, None, 4, criterion="gini"),
        "HistGradientBoostingClassifier": lambda: trees.GradientBoostedDecisionTree(100, 5, learning_rate=0.1),
    }[name]()


def same_start(name: str, X: np.ndarray) -> dict[str, Any]:
    """Return the keywords that let both libraries begin at the same point, where the end depends on it."""
    if name == "KMeans":
        return {"init": X[:10]}
    if name == "GaussianMixture":
        return {
            "means_init": X[:5],
            "weights_init": np.full(5, 0.2),
            "precisions_init": np.stack([np.eye(X.shape[1])] * 5),
        }
    return {}


def repeated(work: Callable[[], Any], large: bool) -> float:
    """Return the median CPU-seconds of `work`, done once where it is long."""
    seconds: list[float] = []
    while not seconds or (not large and sum(seconds) < SECONDS and len(seconds) < 200):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def measure(name: str, library: str, size: str) -> dict[str, Any]:
    """Fit and predict in this process; return CPU-seconds, the peak of memory above the data, the objective."""
    warnings.simplefilter("ignore")  # of convergence: the objective tells
    case = CASES[name]
    n = case.rows[SIZES.index(size)]
    X, y = make(case.data, n, case.features)
    model = build(name, library)
    own = library in ("genai", "sklearn")
    given = (X,) if case.data == "blobs" else (X, y)  # a second argument of theirs would be another thing
    build(name, library).fit(*(part[:100] for part in given))  # imports, and what is made at the first call
    if own:
        model.set_params(**same_start(name, X))
    data = peak()
    fit = repeated(lambda: model.fit(*given), size == "large")
    queries = X[: 100_000 if name.startswith("KNeighbors") else len(X)][:: 10 if name == "SVC" else 1]
    predict = repeated(lambda: getattr(model, case.predict)(queries), size == "large") if own else float("nan")
    found = {"fit": fit, "predict": predict, "memory": max(peak() - data, 1.0), "rows": n}
    if own:  # on 200,000 rows at most, which tells the objective well enough
        part = slice(None) if name in ("KMeans", "SVC") else slice(0, 200_000 if "Neighbors" not in name else 5000)
        found["objective"] = case.objective(model, X[part], y[part])
    return found


def child(name: str, library: str, size: str) -> dict[str, Any] | str:
    """Measure in a process of its own; return what it found, or why it did not."""
    patience = PATIENCE if library not in ("genai", "sklearn") else None
    return measured("bench.basics", "--child", library, "--size", size, name, patience=patience)


def compare(name: str, size: str, turns: int) -> None:
    """Print one line: ours over scikit-learn's."""
    runs: dict[str, list[Any]] = {"genai": [], "sklearn": []}
    for turn in range(turns):
        for library in ("genai", "sklearn") if turn % 2 else ("sklearn", "genai"):
            runs[library].append(child(name, library, size))
            if isinstance(runs[library][-1], str):
                print(f"{name:32}{size:8}{library}: {runs[library][-1]}", flush=True)
                return
    ours, theirs = runs["genai"], runs["sklearn"]
    ratios = {
        key: statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))
        for key in ("fit", "predict", "memory")
    }
    a, b = ours[0]["objective"], theirs[0]["objective"]
    seconds = statistics.median(run["fit"] for run in theirs)
    print(
        f"{name:32}{size:8}{ours[0]['rows']:>9,}{seconds:10.4f}{ratios['fit']:8.2f}{ratios['predict']:9.2f}"
        f"{ratios['memory']:8.2f}{(a - b) / max(abs(b), 1e-12):12.1e}",
        flush=True,
    )


def compare_peers(name: str, size: str) -> None:
    """Print a line for each from-scratch library: its time over ours."""
    ours = child(name, "genai", size) if CASES[name].peers else None
    for library in CASES[name].peers:
        assert isinstance(ours, dict), ours
        found = child(name, library, size)
        factor = found if isinstance(found, str) else f"{found['fit'] / ours['fit']:.2g} times our time"
        if isinstance(found, str) and found.startswith("more"):
            factor = f"{found}: over {PATIENCE / ours['fit']:.0f} times our time"
        print(f"{name:32}{size:8}{library:10}{factor}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*CASES, []], metavar="NAME")
    parser.add_argument("--size", action="append", choices=SIZES)
    parser.add_argument("--turns", type=int, help="of the two libraries; else 5, 3 and 1 at the three sizes")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.names[0], arguments.child, arguments.size[0])))
        return
    if arguments.peers and not HAS_PEERS:
        raise SystemExit("mlxtend and numpy-ml are not there; make peers installs them")
    if not arguments.peers:
        print(f"{'':32}{'size':8}{'rows':>9}{'theirs, s':>10}{'fit':>8}{'predict':>9}{'memory':>8}{'difference':>12}")
    for name in arguments.names or CASES:
        for size in arguments.size or (SIZES[:2] if arguments.peers else SIZES):
            if arguments.peers:
                compare_peers(name, size)
            else:
                compare(name, size, arguments.turns or TURNS[size])


if __name__ == "__main__":
    main()
