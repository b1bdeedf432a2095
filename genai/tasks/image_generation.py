"""Image generation: images of each class from a trained model, seen from several sides, and how far they are from real ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file

from genai import model as models
from genai.core.config import Strict, UserError, validate
from genai.core.dataset import Dataset, atomic, image_grid, write_arrays, write_image_grid
from genai.model import Loaded

RANKED_BY = ("kernel_distance",)
HIGHER_IS_BETTER = False
JUDGE_NEEDS = ("features", "predict_proba")
RESAMPLES = 200
COMPARED = 2000  # images of a kind, at most, that are compared pair by pair
LEARNED_FROM = 5000  # images, at most, that the classifier of the classification accuracy score learns from
NEAREST = 5  # neighbours that say how dense real images lie (Naeem et al., 2020, section 4), and that are shown
EPOCHS, BATCH, RATE = 20, 64, 3e-3  # in which it learns them
COLUMNS = 10  # images in a row of the figures
GUIDANCES = (0.0, 1.0, 1.5, 2.0, 4.0, 8.0)
FRAMES, FRAME, LAST_FRAME = 20, 100, 2000  # of the animation; milliseconds that one is seen


class Show(Strict):
    """What is drawn for people."""

    per_class: Annotated[int, Field(ge=1, le=100)] = Field(description="images of each class in the grid")


class Grade(Strict):
    """What is drawn to be graded."""

    n: Annotated[int, Field(ge=10, le=100_000)] = Field(description="images, of each class in turn")


# --- what is drawn ---


def images(loaded: Loaded, labels: np.ndarray, sampling: Any) -> np.ndarray:
    """Return an image of each label, (N, C, H, W) float32 in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.no_grad():
        return loaded.model.sample(torch.as_tensor(labels), sampling, generator).numpy()


def walked(loaded: Loaded, noise: np.ndarray, labels: np.ndarray, sampling: Any) -> np.ndarray:
    """Return what noise (N, C, H, W) becomes at each step, itself first, (steps + 1, N, C, H, W) float32 in [0, 1]."""
    import torch

    states = loaded.model.walk(torch.from_numpy(noise), torch.from_numpy(labels), sampling, [*range(len(noise))])
    return np.stack([state.numpy() for state in states])


