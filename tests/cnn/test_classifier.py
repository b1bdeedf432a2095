"""The ConvNet: its shapes from the data, its shift and its layers held to what they should be."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genai.cnn.classifier import ConvNet, Convolution, flipped, shifted
from genai.core.dataset import Description


def description(*shape, n_classes=4):
    return Description(kind="images", shape=list(shape), classes=[str(c) for c in range(n_classes)])


def convnet(shape=(1, 8, 8), seed=0, **config):
    torch.manual_seed(seed)
    return ConvNet(ConvNet.Config(**{"channels": [4, 6], "n_features": 5} | config), description(*shape))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 5)])
def test_takes_its_shape_from_the_data(shape):
    model, x = convnet(shape), torch.rand(7, *shape)
    model.loss({"x": x, "y": torch.arange(7) % 4}).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    model.eval()
    assert model.features(x).shape == (7, 5)
    p = model.predict_proba(x)
    assert p.shape == (7, 4)
    torch.testing.assert_close(p.sum(1), torch.ones(7))
    torch.testing.assert_close(p, model.head(model.features(x)).softmax(1))


def test_a_convolution_is_the_sum_over_its_window_by_hand():
    model, x = convnet(), torch.rand(2, 1, 8, 8)
    w = model.convolutions[0].filters().detach().numpy()
    padded = np.pad(x.numpy()[:, 0], ((0, 0), (1, 1), (1, 1)))
    expected = sum(
        w[:, 0, i, j][None, :, None, None] * padded[:, None, i : i + 8, j : j + 8] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(model.convolutions[0](x).detach(), expected, atol=1e-6)


def test_batch_normalisation_standardises_each_channel_over_the_batch():
    model, x = convnet(), torch.rand(16, 1, 8, 8)
    h = model.convolutions[:2](x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(h.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(h.var(1, correction=0), torch.ones(4), atol=1e-2, rtol=0)


def test_shift_moves_each_image_whole_and_every_way_equally_often():
    torch.manual_seed(0)
    x = torch.zeros(9000, 2, 5, 7)
    x[:, :, 2, 3] = torch.tensor([1.0, 2.0])
    moved = shifted(x, 1)
    assert moved.shape == x.shape
    torch.testing.assert_close(moved[:, 1], 2 * moved[:, 0])  # channels move together
    positions = moved[:, 0].flatten(1).argmax(1)
    counts = torch.bincount(positions, minlength=35).reshape(5, 7)
    assert counts[1:4, 2:5].sum() == 9000
    assert ((counts[1:4, 2:5] - 1000).abs() < 150).all()  # five standard deviations


def test_shift_agrees_with_padding_and_cropping():
    x = torch.rand(50, 3, 6, 6)
    torch.manual_seed(3)
    moved = shifted(x, 2)
    padded = F.pad(x, [2] * 4)
    for image, candidates in zip(moved, padded, strict=True):
        crops = [candidates[:, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
        assert sum(torch.equal(image, crop) for crop in crops) == 1


def test_convolution_is_torchs_and_its_weight_the_matrix_of_its_windows():
    torch.manual_seed(0)
    layer, x = Convolution(3, 5), torch.rand(2, 3, 6, 4)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.filters(), padding=1))
    windows = F.unfold(x, 3, padding=1).unflatten(1, (3, 9)).transpose(1, 2).flatten(1, 2)  # (N, 9 C, H W)
    torch.testing.assert_close(layer(x).flatten(2), layer.weight @ windows)


def test_flip_mirrors_whole_images_half_of_them():
    torch.manual_seed(0)
    x = torch.rand(4000, 2, 3, 4)
    moved = flipped(x)
    mirrored = (moved == x.flip(3)).flatten(1).all(1)
    assert ((moved == x).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.04  # five standard deviations


def test_where_training_mirrors_an_image_and_its_mirror_image_are_one():
    x = torch.rand(6, 1, 8, 8)
    for flip in (True, False):
        model = convnet(flip=flip).eval()
        same = torch.allclose(model.predict_proba(x), model.predict_proba(x.flip(3)), atol=1e-6)
        assert same == flip
    logits = convnet(flip=True).eval()
    torch.testing.assert_close(
        logits.predict_proba(x).log(), ((logits(x) + logits(x.flip(3))) / 2).log_softmax(1), atol=1e-5, rtol=0
    )


def test_patches_become_the_channels_of_the_first_convolution():
    model, x = convnet((1, 8, 8), patch=2), torch.rand(3, 1, 8, 8)
    assert model.convolutions[1].filters().shape == (4, 4, 3, 3)
    patches = model.convolutions[0](x)
    torch.testing.assert_close(patches[:, 1], x[:, 0, ::2, 1::2])
    assert model.convolutions(x).shape == (3, 6, 1, 1)


def test_augmentation_and_smoothing_act_in_training_only():
    model, batch = convnet(shift=1, label_smoothing=0.2), {"x": torch.rand(8, 1, 8, 8), "y": torch.arange(8) % 4}
    model.eval()
    expected = F.cross_entropy(model(batch["x"]), batch["y"])
    torch.testing.assert_close(model.loss(batch), expected)
    model.train()
    torch.manual_seed(0)
    assert model.loss(batch) != model.loss(batch)


def test_learns_to_tell_bars_apart_wherever_they_stand():
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (256,), generator=rng)
    x = 0.2 * torch.rand(256, 1, 8, 8, generator=rng)
    for image, label, at in zip(x, y, torch.randint(0, 8, (256,), generator=rng), strict=True):
        (image[0, at] if label else image[0, :, at]).fill_(1)
    model = convnet(shift=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss({"x": x[:192], "y": y[:192]}).backward()
        optimizer.step()
    assert (model.eval().predict_proba(x[192:]).argmax(1) == y[192:]).float().mean() > 0.95


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"channels": [4] * 4}, "channels: 4 stages should be at most 3 for images of 8 x 8"),
        ({"shift": 8}, "shift: 8 should be less"),
        ({"patch": 3}, "patch: 3 should divide the images' 8 x 8"),
        ({"patch": 4}, "channels: 2 stages should be at most 1 for images of 2 x 2"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        convnet(**config)
