"""What is looked at is what the model does: receptive fields, shapes, evidence, neighbours, held to an oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genai.cnn import look
from genai.cnn.classifier import ConvNet
from genai.core.dataset import Dataset, Description
from genai.model import Loaded
from tests.project import IMAGES, prepare


def convnet(shape=(1, 8, 8), seed=0, **config):
    torch.manual_seed(seed)
    description = Description(kind="images", shape=list(shape), classes=["a", "b", "c", "d"])
    return ConvNet(ConvNet.Config(**{"channels": [4, 6], "n_features": 5} | config), description).eval()


@pytest.mark.parametrize(("shape", "config"), [((1, 28, 28), {"channels": [2, 3]}), ((3, 32, 32), {"patch": 2})])
def test_the_receptive_field_is_where_the_gradient_is_not_zero(shape, config):
    """Of a number in the middle, with weights that cancel nothing; so are its middle and the step to its neighbour."""
    model = convnet(shape, **config)
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.1)
    layers = look.anatomy(model, list(shape))
    for layer in layers[1:-2]:
        assert model.convolutions[: layer.ends](torch.rand(1, *shape)).shape[1:] == layer.shape
        if layer.field + layer.step > min(shape[1:]):  # it would reach over the edge
            continue
        i, j = layer.shape[1] // 2, layer.shape[2] // 2
        x = torch.rand(200, *shape, requires_grad=True)  # pooling hands on one of its inputs: in many images all
        model.convolutions[: layer.ends](x)[:, :, i, j].sum().backward()
        assert x.grad is not None
        seen = x.grad.abs().sum((0, 1)) > 0
        rows, columns = (seen.any(axis).nonzero()[:, 0] for axis in (1, 0))
        for found, place in ((rows, i), (columns, j)):
            assert found[-1] - found[0] + 1 == layer.field
            assert (found[0] + found[-1] + 1) / 2 == look.centre(place, layer)


def test_parameters_and_multiplications_are_all_counted():
    model = convnet((3, 16, 16), channels=[4, 6], patch=2)
    layers = look.anatomy(model, [3, 16, 16])
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in model.parameters())
    by_hand = 8 * 8 * (12 * 4 + 4 * 4) * 9 + 4 * 4 * (4 * 6 + 6 * 6) * 9 + 6 * 2 * 2 * 5 + 5 * 4
    assert sum(layer.products for layer in layers) == by_hand
    assert "| fully connected | 5 | 125 | 120 | all |" in look.table(layers)


def test_grad_cam_is_the_class_activation_map_where_the_head_reads_the_mean_of_the_maps():
    """Selvaraju et al., section 3.1: of a network with global average pooling it is CAM (Zhou et al., 2016), times 1/Z."""
    model, x = convnet(channels=[4, 6], n_features=6), torch.rand(3, 1, 8, 8)
    last = look.ends_of_stages(model)[-1]
    model.convolutions[last] = torch.nn.AvgPool2d(4)  # the last maps are 4 x 4
    model.fully_connected = torch.nn.Flatten()
    c = torch.tensor([0, 3, 1])
    maps = model.convolutions[:last](x)
    cam = torch.einsum("nk,nkij->nij", model.head.weight[c], maps).relu() / 16
    expected = torch.nn.functional.interpolate(cam[:, None], (8, 8), mode="bilinear")[:, 0]
    last_pooling = torch.nn.MaxPool2d(1)  # what grad_cam looks for; it hands on all
    model.convolutions.insert(last, last_pooling)
    torch.testing.assert_close(look.grad_cam(model, x, c), expected)


def test_the_nearest_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    train, asked = rng.normal(size=(400, 5)).astype("f4"), rng.normal(size=(300, 5)).astype("f4")
    distances = ((asked[:, None] - train) ** 2).sum(2)
    np.testing.assert_array_equal(look.closest(train, asked, 3), distances.argsort(1)[:, :3])
    assert look.closest(train[:2], asked, 5).shape == (300, 2)


def test_one_of_each_class_comes_before_a_second():
    y = np.array([2, 2, 0, 1, 0, 2])
    assert look.one_of_each(y, 4).tolist() == [2, 3, 0, 4]
    assert sorted(look.one_of_each(y, 99).tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("description", "config"),
    [
        (IMAGES, {"channels": [4, 6], "n_features": 5}),
        (IMAGES.model_copy(update={"shape": [3, 32, 32], "classes": ["tree frog", *"bcdefghij"]}),
         {"channels": [4, 6, 8], "n_features": 5, "patch": 2, "flip": True}),
    ],
)  # fmt: skip
def test_every_figure_is_drawn_at_page_width_and_again_the_same(tmp_path, description, config):
    dataset = Dataset(prepare(tmp_path, "pictures", description))
    torch.manual_seed(0)
    model = ConvNet(ConvNet.Config(**config), description).eval()
    loaded = Loaded(model, "cnn", None, description, Path())  # type: ignore[arg-type]
    numbers = look.Config(images=3, channels=2, exciting=3, neighbors=2, mistakes=4)
    look.draw(loaded, dataset, numbers, tmp_path / "one")
    pictures = ["architecture", "exciting", "feature_maps", "filters", "grad_cam", "mistakes", "neighbors"]
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"architecture.md", *(f"{name}.png" for name in pictures)}
    if description is IMAGES:
        look.draw(loaded, dataset, numbers, tmp_path / "two")
        assert all((tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in names)
    for name in pictures:
        width, height = Image.open(tmp_path / "one" / f"{name}.png").size
        assert width == 880 and 100 < height < 1500, name
