"""Look at a trained ConvNet: what it is built of, what its filters and channels answer to, and what it gets wrong.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014; Grad-CAM: Selvaraju et al., 2017.
Images that it was not trained on are of the validation split: test is for `evaluate` alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai import figures
from genai.cnn.classifier import ConvNet, Convolution
from genai.core.config import Count, Strict
from genai.core.dataset import Dataset, write_text

if TYPE_CHECKING:
    from genai.model import Loaded

BATCH = 256
LOOKS_AT = ConvNet
ROOM = 2.9  # inches for the maps of a layer, in the figure of the architecture
GREY, SAME, OTHER = "#666666", figures.PALETTE[0], figures.PALETTE[1]


class Config(Strict):
    """How much is shown."""

    images: Count = Field(10, description="of validation, from each class in turn")
    channels: Count = Field(4, description="of each stage")
    exciting: Count = Field(10, description="training images that excite a channel most")
    neighbors: Count = Field(5, description="training images nearest to an image")
    mistakes: Count = Field(20, description="images of validation whose class is held least probable")


def draw(loaded: "Loaded", dataset: Dataset, config: Config, folder: Path) -> None:
    """Write architecture.png, architecture.md and the other figures into the folder."""
    model, description = loaded.model, dataset.description
    train, validation = dataset.arrays("train"), dataset.arrays("validation")
    chosen = one_of_each(validation["y"], config.images)
    x, y = torch.from_numpy(validation["x"][chosen]), validation["y"][chosen]
    layers = anatomy(model, description.shape)
    write_text(folder / "architecture.md", table(layers))
    pictures = {
        "architecture": architecture(model, layers, x[:1], description.classes),
        "filters": filters(model),
        "feature_maps": feature_maps(model, x, config.channels),
        "exciting": exciting(model, layers, train["x"], config),
        "grad_cam": class_activation(model, x, y, description.classes),
        "neighbors": neighbors(loaded, train, validation, chosen, config.neighbors, description.classes),
        "mistakes": mistakes(loaded, validation, config.mistakes, description.classes),
    }
    for name, figure in pictures.items():
        figures.save(figure, folder / f"{name}.png")


def one_of_each(y: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of n examples: the first of each class, then the second of each, and so on."""
    turn = np.empty(len(y), int)
    for c in np.unique(y):
        turn[y == c] = np.arange(np.count_nonzero(y == c))
    return np.lexsort((y, turn))[:n]


# --- what it is built of ---


class Layer(NamedTuple):
    """One line of the architecture."""

    name: str
    shape: tuple[int, ...]  # of what it hands on: channels, height, width; or width alone
    parameters: int  # learned, those of its batch normalisation included
    products: int  # multiplications for one image
    field: int | None  # side of the square of pixels that one of its numbers depends on; None: all of the image
    step: int | None  # pixels of the image between two of its neighbours
    ends: int  # modules of `convolutions` up to here


def anatomy(model: ConvNet, shape: list[int]) -> list[Layer]:
    """Return the layers of a ConvNet for images of shape (C, H, W), the image first.

    Receptive fields grow by (S - 1) steps at a layer of windows S x S: Araujo, Norris and Sim, "Computing receptive
    fields of convolutional neural networks", Distill, 2019, eq. 2.
    """
    layers = [Layer("image", tuple(shape), 0, 0, 1, 1, 0)]
    x, field, step = torch.zeros(1, *shape), 1, 1
    for i, module in enumerate(model.convolutions):
        x = module(x)
        c, h, w = x.shape[1:]
        if isinstance(module, Convolution):
            field += 2 * step
            weight = module.weight
            layers.append(
                Layer("3 × 3 convolution", (c, h, w), weight.numel(), weight.numel() * h * w, field, step, i + 1)
            )
        elif isinstance(module, nn.MaxPool2d):
            field, step = field + step, 2 * step
            layers.append(Layer("2 × 2 max-pooling", (c, h, w), 0, 0, field, step, i + 1))
        elif isinstance(module, nn.PixelUnshuffle):
            p = module.downscale_factor
            field, step = p, p
            layers.append(Layer(f"{p} × {p} patches", (c, h, w), 0, 0, field, step, i + 1))
        else:  # batch normalisation and ReLU stand in the line of their convolution
            added = layers[-1].parameters + sum(p.numel() for p in module.parameters())
            layers[-1] = layers[-1]._replace(parameters=added, ends=i + 1)
    n = len(model.convolutions)
    for name, linear in (("fully connected", model.fully_connected[1]), ("head", model.head)):
        assert isinstance(linear, nn.Linear)
        parameters = sum(p.numel() for p in linear.parameters())
        layers.append(Layer(name, (linear.out_features,), parameters, linear.weight.numel(), None, None, n))
    return layers


