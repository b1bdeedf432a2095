"""How every figure looks: a palette for all kinds of colour vision, the same bytes every time; what several draw."""

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Description, atomic

# Okabe and Ito, "Color universal design", 2008: told apart with any colour vision; black comes last, for baselines
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]
GREY = "#666666"
WIDTH = 8.0  # inches; at 110 dots an inch a page's width
HALF = 4.8  # of two figures side by side
MARKERS = "osD^vP*X"
# Of more than eight: of Paul Tol's "muted", 2021; what is alike among sixteen is told apart by letter or form
COLORS = [*PALETTE, "#882255", "#999933", "#44AA99", "#332288", "#AA4499", "#999999", "#661100", "#DDCC77"]
LINES = [color for color in COLORS if color != "#F0E442"]  # a thin line of yellow is lost on white
ANNOTATED = 20  # rows and columns up to which a table of counts shows its numbers
STEPS = 100  # of a plane's sides at which a model is asked
POINTS = 500  # drawn of a cloud whose points are marked one by one
FITTED = 10_000  # examples that a plane is laid through
DENSITY = 13  # letters to an inch of a table
COLUMNS = 5  # pictures in a row of examples
CAPTION = 15  # letters in a line above each


# What DVC plots of a task: of each kind of plot the names of the columns, then the rows
Tables = dict[str, list[tuple[Any, ...]]]


def new(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **subplots: Any) -> tuple[Any, Any]:
    """Return a figure of width x height inches and its axes, (rows, columns) of them or the one."""
    from cycler import cycler
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for ax in [axes] if rows * columns == 1 and not hasattr(axes, "flat") else axes.flat:
        ax.set_prop_cycle(cycler(color=PALETTE))
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG of 256 colours, a third of the bytes of one of all, atomically."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with atomic(path) as temporary, Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(temporary, "PNG", optimize=True)


def titled(name: str, what: str) -> str:
    """Return a title of half a page's width: in two lines where one would be cut off."""
    return f"{name}: {what}" if len(name) + len(what) < 44 else f"{name}\n{what}"


def shortened(name: str, length: int = 14) -> str:
    """Return a name, its end left out where it is longer."""
    return name if len(name) <= length else name[: length - 1] + "…"


# --- a table of counts ------------------------------------------------------------------------------


def counts(table: np.ndarray, rows: list[str], columns: list[str], ylabel: str, xlabel: str, title: str) -> Any:
    """Draw counts (R, C), the colour of a cell its share of the row; many rows or columns go without numbers."""
    size = max(HALF, min(WIDTH, 0.42 * len(columns) + 1.6))
    figure, ax = new(size * 0.9 if len(rows) > 2 else 0.62 * size, width=size)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if max(table.shape) <= ANNOTATED:
        fontsize = 9 if len(columns) <= 10 else 7
        for i, j in np.argwhere(table):
            color = "white" if share[i, j] > 0.5 else "black"
            ax.text(j, i, f"{table[i, j]:d}", ha="center", va="center", color=color, fontsize=fontsize)
    for axis, names in ((ax.xaxis, columns), (ax.yaxis, rows)):
        every = -(-len(names) // 40)  # of a hundred classes not each is named
        axis.set_ticks(range(0, len(names), every), [shortened(name) for name in names[::every]])
    if max(map(len, columns)) > 3:
        ax.tick_params("x", rotation=90 if len(columns) > 10 else 40)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="share of the row", fraction=0.05)
    return figure


# --- a plane through the examples -------------------------------------------------------------------


def evenly(n: int, most: int) -> np.ndarray:
    """Return at most so many of the first n indices, evenly apart, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, most).astype(int))


class Plane:
    """The plane through the mean of x (N, ...) in which it varies most: its first two principal components.

    Of more than FITTED examples, so many evenly: more would turn it by less than a point's width, and cost seconds.
    """

    def __init__(self, x: np.ndarray):
        from sklearn.decomposition import PCA

        x = x[evenly(len(x), FITTED)]
        pca = PCA(2, svd_solver="randomized", random_state=0).fit(x.reshape(len(x), -1).astype(np.float64))
        self.mean, self.components = pca.mean_, pca.components_  # (D,), (2, D)
        self.share = float(pca.explained_variance_ratio_.sum())  # of the variance

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return where examples x (N, ...) fall on the plane, (N, 2)."""
        return (x.reshape(len(x), -1) - self.mean) @ self.components.T

    def example(self, points: np.ndarray) -> np.ndarray:
        """Return the examples that lie in the plane itself at points (N, 2), (N, D) float32."""
        return (self.mean + points @ self.components).astype(np.float32)

    def label(self, ax: Any) -> None:
        """Name the axes."""
        ax.set(xlabel="first principal component", ylabel="second principal component")
        ax.set_aspect("equal", adjustable="box" if ax.images else "datalim")


