"""Image generation: images of each class from a trained model, and how far they are from real ones."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file

from genai.core.config import Strict, UserError, validate
from genai.core.dataset import Dataset, write_arrays, write_image_grid
from genai.model import Loaded

RANKED_BY = ("kernel_distance",)
HIGHER_IS_BETTER = False
JUDGE_NEEDS = ("features", "predict_proba")
RESAMPLES = 200


class Show(Strict):
    """What is drawn for people."""

    per_class: Annotated[int, Field(ge=1, le=100)] = Field(description="images of each class in the grid")


class Grade(Strict):
    """What is drawn to be graded."""

    n: Annotated[int, Field(ge=10, le=100_000)] = Field(description="images, of each class in turn")


def images(loaded: Loaded, labels: np.ndarray, sampling: Any) -> np.ndarray:
    """Return an image of each label, (N, C, H, W) float32 in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.no_grad():
        return loaded.model.sample(torch.as_tensor(labels), sampling, generator).numpy()


def show(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write grid.png, a row of images for each class."""
    what = validate(Show, numbers, f"generators.{loaded.name}.show")
    write_image_grid(grid(loaded, sampling, what.per_class), folder / "grid.png")


def grid(loaded: Loaded, sampling: Any, per_class: int) -> np.ndarray:
    """Return images (classes, per_class, C, H, W), a row for each class."""
    n_classes = loaded.description.n_classes
    x = images(loaded, np.repeat(np.arange(n_classes), per_class), sampling)
    return x.reshape(n_classes, per_class, *x.shape[1:])


def generate(loaded: Loaded, sampling: Any, prompt: str | None, out: Path | None) -> str:
    """Write a grid of ten images of each class to `out` (NAME.png where it is None); return where it is. Raises UserError."""
    if prompt is not None:
        raise UserError("prompt: an image model takes none; its classes are " + ", ".join(loaded.description.classes))
    out = out or Path(f"{loaded.name}.png")
    write_image_grid(grid(loaded, sampling, 10), out)
    return str(out)


def draw(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write samples.safetensors: x (N, C, H, W) float32 and the classes y (N,) that they were drawn for."""
    what = validate(Grade, numbers, f"generators.{loaded.name}.grade")
    labels = np.arange(what.n) % loaded.description.n_classes
    write_arrays(folder / "samples.safetensors", {"x": images(loaded, labels, sampling), "y": labels})


def grade(loaded: Loaded, judge: Loaded, real: Dataset, sampling: Any, folder: Path) -> dict[str, dict[str, float]]:
    """Return how far the drawn images are from the real ones of validation and of test, in the judge's features.

    label_accuracy: the share of samples that the judge takes for the class they were drawn for.
    kernel_distance: unbiased, so that numbers of images do not matter. frechet: biased, so that all of its
    distances are between equal numbers, `frechet_images`. Floors are the distances of real training
    images, ceilings those of uniform noise.
    """
    samples = load_file(folder / "samples.safetensors")
    train = real.arrays("train")
    rng = np.random.default_rng(0)
    judged = judge.apply("predict_proba", samples["x"]).argmax(1)
    features = {
        "": judge.apply("features", samples["x"]),
        "_floor": judge.apply("features", train["x"][rng.permutation(len(train["x"]))[: len(samples["x"])]]),
        "_ceiling": judge.apply("features", rng.random(samples["x"].shape, dtype=np.float32)),
    }
    metrics = {}
    for split in ("validation", "test"):
        arrays = real.arrays(split)
        theirs = judge.apply("features", arrays["x"])
        n = min(len(theirs), *map(len, features.values()))
        taken = rng.permutation(len(theirs))[:n]
        values = {
            "label_accuracy": np.mean(judged == samples["y"]),
            "label_accuracy_real": np.mean(judge.apply("predict_proba", arrays["x"]).argmax(1) == arrays["y"]),
            "kernel_distance": kernel_distance(features[""], theirs),
            "kernel_distance_se": kernel_distance_error(features[""], theirs, rng),
        }
        values |= {f"kernel{end}": kernel_distance(features[end], theirs) for end in ("_floor", "_ceiling")}
        values |= {f"frechet{end}": frechet_distance(f[:n], theirs[taken]) for end, f in features.items()}
        counts = {"images": len(samples["y"]), "images_real": len(theirs), "frechet_images": n}
        metrics[split] = {key: float(value) for key, value in values.items()} | counts
    return metrics


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of features a (N, F) and b (M, F).

    With the kernel (x . y / F + 1)^3: Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", 2018,
    section 3 (KID); the estimate is Gretton et al., "A kernel two-sample test", 2012, eq. 3. It may be negative.
    """
    n, m = len(a), len(b)
    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    inside = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(inside - 2 * ab.mean())


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (a_i . b_j / F + 1)^3, (N, M) float64, for a (N, F) and b (M, F)."""
    return (a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3


def kernel_distance_error(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> float:
    """Return the standard error of `kernel_distance`: of its bootstrap over the rows of both.

    A row that is drawn twice is not compared with itself, which would add what the unbiased estimate leaves out.
    """
    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    u = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), RESAMPLES).astype(np.float64)
    v = rng.multinomial(len(b), np.full(len(b), 1 / len(b)), RESAMPLES).astype(np.float64)
    return float((within(u, aa) + within(v, bb) - 2 * ((u @ ab) * v).mean(1) / len(a)).std(ddof=1))


def within(counts: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the mean of k_ij over drawn pairs of different rows, for each resample's counts (R, N) of the rows."""
    squared = counts**2
    pairs = counts.sum(1) ** 2 - squared.sum(1)
    return (((counts @ k) * counts).sum(1) - squared @ np.diag(k)) / pairs


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


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    outputs = ("tensor", "float32", (-1, *description["shape"]))
    example = {"label": description["classes"][:1]}
    return {"inputs": ("columns", {"label": "string"}), "outputs": outputs, "example": example}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return an image (N, C, H, W) in [0, 1] for each class of the column `label`. Raises UserError."""
    classes = loaded.description.classes
    if unknown := [label for label in data["label"] if label not in classes]:
        raise UserError(f"label: {unknown[0]!r} should be one of {', '.join(classes)}")
    labels = np.array([classes.index(label) for label in data["label"]])
    return images(loaded, labels, validate(loaded.model.Sampling, sampling, "sampling"))