def sees(layer: Layer) -> str:
    """Return the receptive field in words."""
    return "all" if layer.field is None else f"{layer.field} × {layer.field}"


def table(layers: list[Layer]) -> str:
    """Return the architecture as a markdown table."""
    rows = ["| layer | shape | parameters | multiplications | sees, in pixels |", "| --- | --- | ---: | ---: | ---: |"]
    for layer in layers:
        shape = " × ".join(map(str, layer.shape))
        rows.append(f"| {layer.name} | {shape} | {layer.parameters:,} | {layer.products:,} | {sees(layer)} |")
    rows.append(f"| all | | {sum(x.parameters for x in layers):,} | {sum(x.products for x in layers):,} | |")
    return "\n".join(rows) + "\n"


@torch.no_grad()
def architecture(model: ConvNet, layers: list[Layer], x: Tensor, classes: list[str]) -> Any:
    """Draw the layers from top to bottom, each with what it makes of the one image x (1, C, H, W)."""
    row, size = 0.56, 0.46  # inches, as all below
    begin, shape, end, field = 1.65, 4.85, 6.7, 7.4  # of the columns; the last two are the right ends of numbers
    bottom, top = -row * (len(layers) + 0.5), row * 0.8
    figure, ax = figures.new(top - bottom)
    figure.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.axis("off")
    headings = [("layer", 0.1, "left"), ("what it makes of this image", begin, "left"), ("shape", shape, "left")]
    headings += [("parameters", end, "right"), ("sees, in pixels", 7.9, "right")]
    for text, at, side in headings:
        ax.text(at, row * 0.45, text, fontsize=9, color=GREY, ha=side, va="center")
    largest = max(x.shape[2:])
    for i, layer in enumerate(layers):
        middle = -row * (i + 0.5)
        ax.text(0.1, middle, layer.name, fontsize=9, va="center")
        ax.text(shape, middle, " × ".join(map(str, layer.shape)), fontsize=9, va="center")
        parameters = f"{layer.parameters:,}" if layer.parameters else "–"
        ax.text(end, middle, parameters, fontsize=9, va="center", ha="right")
        ax.text(field, middle, sees(layer), fontsize=9, va="center", ha="right")
        if i:
            ax.plot([0.1, figures.WIDTH - 0.1], [-row * i] * 2, color="#dddddd", linewidth=0.8)
        if layer.field is not None:
            window(ax, x[0], layer, field + 0.06, middle, size)
            maps = model.convolutions[: layer.ends](x)[0]
            strip(ax, maps, begin, middle, max(size * maps.shape[2] / largest, 0.14), layer.ends == 0)
    features, p = model.features(x)[0], model.predict_proba(x)[0]
    cells(ax, features.numpy(), begin, -row * (len(layers) - 1.5), ROOM, 0.26, "Blues")
    bars(ax, p.numpy(), classes, begin, -row * (len(layers) - 0.5), ROOM, 0.26)
    total, products = sum(x.parameters for x in layers), sum(x.products for x in layers)
    each = "each convolution with batch normalisation and ReLU"
    text = f"{total:,} parameters, {products / 1e6:.1f} million multiplications an image; {each}"
    ax.text(0.1, bottom + 0.15, text, fontsize=8.5, color=GREY)
    ax.set(xlim=(0, figures.WIDTH), ylim=(bottom, top), aspect="equal")
    return figure


