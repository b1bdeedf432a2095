"""The basics beside scikit-learn's on the same folds of seven real tables: python -m bench.tables [TABLE ...].

Five folds, shuffled (stratified for classes), features standardised within the fold; mean and standard deviation over
the folds of accuracy or R2, ours and then scikit-learn's built with the same keywords. Nothing is tuned: this tells
whether ours are what theirs are, and what each kind of model is worth on each table. California housing and adult come
by download or from GENAI_DATA_MIRROR; of these two, and for what compares all pairs of examples, 4,000 rows are drawn.
"""

import argparse
import importlib
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
ROWS = 4000
MODULES = {  # of scikit-learn
    "LogisticRegression": "linear_model", "LinearRegression": "linear_model", "Ridge": "linear_model",
    "Lasso": "linear_model", "KNeighborsClassifier": "neighbors", "KNeighborsRegressor": "neighbors",
    "GaussianNB": "naive_bayes", "SVC": "svm", "DecisionTreeClassifier": "tree", "DecisionTreeRegressor": "tree",
    "RandomForestClassifier": "ensemble", "RandomForestRegressor": "ensemble",
    "HistGradientBoostingClassifier": "ensemble", "HistGradientBoostingRegressor": "ensemble",
}  # fmt: skip
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "LogisticRegression": {"C": 1.0}, "GaussianNB": {}, "KNeighborsClassifier": {}, "SVC": {"C": 10.0},
    "DecisionTreeClassifier": {"random_state": 0}, "RandomForestClassifier": {"n_estimators": 50, "random_state": 0},
    "HistGradientBoostingClassifier": {"random_state": 0},
}  # fmt: skip
REGRESSORS: dict[str, dict[str, Any]] = {
    "LinearRegression": {}, "Ridge": {"alpha": 10.0}, "Lasso": {"alpha": 0.01}, "KNeighborsRegressor": {},
    "DecisionTreeRegressor": {"random_state": 0, "min_samples_leaf": 10},
    "RandomForestRegressor": {"n_estimators": 50, "max_features": 0.5, "random_state": 0},
    "HistGradientBoostingRegressor": {"random_state": 0},
}  # fmt: skip
TABLES = ("digits", "breast_cancer", "wine", "iris", "adult", "diabetes", "california_housing")


def read(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the features, the target and whether it is a class, all splits of the source together."""
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
    if len(X) > ROWS * 2:
        drawn = np.random.default_rng(0).choice(len(X), ROWS, replace=False)
        X, y = X[drawn], y[drawn]
    return X, y, classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    warnings.simplefilter("ignore")
    print("| table | rows | figure | model | ours | scikit-learn's | CPU-s, ours / theirs |")
    print("| --- | ---: | --- | --- | ---: | ---: | ---: |")
    for table in parser.parse_args().tables or TABLES:
        X, y, classes = read(table)
        kind = StratifiedKFold if classes else KFold
        folds = [*kind(FOLDS, shuffle=True, random_state=0).split(X, y)]
        figure = "accuracy" if classes else "r2"
        for name, numbers in (CLASSIFIERS if classes else REGRESSORS).items():
            theirs = getattr(importlib.import_module(f"sklearn.{MODULES[name]}"), name)
            cells, seconds = [], []
            for cls in (getattr(genai.basics, name), theirs):
                start = time.process_time()
                scores = cross_val_score(
                    make_pipeline(StandardScaler(), cls(**numbers)), X, y, cv=folds, scoring=figure
                )
                seconds.append(time.process_time() - start)
                cells.append(f"{scores.mean():.4f} ± {scores.std(ddof=1):.4f}")
            ratio = f"{seconds[0]:.2f} / {seconds[1]:.2f}"
            print(f"| {table} | {len(X):,} | {figure} | {name} | {cells[0]} | {cells[1]} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
