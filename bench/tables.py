"""The basics beside scikit-learn's on the same folds of seven real tables: python -m bench.tables [TABLE ...].

Five folds, shuffled (stratified for classes), features standardised within the fold; accuracy or R2, mean and standard
deviation over the folds, ours and below it scikit-learn's built with the same keywords; the CPU-seconds are of all folds,
seeds and tables of the row. Nothing is tuned: this tells whether ours are what theirs are, and what each kind of model is
worth on each table. What draws at random does so with three seeds, and a fold's figure is the mean over them. "=": the same
to 1e-6 in every fold; "*": the mean difference is larger than its standard deviation over the folds, as one in eleven is by chance.
California housing and adult come by download or from GENAI_DATA_MIRROR; of adult 4,000 rows are drawn, for the sake of time.
"""

import argparse
import importlib
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import genai.basics
from genai.core.dataset import SPLITS, Dataset

FOLDS = 5
SEEDS = (0, 1, 2)
RANDOM = ("DecisionTree", "RandomForest")  # whose models draw, once with each of SEEDS
LARGE, DRAWN = 25_000, 4_000  # rows
# of a model: where scikit-learn has it, and the keywords of both
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "MajorityClass": ("dummy.DummyClassifier", {}),
    "LogisticRegression": ("linear_model", {"max_iter": 1000}),
    "GaussianNB": ("naive_bayes", {}),
    "KNeighborsClassifier": ("neighbors", {}),
    "SVC": ("svm", {"C": 10.0}),
    "DecisionTreeClassifier": ("tree", {"min_samples_leaf": 5}),
    "RandomForestClassifier": ("ensemble", {"n_estimators": 50}),
    "HistGradientBoostingClassifier": ("ensemble", {"random_state": 0}),
}
REGRESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mean": ("dummy.DummyRegressor", {}),
    "LinearRegression": ("linear_model", {}),
    "Ridge": ("linear_model", {"alpha": 10.0}),
    "Lasso": ("linear_model", {"alpha": 0.01}),
    "KNeighborsRegressor": ("neighbors", {}),
    "DecisionTreeRegressor": ("tree", {"min_samples_leaf": 10}),
    "RandomForestRegressor": ("ensemble", {"n_estimators": 50, "max_features": 0.5}),
    "HistGradientBoostingRegressor": ("ensemble", {"random_state": 0}),
}
CLASSES = ("digits", "breast_cancer", "wine", "iris", "adult")
NUMBERS = ("diabetes", "california_housing")


def read(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the features (N, D), the target (N,) and whether it is a class, all splits of the source together."""
    source = importlib.import_module(f"genai.data.{name}")
    shares = {key: 0.2 for key in ("validation", "test") if key in source.Config.model_fields}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / name
        directory.mkdir()
        source.prepare(source.Config(**shares, seed=0), directory)
        dataset = Dataset(directory)
        parts = [dataset.arrays(split) for split in SPLITS]
        classes = bool(dataset.description.classes)
    X, y = (np.concatenate([part[key] for part in parts]) for key in ("x", "y"))
    X = X.reshape(len(X), -1).astype(np.float64)
    if len(X) > LARGE:
        drawn = np.random.default_rng(0).choice(len(X), DRAWN, replace=False)
        X, y = X[drawn], y[drawn]
    return X, y, classes


def scores(cls: Any, numbers: dict[str, Any], X: np.ndarray, y: np.ndarray, folds: Any, figure: str) -> np.ndarray:
    """Return the figure of each fold, (FOLDS,), the mean over seeds where the model draws at random."""
    seeds = [{"random_state": seed} for seed in SEEDS] if cls.__name__.startswith(RANDOM) else [{}]
    models = [make_pipeline(StandardScaler(), cls(**numbers, **seed)) for seed in seeds]
    found = [cross_val_score(model, X, y, cv=folds, scoring=figure, error_score="raise") for model in models]
    return np.mean(found, axis=0)


def compare(table: str, models: dict[str, tuple[str, dict[str, Any]]]) -> tuple[str, list[list[tuple[str, float]]]]:
    """Return the table's heading, and of each model ours and scikit-learn's cell with its CPU-seconds."""
    X, y, classes = read(table)
    kind = StratifiedKFold if classes else KFold
    folds = [*kind(FOLDS, shuffle=True, random_state=0).split(X, y)]
    pairs = []
    for name, (module, numbers) in models.items():
        path, _, other = module.partition(".")
        theirs = getattr(importlib.import_module(f"sklearn.{path}"), other or name)
        found, seconds = [], []
        for cls in (getattr(genai.basics, name), theirs):
            start = time.process_time()
            found.append(scores(cls, numbers, X, y, folds, "accuracy" if classes else "r2"))
            seconds.append(time.process_time() - start)
        difference = found[0] - found[1]
        cells = [cell(values, classes) for values in found]
        if np.abs(difference).max() < 1e-6:
            cells[1] = "="
        elif abs(difference.mean()) > difference.std(ddof=1):
            cells[1] += " \\*"
        pairs.append([*zip(cells, seconds, strict=True)])
        print(f"{table} {name}: {found[0].round(4)} {found[1].round(4)}", file=sys.stderr, flush=True)
    return f"{table.replace('_', ' ')}, {len(X):,} x {X.shape[1]}", pairs


def cell(values: np.ndarray, percent: bool) -> str:
    """Return mean and standard deviation over the folds, of an accuracy in per cent."""
    mean, sd = values.mean(), values.std(ddof=1)
    return f"{100 * mean:.1f} ± {100 * sd:.1f}" if percent else f"{mean:.3f} ± {sd:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join([*CLASSES, *NUMBERS]))
    chosen = parser.parse_args().tables
    warnings.simplefilter("ignore")
    for figure, tables, models in (("accuracy, %", CLASSES, CLASSIFIERS), ("R2", NUMBERS, REGRESSORS)):
        found = [compare(table, models) for table in tables if not chosen or table in chosen]
        if not found:
            continue
        print(f"\n| {figure} | {' | '.join(heading for heading, _ in found)} | CPU-s |")
        print(f"| --- |{' ---: |' * (len(found) + 1)}")
        for i, name in enumerate(models):
            for which, label in enumerate((f"`{name}`", "scikit-learn's")):
                cells, seconds = zip(*(pairs[i][which] for _, pairs in found), strict=True)
                print(f"| {label} | {' | '.join(cells)} | {sum(seconds):.1f} |")


if __name__ == "__main__":
    main()