def window(ax: Any, image: Tensor, layer: Layer, left: float, middle: float, size: float) -> None:
    """Draw the image with the square of pixels that the number in the layer's middle depends on."""
    from matplotlib.patches import Rectangle

    extent = (left, left + size, middle - size / 2, middle + size / 2)
    ax.imshow(picture(image), cmap="gray", extent=extent, vmin=0, vmax=1)
    assert layer.field is not None
    h, w = image.shape[1:]
    fields = [min(layer.field, n) * size / max(h, w) for n in (h, w)]
    corner = (left + (size - fields[1]) / 2, middle - fields[0] / 2)
    ax.add_patch(Rectangle(corner, fields[1], fields[0], fill=False, edgecolor=OTHER, linewidth=1.6, zorder=3))


def strip(ax: Any, maps: Tensor, left: float, middle: float, side: float, image: bool) -> None:
    """Draw an image, or the strongest maps of (C, H, W) side by side, as many as there is room for."""
    if image:
        ax.imshow(
            picture(maps), cmap="gray", extent=(left, left + side, middle - side / 2, middle + side / 2), vmin=0, vmax=1
        )
        return
    room = min(len(maps), int((ROOM + 0.05) / (side + 0.05)))
    strongest = maps.amax((1, 2)).topk(room).indices.sort().values
    for i, one in enumerate(maps[strongest]):
        at = left + i * (side + 0.05)
        extent = (at, at + side, middle - side / 2, middle + side / 2)
        ax.imshow(one.numpy(), cmap="Blues", extent=extent, vmin=0, vmax=maps.max())
        ax.plot(*zip(*square(extent), strict=True), color="#bbbbbb", linewidth=0.6)
    if room < len(maps):
        ax.text(left + room * (side + 0.05), middle, "…", fontsize=11, va="center")


def square(extent: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """Return the corners of an extent, the first again at the end."""
    a, b, c, d = extent
    return [(a, c), (b, c), (b, d), (a, d), (a, c)]


def cells(ax: Any, values: np.ndarray, left: float, middle: float, width: float, height: float, colours: str) -> None:
    """Draw a row of numbers as a row of cells."""
    extent = (left, left + width, middle - height / 2, middle + height / 2)
    ax.imshow(values[None], cmap=colours, extent=extent, aspect="auto", vmin=0, interpolation="nearest")
    ax.plot(*zip(*square(extent), strict=True), color="#bbbbbb", linewidth=0.6)


def bars(ax: Any, p: np.ndarray, classes: list[str], left: float, middle: float, width: float, height: float) -> None:
    """Draw a bar a class, as high as it is probable, and name the most probable one."""
    each = width / len(p)
    ax.bar(left + each * (np.arange(len(p)) + 0.5), height * p, each * 0.8, middle - height / 2, color=SAME)
    ax.plot([left, left + width], [middle - height / 2] * 2, color="#bbbbbb", linewidth=0.8)
    best = int(p.argmax())
    right = best > len(p) / 2
    at = left + each * (best if right else best + 1)
    ax.text(at, middle, f" {classes[best]}: {p[best]:.0%} ", fontsize=9, ha="right" if right else "left", va="center")


def picture(image: Tensor | np.ndarray) -> np.ndarray:
    """Return an image (C, H, W) as matplotlib takes it: (H, W, 3) of three channels, (H, W), their mean, of others."""
    image = np.asarray(image)
    return image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0)


# --- what it sees ---


def plain(ax: Any, image: Any, colours: Any = "gray", **options: Any) -> None:
    """Show an image without ticks."""
    ax.imshow(np.asarray(image), cmap=colours, **options)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def frame(ax: Any, colour: str) -> None:
    """Put a frame of a colour around."""
    ax.spines[:].set(visible=True, color=colour, linewidth=2.5)