def show(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write grid.png, a row of images for each class, and whence they come.

    trajectories.png: from noise to image. guidance.png: the same noises under more and more of it. interpolations.png:
    from one noise to another. denoising.png: it moves, in whatever shows animated PNG; elsewhere it is its last frame.
    """
    what = validate(Show, numbers, f"generators.{loaded.name}.show")
    write_image_grid(grid(loaded, sampling, what.per_class), folder / "grid.png")
    classes = loaded.description.classes
    shown = np.arange(min(len(classes), COLUMNS))
    names, rng = [classes[k] for k in shown], np.random.default_rng(sampling.seed)
    noise = rng.standard_normal((len(shown), *loaded.description.shape), dtype=np.float32)

    states = walked(loaded, noise, shown, sampling)
    taken = np.unique(np.linspace(0, sampling.steps, COLUMNS).round().astype(int))
    times = [f"t = {i / sampling.steps:.2g}" for i in taken]
    labelled(states[taken].swapaxes(0, 1), names, times, folder / "trajectories.png")

    swept = [walked(loaded, noise, shown, sampling.model_copy(update={"guidance": g}))[-1] for g in GUIDANCES]
    labelled(np.stack(swept), [f"guidance {g:g}" for g in GUIDANCES], names, folder / "guidance.png")

    other = rng.standard_normal(noise.shape, dtype=np.float32)
    shares = np.linspace(0, 1, COLUMNS)
    between = np.stack([slerp(noise, other, share) for share in shares], 1).reshape(-1, *noise.shape[1:])
    rows = walked(loaded, between, shown.repeat(COLUMNS), sampling)[-1].reshape(len(shown), COLUMNS, *noise.shape[1:])
    labelled(rows, names, [f"{share:.0%}" for share in shares], folder / "interpolations.png")

    several = rng.standard_normal((2 * len(shown), *noise.shape[1:]), dtype=np.float32)
    states = walked(loaded, several, np.tile(shown, 2), sampling.model_copy(update={"steps": FRAMES}))
    animate([image_grid(state.reshape(2, len(shown), *state.shape[1:])) for state in states], folder / "denoising.png")


def grid(loaded: Loaded, sampling: Any, per_class: int) -> np.ndarray:
    """Return images (classes, per_class, C, H, W), a row for each class."""
    n_classes = loaded.description.n_classes
    x = images(loaded, np.repeat(np.arange(n_classes), per_class), sampling)
    return x.reshape(n_classes, per_class, *x.shape[1:])


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Return the point at `share` of the great circle from each of a (N, ...) to its b: as long as noise is.

    Shoemake, "Animating rotation with quaternion curves", 1985, section 3.3. On the straight line noise would lose variance.
    """
    flat = [x.reshape(len(x), -1) / np.linalg.norm(x.reshape(len(x), -1), axis=1, keepdims=True) for x in (a, b)]
    angle = np.arccos(np.clip((flat[0] * flat[1]).sum(1), -1, 1)).reshape(-1, *[1] * (a.ndim - 1))
    return ((np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)).astype(a.dtype)


def labelled(x: np.ndarray, rows: list[str], columns: list[str], path: Path) -> None:
    """Write images (rows, columns, C, H, W) in [0, 1] as one PNG with a name at each row and column, atomically."""
    from PIL import Image, ImageDraw, ImageFont

    picture, font = image_grid(x).convert("RGB"), ImageFont.load_default(11)
    left = 8 + max(int(font.getlength(name)) for name in rows)
    top = 18
    page = Image.new("RGB", (left + picture.width, top + picture.height), "white")
    page.paste(picture, (left, top))
    write = ImageDraw.Draw(page)
    for i, name in enumerate(rows):
        write.text((left - 4, top + (i + 0.5) * picture.height / len(rows)), name, "black", font, anchor="rm")
    for i, name in enumerate(columns):
        write.text((left + (i + 0.5) * picture.width / len(columns), top - 4), name, "black", font, anchor="ms")
    with atomic(path) as temporary:
        page.save(temporary, "PNG")


def animate(frames: list[Any], path: Path) -> None:
    """Write frames as an animated PNG that stays a while at its last, and is that where nothing moves, atomically."""
    durations = [FRAME] * (len(frames) - 1) + [LAST_FRAME]
    with atomic(path) as temporary:
        frames[-1].save(
            temporary, "PNG", save_all=True, default_image=True, append_images=frames, duration=durations, loop=0
        )


def generate(loaded: Loaded, sampling: Any, prompt: str | None, out: Path | None) -> str:
    """Write a grid of ten images of each class to `out` (NAME.png where it is None); return where it is. Raises UserError."""
    if prompt is not None:
        raise UserError("prompt: an image model takes none; its classes are " + ", ".join(loaded.description.classes))
    out = out or Path(f"{loaded.name}.png")
    write_image_grid(grid(loaded, sampling, 10), out)
    return str(out)


# --- how it is graded ---


def draw(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write samples.safetensors: x (N, C, H, W) float32 and the classes y (N,) that they were drawn for."""
    what = validate(Grade, numbers, f"generators.{loaded.name}.grade")
    labels = np.arange(what.n) % loaded.description.n_classes
    write_arrays(folder / "samples.safetensors", {"x": images(loaded, labels, sampling), "y": labels})


def grade(loaded: Loaded, judge: Loaded, real: Dataset, sampling: Any, folder: Path) -> dict[str, dict[str, float]]:
    """Return how far the drawn images are from the real ones of validation and of test; write neighbors.png.

    By a judge that saw no sample:
      label_accuracy            share of samples that it takes for the class they were drawn for
      kernel_distance, frechet  between its features of samples and of real images
      density, coverage         how many samples lie where real images do, how many real images have samples near
      memorization              share of samples that are nearer to training images than to as many real ones held out
    and, by what can be learned from them:
      classification_accuracy   on real images, of a classifier that saw samples alone

    Floors are the values of real training images in the place of samples, ceilings those of uniform noise; of memorization,
    whose best is 0.5, the ceiling is that of training images. `_real`: the same asked of real images. Biased distances are
    between equal numbers, `frechet_images`. Errors are of a bootstrap over all that was drawn, real images included.
    """
    samples, train = load_file(folder / "samples.safetensors"), real.arrays("train")
    rng = np.random.default_rng(0)
    noise = rng.random((min(len(samples["x"]), COMPARED), *samples["x"].shape[1:]), dtype=np.float32)
    shuffled = rng.permutation(len(train["x"]))
    known = {key: value[shuffled[: 5 * COMPARED]] for key, value in train.items()}
    ours, known_features = judge.apply("features", samples["x"]), judge.apply("features", known["x"])
    features = {"": ours[:COMPARED], "_floor": known_features[: min(len(ours), COMPARED)]}
    features |= {"_ceiling": judge.apply("features", noise)}
    write_neighbors(samples, features[""], known, known_features, real.description.classes, folder / "neighbors.png")
    labels = judge.apply("predict_proba", samples["x"]).argmax(1) == samples["y"]
    n_learned = min(len(samples["y"]), len(known["y"]), LEARNED_FROM)
    learned = {
        end: classifier(judge, a["x"][:n_learned], a["y"][:n_learned]) for end, a in (("", samples), ("_real", known))
    }
    metrics = {}
    for split in ("validation", "test"):
        arrays = real.arrays(split)
        held = rng.permutation(len(arrays["x"]))[:COMPARED]
        theirs = judge.apply("features", arrays["x"][held])
        n = min(len(theirs), *map(len, features.values()))
        right = {end: c.apply("predict_proba", arrays["x"]).argmax(1) == arrays["y"] for end, c in learned.items()}
        near = {end: neighborhoods(features[end][:n], theirs[:n]) for end in ("", "_floor")}
        copied = {
            end: Memorization(features[of], known_features, theirs) for end, of in (("", ""), ("_ceiling", "_floor"))
        }
        values = {
            "label_accuracy": labels.mean(),
            "label_accuracy_se": error(np.mean, rng, labels),
            "label_accuracy_real": np.mean(judge.apply("predict_proba", arrays["x"]).argmax(1) == arrays["y"]),
            "classification_accuracy": right[""].mean(),
            "classification_accuracy_se": error(np.mean, rng, right[""]),
            "classification_accuracy_real": right["_real"].mean(),
            "kernel_distance": kernel_distance(features[""], theirs),
            "kernel_distance_se": kernel_distance_error(features[""], theirs, rng),
        }
        values |= {f"kernel{end}": kernel_distance(features[end], theirs) for end in ("_floor", "_ceiling")}
        values |= {f"frechet{end}": frechet_distance(f[:n], theirs[:n]) for end, f in features.items()}
        values["frechet_se"] = error(frechet_distance, rng, features[""][:n], theirs[:n])
        for name, statistic in (("density", density), ("coverage", coverage)):
            values |= {f"{name}{end}": statistic(inside) for end, inside in near.items()}
            values[f"{name}_se"] = crossed_error(statistic, rng, near[""])
        values |= {f"memorization{end}": memorization.share() for end, memorization in copied.items()}
        values["memorization_se"] = copied[""].error(rng)
        counts = {
            "images": len(samples["y"]),
            "images_real": len(theirs),
            "frechet_images": n,
            "images_learned": n_learned,
        }
        metrics[split] = {key: float(value) for key, value in values.items()} | counts
    return metrics


def error(statistic: Callable[..., Any], rng: np.random.Generator, *samples: np.ndarray) -> float:
    """Return the standard error of a statistic of samples (N, ...): its bootstrap over the rows of each."""
    draws = [statistic(*(x[rng.integers(len(x), size=len(x))] for x in samples)) for _ in range(RESAMPLES)]
    return float(np.std(draws, ddof=1))


def classifier(judge: Loaded, x: np.ndarray, y: np.ndarray) -> Loaded:
    """Return a network built as the judge is, that learned the classes y (N,) from images x (N, C, H, W) alone.

    Ravuri and Vinyals, "Classification accuracy score for conditional generative models", 2019. A loop of its own, since
    no grade is to depend on the methods of training: AdamW, its rate rising and falling, the same draws for all.
    """
    import torch

    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    steps = -(-EPOCHS * len(x) // BATCH)
    torch.manual_seed(0)
    model = models.build(judge.name, judge.experiment, judge.description).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        drawn = torch.randint(len(x), (BATCH,))
        model.loss({"x": images[drawn], "y": labels[drawn]}).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return replace(judge, model=model.eval())


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances between a (N, F) and b (M, F), (N, M) float32."""
    from scipy.spatial.distance import cdist

    return cdist(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)


def neighborhoods(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return which of our features (N, F) lie in the ball around each of theirs (M, F), (M, N) bool.

    It reaches to the NEAREST-th other of theirs. Naeem et al., "Reliable fidelity and diversity metrics for generative
    models", 2020, section 4.
    """
    radius = np.sort(distances(theirs, theirs), 1)[:, min(NEAREST, len(theirs) - 1)]  # the first is itself
    return distances(theirs, ours) <= radius[:, None]


def density(inside: np.ndarray) -> float:
    """Return in how many balls of real images (M, N) a sample lies, over how many it would lie in were it real (eq. 2)."""
    return float(inside.sum(0).mean() / min(NEAREST, len(inside) - 1))


def coverage(inside: np.ndarray) -> float:
    """Return the share of real images whose ball (M, N) holds a sample (eq. 3)."""
    return float(inside.any(1).mean())


def crossed_error(statistic: Callable[[np.ndarray], float], rng: np.random.Generator, table: np.ndarray) -> float:
    """Return the standard error of a statistic of a table (M, N): its bootstrap over rows and columns."""
    draws = []
    for _ in range(RESAMPLES):
        rows, columns = (rng.integers(n, size=n) for n in table.shape)
        draws.append(statistic(table[rows][:, columns]))
    return float(np.std(draws, ddof=1))


class Memorization:
    """How often a sample's nearest real image is one of training, of as many that were held out: 0.5 where it copies none.

    ours (N, F), train (K, F), held (M, F): features. The share is the mean over all choices of M training images: with c
    of the K nearer than the nearest held out, the nearest is one of them with probability 1 - C(K - c, M) / C(K, M).
    """

    def __init__(self, ours: np.ndarray, train: np.ndarray, held: np.ndarray):
        self.train, self.held = np.sort(distances(ours, train), 1), distances(ours, held)

    def shares(self, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Return the probability for these of our rows and of the held-out images."""
        from scipy.special import gammaln

        K = self.train.shape[1]
        nearest = self.held[np.ix_(rows, held)].min(1)
        c = np.array([np.searchsorted(self.train[i], d) for i, d in zip(rows, nearest, strict=True)])
        m = min(len(held), K)
        left = K - c
        none = gammaln(left + 1) - gammaln(np.maximum(left - m, 0) + 1) - gammaln(K + 1) + gammaln(K - m + 1)
        return 1 - np.where(left >= m, np.exp(none), 0.0)

    def share(self) -> float:
        """Return the mean over our rows."""
        return float(self.shares(*map(np.arange, self.held.shape)).mean())

    def error(self, rng: np.random.Generator) -> float:
        """Return its standard error: its spread over random halves of samples and held-out images.

        That is as wide as the error of the whole (McCarthy, "Pseudo-replication: half samples", 1969), and no image is drawn
        twice: of a neighbour that stands there twice there is no nearest.
        """
        N, M = self.held.shape
        draws = [
            self.shares(rng.permutation(N)[: N // 2], rng.permutation(M)[: M // 2]).mean() for _ in range(RESAMPLES)
        ]
        return float(np.std(draws, ddof=1))


def write_neighbors(
    samples: dict[str, np.ndarray], ours: np.ndarray, known: dict[str, np.ndarray], theirs: np.ndarray, classes: list[str],
    path: Path,
) -> None:  # fmt: skip
    """Draw the first samples, a row each, beside the training images whose features are nearest."""
    n = min(len(classes), COLUMNS)
    nearest = np.argsort(distances(ours[:n], theirs), 1, kind="stable")[:, :NEAREST]
    rows = np.concatenate([samples["x"][:n, None], known["x"][nearest]], 1)
    columns = ["sample", *(f"{i + 1}" for i in range(nearest.shape[1]))]
    labelled(rows, [classes[k] for k in samples["y"][:n]], columns, path)


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
