"""A trained model and the test split -> named numbers, and one score per example (lower is better).

The scores are what a paired comparison of two models needs: squared error, log loss, bits.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.sample import images, texts

BATCH = 256  # examples at a time; no figure depends on it
GENERATED = 1000  # images judged
SAMPLED = 16  # texts generated for distinct-2


def evaluate(
    loaded: SimpleNamespace, dataset: Dataset, judge: SimpleNamespace | None, sampling: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Return the metrics of the test split by name, and the score of each example.

    judge: the loaded model that grades an image generator; sampling: a generator's Sampling, else None.
    """
    model = loaded.model
    if model.task == "language":
        return language(loaded, dataset, sampling)
    test = dataset.arrays("test")
    if model.task == "regression":
        return regression(apply(model, "predict", test["x"]), test["y"])
    if model.task == "classification":
        return classification(apply(model, "predict_proba", test["x"]), test["y"])
    if model.task == "clustering":
        return clustering(apply(model, "predict", test["x"]), test["y"])
    assert model.task == "image_generation", model.task
    if judge is None or judge.model.task != "classification":
        raise UserError(
            f"experiments.{loaded.name}.judge: should be an experiment that classifies {loaded.experiment.data}"
        )
    return image_generation(loaded, judge, dataset.arrays("train"), test, sampling)


def apply(model: Any, method: str, x: np.ndarray) -> np.ndarray:
    """Return `model.method(x)` as an array, a network's in batches and without gradients."""
    if not hasattr(model, "parameters"):
        return getattr(model, method)(x)
    import torch

    with torch.no_grad():
        parts = [getattr(model, method)(torch.from_numpy(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
        return torch.cat(parts).numpy()


def regression(prediction: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2, and the root of the mean squared error."""
    prediction, y = prediction.astype(np.float64), y.astype(np.float64)
    squared = (y - prediction) ** 2
    r2 = 1 - squared.sum() / ((y - y.mean()) ** 2).sum()
    return {"r2": float(r2), "rmse": float(np.sqrt(squared.mean())), "examples": len(y)}, squared


def classification(probabilities: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Accuracy with its standard error, and the mean of -log p(class) in nats."""
    correct = probabilities.argmax(1) == y
    p = np.clip(probabilities[np.arange(len(y)), y].astype(np.float64), 1e-12, 1)
    metrics = {
        "accuracy": float(correct.mean()),
        "accuracy_se": float(np.sqrt(correct.mean() * (1 - correct.mean()) / len(y))),
        "log_loss": float(-np.log(p).mean()),
        "examples": len(y),
    }
    return metrics, -np.log(p)


def clustering(clusters: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Accuracy under the best one-to-one match of clusters and classes, and normalised mutual information."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(y, clusters)  # (classes, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = dict(zip(np.unique(clusters)[columns], np.unique(y)[rows], strict=True))
    wrong = np.array([matched.get(cluster) != label for cluster, label in zip(clusters, y, strict=True)])
    metrics = {
        "clustering_accuracy": float(1 - wrong.mean()),
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "examples": len(y),
    }
    return metrics, wrong.astype(np.float64)


def language(loaded: SimpleNamespace, dataset: Dataset, sampling: Any) -> tuple[dict[str, float], np.ndarray]:
    """Bits per character of the test text (of a diffusion model: their bound), with its standard error.

    The text is cut into windows of the model's length, each scored by itself; a rest shorter than a
    window is left out, of the characters too. The score of a window is its bits over the mean number
    of characters in a window, so that the mean of the scores is the figure.
    """
    model, windows = loaded.model, dataset.arrays("test")["tokens"]
    characters = np.array([len(dataset.tokenizer.decode(window)) for window in windows])
    seed = loaded.experiment.train.seed
    if hasattr(model, "parameters"):
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            parts = [model.nats(torch.from_numpy(windows[i : i + 16]), generator) for i in range(0, len(windows), 16)]
            nats = torch.cat(parts).numpy()
    else:
        nats = model.nats(windows)
    scores = nats / np.log(2) / characters.mean()
    metrics = {
        model.metric: float(scores.mean()),
        f"{model.metric}_se": float(scores.std(ddof=1) / np.sqrt(len(scores))),
        "characters": int(characters.sum()),
    }
    if sampling is not None:
        generated = texts(loaded, dataset.tokenizer, None, SAMPLED, sampling)
        length = sampling.length
        real = [dataset.tokenizer.decode(window[:length]) for window in windows[:SAMPLED]]
        metrics["distinct_2"] = distinct(generated, 2)
        metrics["distinct_2_real"] = distinct(real, 2)
    return metrics, scores


def distinct(texts: list[str], n: int) -> float:
    """Return the share of word n-grams that are distinct (Li et al., 2016); falls with more text."""
    words = [text.split() for text in texts]
    grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def image_generation(
    loaded: SimpleNamespace,
    judge: SimpleNamespace,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    sampling: Any,
) -> tuple[dict[str, float], np.ndarray]:
    """Share of samples that the judge takes for their class; Frechet distance to the test images.

    The distance is taken between Gaussians fitted to the judge's features. Its floor is the distance
    of as many real training images, its ceiling that of uniform noise.
    """
    n_classes = loaded.description.n_classes
    labels = np.arange(GENERATED) % n_classes
    generated = images(loaded, labels, sampling)
    judged, scores = classification(apply(judge.model, "predict_proba", generated), labels)
    rng = np.random.default_rng(loaded.experiment.train.seed)
    real = train["x"][rng.permutation(len(train["x"]))[:GENERATED]]
    noise = rng.random(generated.shape, dtype=np.float32)
    features = {
        name: apply(judge.model, "features", x)
        for name, x in {"test": test["x"], "generated": generated, "real": real, "noise": noise}.items()
    }
    metrics = {
        "label_accuracy": judged["accuracy"],
        "label_accuracy_real": float((apply(judge.model, "predict_proba", test["x"]).argmax(1) == test["y"]).mean()),
        f"frechet_{judge.name}": frechet_distance(features["generated"], features["test"]),
        "frechet_floor": frechet_distance(features["real"], features["test"]),
        "frechet_ceiling": frechet_distance(features["noise"], features["test"]),
        "examples": GENERATED,
    }
    return metrics, scores


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the features (N, F) (Heusel et al., 2017, eq. 6).

    The trace of the root is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is
    symmetric, so that no covariance needs to be regularised for it.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ covariance_b @ root)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)
