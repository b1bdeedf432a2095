"""Machine learning basics, one algorithm a file; `from genai.basics import KMeans` imports that algorithm's file alone."""

import importlib
from typing import Any

_FILES = {
    "baselines": ["MajorityClass", "Mean"],
    "gaussian_mixture": ["GaussianMixture"],
    "k_means": ["KMeans"],
    "kneser_ney": ["KneserNey"],
    "linear_regression": ["ElasticNet", "Lasso", "LinearRegression", "Ridge"],
    "logistic_regression": ["LogisticRegression"],
    "naive_bayes": ["GaussianNB", "MultinomialNB"],
    "neighbors": ["KNeighborsClassifier", "KNeighborsRegressor"],
    "pca": ["PCA"],
    "svm": ["SVC"],
    "trees.decision_tree": ["DecisionTreeClassifier", "DecisionTreeRegressor"],
    "trees.gradient_boosting": ["HistGradientBoostingClassifier", "HistGradientBoostingRegressor"],
    "trees.random_forest": ["RandomForestClassifier", "RandomForestRegressor"],
}
__all__ = sorted(name for names in _FILES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"genai.basics.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