def filters(model: ConvNet) -> Any:
    """Draw the filters of the first convolution as what they weigh in the image, sixteen a row."""
    from matplotlib.colors import LinearSegmentedColormap

    first = next(module for module in model.convolutions if isinstance(module, Convolution))
    patch = getattr(model.convolutions[0], "downscale_factor", 1)
    w = F.pixel_shuffle(first.filters().detach(), patch).numpy()  # (K, C, S, S) as the pixels lie
    shown, channels = w[:48], w.shape[1]
    columns = min(16, len(shown))
    lines = [shown[i : i + columns, c] for i in range(0, len(shown), columns) for c in range(channels)]
    figure, axes = figures.new(len(lines) * 0.52 + 0.6, len(lines), columns, squeeze=False)
    colours = LinearSegmentedColormap.from_list("signed", [OTHER, "white", SAME])
    largest = float(abs(w).max())
    names = ["red", "green", "blue"] if channels == 3 else [""] * channels
    for i, (line, tiles) in enumerate(zip(axes, lines, strict=True)):
        for ax in line[len(tiles) :]:
            ax.axis("off")
        for ax, tile in zip(line, tiles, strict=False):
            plain(ax, tile, colours, vmin=-largest, vmax=largest)
            ax.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.6)
        line[0].set_ylabel(names[i % channels], fontsize=8, rotation=0, ha="right", va="center")
    several = f" ({len(shown)} of {len(w)})" if len(shown) < len(w) else ""
    figure.suptitle(
        f"Filters of the first convolution{several}: white is 0, blue positive, orange negative", fontsize=10
    )
    return figure


def ends_of_stages(model: ConvNet) -> list[int]:
    """Return how many modules of `convolutions` come before each pooling."""
    return [i for i, module in enumerate(model.convolutions) if isinstance(module, nn.MaxPool2d)]


def in_batches(x: np.ndarray) -> Iterator[Tensor]:
    """Yield the images of x, some at a time."""
    yield from (torch.from_numpy(x[i : i + BATCH]) for i in range(0, len(x), BATCH))


@torch.no_grad()
def feature_maps(model: ConvNet, x: Tensor, n: int) -> Any:
    """Draw maps at the end of each stage for images x: a row an image, the same channels down a column.

    The channels are those whose largest value differs most from image to image.
    """
    ends = ends_of_stages(model)
    rows, columns = len(x), 1 + sum(min(n, model.convolutions[:end](x[:1]).shape[1]) for end in ends)
    each = figures.WIDTH / columns
    figure, axes = figures.new(rows * min(each, 0.75) + 0.5, rows, columns, squeeze=False)
    for ax, image in zip(axes[:, 0], x, strict=True):
        plain(ax, picture(image), vmin=0, vmax=1)
    axes[0, 0].set_title("image", fontsize=9)
    at = 1
    for stage, end in enumerate(ends, 1):
        maps = model.convolutions[:end](x)
        peaks = maps.amax((2, 3))
        taken = peaks.std(0, correction=0).topk(min(n, peaks.shape[1])).indices.sort().values
        for j, channel in enumerate(taken.tolist()):
            top = float(peaks[:, channel].max())
            for i in range(rows):
                plain(axes[i, at + j], maps[i, channel], "Blues", vmin=0, vmax=max(top, 1e-9))
                axes[i, at + j].spines[:].set(visible=True, color="#dddddd", linewidth=0.6)
            axes[0, at + j].set_title((f"stage {stage}\nchannel " if j == 0 else "") + str(channel), fontsize=8)
        at += len(taken)
    figure.suptitle("What channels at the end of each stage answer, the darker the more", fontsize=10)
    return figure