def mark(ax: Any, points: np.ndarray, color: np.ndarray, kind: np.ndarray, names: list[str]) -> None:
    """Draw points (N, 2), POINTS of them evenly: `color` (N,) numbers the colour, `kind` (N,) the name that marks it.

    A name of one or two letters is the mark itself; of longer ones the legend tells the marker.
    """
    from matplotlib.patheffects import withStroke

    taken = evenly(len(points), POINTS)
    points, color, kind = points[taken], color[taken], kind[taken]
    colors = np.array(COLORS)[color % len(COLORS)]
    if max(map(len, names)) <= 2:
        ax.scatter(*points.T, s=1, alpha=0)  # so that the axes reach them
        for (x, y), c, k in zip(points, colors, kind, strict=True):
            edge = [withStroke(linewidth=1.2, foreground="white")]
            ax.text(
                x, y, names[k], color=darker(c), fontsize=8, ha="center", va="center", path_effects=edge, clip_on=True
            )
        return
    for k, name in enumerate(names):
        here, marker = kind == k, MARKERS[k % len(MARKERS)]
        ax.scatter(*points[here].T, s=22, c=colors[here], marker=marker, edgecolors="white", linewidths=0.5)
        ax.scatter(
            [],
            [],
            s=22,
            c=GREY if len(set(colors[here])) > 1 else COLORS[k % len(COLORS)],
            marker=marker,
            label=shortened(name),
        )
    ax.legend(loc="upper right", fontsize=8, framealpha=0.8)


def darker(color: str) -> Any:
    """Return a colour in which a thin letter can be read on white: the lighter, the more it is darkened."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(color))
    return rgb * min(1.0, 0.5 / max(float(rgb @ (0.299, 0.587, 0.114)), 0.1))


def regions(plane: Plane, predict: Any, ax: Any, points: np.ndarray, names: list[str]) -> np.ndarray:
    """Colour the plane by what `predict`, examples (N, D) -> (N,) int, says of the examples that lie in it.

    Return what it says there of the places of `points` (N, 2), which themselves lie outside of the plane.
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import distance_transform_edt

    middle, half = (points.max(0) + points.min(0)) / 2, 0.54 * np.ptp(points, axis=0).max()
    x, y = (np.linspace(m - half, m + half, STEPS) for m in middle)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    said = predict(plane.example(np.concatenate([grid, points])))
    there = said[: len(grid)].reshape(STEPS, STEPS)
    light = 0.3 * np.array([to_rgb(c) for c in COLORS])[there % len(COLORS)] + 0.7
    ax.imshow(light, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), zorder=0)
    for k in np.unique(there):
        depth = distance_transform_edt(np.pad(there == k, 1))[1:-1, 1:-1]  # the name stands where most of it is around
        i, j = np.unravel_index(depth.argmax(), depth.shape)
        if depth[i, j] > STEPS / 25:
            ax.text(
                x[j],
                y[i],
                shortened(names[k]),
                fontsize=20 if len(names[k]) < 3 else 11,
                alpha=0.35,
                ha="center",
                va="center",
            )
    return said[len(grid) :]


# --- examples ---------------------------------------------------------------------------------------


def examples(description: Description, x: np.ndarray, train: np.ndarray, told: dict[str, list[str]], title: str) -> Any:
    """Draw examples x (N, ...) with what is told of each: images as pictures, of tables what is unusual in the row."""
    if description.kind == "images":
        return pictures(x, [", ".join(words) for words in zip(*told.values(), strict=True)], title)
    widths = [min(max(map(len, [name, *words])) / DENSITY + 0.2, 2.5) for name, words in told.items()]
    told = told | {"unusual in it: standard deviations from the mean": unusual(description, x, train)}
    widths.append(WIDTH - sum(widths))
    figure, ax = new(0.26 * (len(x) + 2.6))
    ax.axis("off")
    cells = [
        [shortened(v, int(DENSITY * w)) for v, w in zip(row, widths, strict=True)]
        for row in zip(*told.values(), strict=True)
    ]
    table = ax.table(
        cells, colLabels=[*told], colWidths=[w / WIDTH for w in widths], cellLoc="left", colLoc="left", bbox=(0, 0, 1, 1),
        edges="horizontal",
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    for cell in table.get_celld().values():
        cell.set_edgecolor("#cccccc")
    ax.set_title(title)
    return figure


def pictures(x: np.ndarray, captions: list[str], title: str) -> Any:
    """Draw images x (N, C, H, W) in [0, 1], COLUMNS in a row, each under its caption, in lines as long as it is wide."""
    rows = -(-len(x) // COLUMNS)
    captions = [
        textwrap.fill(c.replace(" %", "\N{NO-BREAK SPACE}%"), CAPTION, break_on_hyphens=False) for c in captions
    ]
    lines = 1 + max(caption.count("\n") for caption in captions)
    figure, axes = new((1.18 + 0.14 * lines) * rows + 0.6, rows, COLUMNS, width=HALF, squeeze=False)
    figure.suptitle(title, fontsize=11)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, x, captions, strict=False):
        color = {"vmin": 0, "vmax": 1, "cmap": "gray"} if len(image) == 1 else {}
        ax.imshow(np.clip(image, 0, 1).transpose(1, 2, 0), interpolation="nearest", **color)
        ax.set_title(caption, fontsize=8, pad=3)
    return figure


def unusual(description: Description, x: np.ndarray, train: np.ndarray, n: int = 3) -> list[str]:
    """Return of each row of x (N, D) its n features furthest from their mean in `train`, in standard deviations of it."""
    features = [name for column in description.columns for name in column.features]
    names = features or [f"feature {i + 1}" for i in range(x.shape[1])]
    deviation = (x.astype(np.float64) - train.mean(0)) / np.maximum(train.std(0), 1e-12)
    order = np.argsort(-np.abs(deviation), axis=1, kind="stable")[:, :n]
    return [
        ",  ".join(names[j] + f" {row[j]:+.1f}".replace("-", "−") for j in best)
        for row, best in zip(deviation, order, strict=True)
    ]