@torch.no_grad()
def exciting(model: ConvNet, layers: list[Layer], x: np.ndarray, config: Config) -> Any:
    """Draw the training images that excite a channel most, and where: a row a channel, the most exciting first."""
    from matplotlib.patches import Rectangle

    ends = ends_of_stages(model)
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in ends]  # of each stage: peaks, their places
    for batch in in_batches(x):
        h = batch
        for k, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            h = model.convolutions[begin:end](h)
            found[k].append(h.flatten(2).max(2))
    rows = [(k, c) for k in range(len(ends)) for c in spread(torch.cat([p for p, _ in found[k]]), config.channels)]
    columns = min(config.exciting, len(x))
    figure, axes = figures.new(
        len(rows) * min(figures.WIDTH / (columns + 1), 0.75) + 0.5, len(rows), columns, squeeze=False
    )
    for line, (k, channel) in zip(axes, rows, strict=True):
        layer = next(layer for layer in layers if layer.ends == ends[k])
        assert layer.field is not None and layer.step is not None
        peaks, places = (torch.cat([part[i][:, channel] for part in found[k]]) for i in (0, 1))
        for ax, i in zip(line, peaks.topk(columns).indices.tolist(), strict=True):
            plain(ax, picture(x[i]), vmin=0, vmax=1)
            row, column = divmod(int(places[i]), layer.shape[2])
            top, left = (centre(n, layer) - layer.field / 2 - 0.5 for n in (row, column))
            h, w = x.shape[2:]
            y0, x0 = max(top, -0.5), max(left, -0.5)
            y1, x1 = min(top + layer.field, h - 0.5), min(left + layer.field, w - 0.5)
            ax.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=OTHER, linewidth=1.6, clip_on=False)
            )
        line[0].set_ylabel(f"stage {k + 1}\nchannel {channel}", fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle("Training images that excite a channel most, and the pixels that it sees there", fontsize=10)
    return figure


def spread(peaks: Tensor, n: int) -> list[int]:
    """Return n channels of peaks (N, K), evenly from the one that differs least among images to the most; none dead."""
    deviation = peaks.std(0, correction=0)
    order = deviation.argsort()
    alive = order[deviation[order] > 0]
    if len(alive) == 0:
        return order[:1].tolist()
    return alive[torch.linspace(0, len(alive) - 1, min(n, len(alive))).round().long()].sort().values.tolist()


def centre(i: int, layer: Layer) -> float:
    """Return the middle, counted in pixels from the image's edge, of what place i of a layer depends on."""
    assert layer.step is not None
    return (i + 0.5) * layer.step


def grad_cam(model: ConvNet, x: Tensor, c: Tensor) -> Tensor:
    """Return where in images x (N, C, H, W) the evidence for classes c (N,) stands, (N, H, W), none negative.

    Selvaraju et al., "Grad-CAM", 2017, eq. 1 and 2: the last maps before pooling, each weighted by the mean of its
    gradient of the class's logit; what is negative is left out; interpolated to the size of the image.
    """
    last = ends_of_stages(model)[-1]
    maps = model.convolutions[:last](x).detach().requires_grad_()
    logits = model.head(model.fully_connected(model.convolutions[last:](maps)))
    (gradient,) = torch.autograd.grad(logits.gather(1, c[:, None]).sum(), maps)
    evidence = F.relu((gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True))
    return F.interpolate(evidence, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def class_activation(model: ConvNet, x: Tensor, y: np.ndarray, classes: list[str]) -> Any:
    """Draw images, and on each the evidence for the class that it most probably is and for the second."""
    p = model.predict_proba(x)
    first = p.topk(2).indices
    height = 3 * figures.WIDTH / max(len(x), 6) + 0.9
    figure, axes = figures.new(height, 3, len(x), squeeze=False)
    for i, image in enumerate(x):
        plain(axes[0, i], picture(image), vmin=0, vmax=1)
        axes[0, i].set_title(classes[y[i]], fontsize=8)
    for rank in (0, 1):
        evidence = grad_cam(model, x, first[:, rank])
        for i, image in enumerate(x):
            ax = axes[1 + rank, i]
            plain(ax, picture(image), vmin=0, vmax=1)
            ax.imshow(evidence[i].numpy(), cmap="viridis", alpha=0.65, vmin=0, vmax=max(float(evidence[i].max()), 1e-9))
            c = int(first[i, rank])
            ax.set_title(f"{classes[c]}\n{p[i, c]:.1%}", fontsize=8)
    for ax, text in zip(axes[:, 0], ("image", "evidence for\nthe first", "for the\nsecond"), strict=True):
        ax.set_ylabel(text, fontsize=9, rotation=0, ha="right", va="center")
    figure.suptitle("Grad-CAM: where the evidence for a class stands, yellow most", fontsize=10)
    return figure


def neighbors(
    loaded: "Loaded",
    train: dict[str, np.ndarray],
    validation: dict[str, np.ndarray],
    chosen: np.ndarray,
    k: int,
    classes: list[str],
) -> Any:
    """Draw the nearest training images of each chosen one, by the features that the head sees and by the pixels."""
    asked = np.union1d(chosen, one_of_each(validation["y"], 1000))
    spaces = {
        "by features": [loaded.apply("features", part) for part in (train["x"], validation["x"][asked])],
        "by pixels": [part.reshape(len(part), -1) for part in (train["x"], validation["x"][asked])],
    }
    nearest = {name: closest(seen, new, k) for name, (seen, new) in spaces.items()}
    rows = np.searchsorted(asked, chosen)
    size = min(0.62, figures.WIDTH / (2 * k + 2.6))
    figure, axes = figures.new(len(rows) * (size + 0.06) + 0.95, len(rows), 2 * k + 2, squeeze=False)
    for line, i in zip(axes, rows, strict=True):
        label = validation["y"][asked[i]]
        plain(line[0], picture(validation["x"][asked[i]]), vmin=0, vmax=1)
        line[0].set_ylabel(classes[label], fontsize=9, rotation=0, ha="right", va="center")
        line[k + 1].axis("off")
        for start, found in zip((1, k + 2), nearest.values(), strict=True):
            for ax, j in zip(line[start : start + k], found[i], strict=True):
                plain(ax, picture(train["x"][j]), vmin=0, vmax=1)
                frame(ax, SAME if train["y"][j] == label else OTHER)
    for start, (name, found) in zip((1, k + 2), nearest.items(), strict=True):
        right = (train["y"][found] == validation["y"][asked][:, None]).mean()
        axes[0, start + k // 2].set_title(f"nearest {name}\n{right:.1%} of the image's class", fontsize=9)
    figure.suptitle(
        f"Neighbours in train of images of validation (shares: of {len(asked)}); blue: same class, orange: another",
        fontsize=10,
    )
    return figure


def closest(train: np.ndarray, asked: np.ndarray, k: int) -> np.ndarray:
    """Return of each row of asked (M, F) the k rows of train (N, F) at the least Euclidean distance, nearest first."""
    half = (train.astype(np.float64) ** 2).sum(1) / 2
    found = []
    for i in range(0, len(asked), BATCH):
        distance = half - asked[i : i + BATCH] @ train.T  # |a - t|^2 / 2, less what all t share
        some = np.argpartition(distance, min(k, len(train) - 1), axis=1)[:, :k]
        order = np.take_along_axis(distance, some, 1).argsort(1, kind="stable")
        found.append(np.take_along_axis(some, order, 1))
    return np.concatenate(found)


def mistakes(loaded: "Loaded", validation: dict[str, np.ndarray], n: int, classes: list[str]) -> Any:
    """Draw the images of validation whose class is held least probable, the worst first."""
    x, y = validation["x"], validation["y"]
    p = loaded.apply("predict_proba", x)
    worst = p[np.arange(len(y)), y].argsort(kind="stable")[:n]
    wrong = int((p.argmax(1) != y).sum())
    columns = min(10 if max(map(len, classes)) < 4 else 5, len(worst))
    rows = -(-len(worst) // columns)
    figure, axes = figures.new(rows * (figures.WIDTH / max(columns, 8) + 0.25) + 0.5, rows, columns, squeeze=False)
    for ax in axes.flat[len(worst) :]:
        ax.axis("off")
    for ax, i in zip(axes.flat, worst, strict=False):
        plain(ax, picture(x[i]), vmin=0, vmax=1)
        taken = int(p[i].argmax())
        frame(ax, SAME if taken == y[i] else OTHER)
        lines = [f"{classes[c]}: {p[i, c]:.0%}" for c in dict.fromkeys((int(y[i]), taken))]
        ax.set_title("\n".join(lines), fontsize=8)
    figure.suptitle(
        f"The least sure of {len(y)} validation images, of which {wrong} are taken for another class (orange).\n"
        "Above each: its class and how probable it is held; below that what it is taken for instead",
        fontsize=9,
    )
    return figure
