"""Bits per character: totals, their attribution to stretches of text, and an error that knows of neighbours."""

from types import SimpleNamespace

import numpy as np
import pytest

from genai.core.config import UserError
from genai.tasks import language_model
from genai.tasks.language_model import STRETCH, evaluate, figures, moving_blocks, standard_error


def text_of(lengths, size):
    """Return a data set whose tokens have these lengths in characters, and whose windows have `size` tokens."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(len(lengths))
    windows = tokens[: len(tokens) // size * size].reshape(-1, size)
    return SimpleNamespace(arrays=lambda split: {"tokens": windows}, offsets=lambda split: offsets)


def model(nats, metric="bpc"):
    """Return a loaded model for which token i takes nats[i]."""
    return SimpleNamespace(model=SimpleNamespace(metric=metric), nats=lambda windows: nats[windows].sum(1))


RNG = np.random.default_rng(0)


def test_the_figure_is_all_bits_over_all_characters_of_whole_windows():
    lengths, nats = RNG.integers(1, 8, 1003), RNG.exponential(size=1003)
    metrics, _ = evaluate(model(nats), text_of(lengths, 10), "test")
    assert metrics["bpc"] == pytest.approx(nats[:1000].sum() / np.log(2) / lengths[:1000].sum())
    assert metrics["characters"] == lengths[:1000].sum()


def test_a_uniform_model_takes_the_logarithm_of_its_vocabulary():
    """The closed form: with one token a character, log2 V bits each, and no error at all."""
    metrics, columns = evaluate(model(np.full(4000, np.log(32))), text_of(np.ones(4000, int), 8), "validation")
    assert metrics["bpc"] == pytest.approx(5) and metrics["bpc_se"] == pytest.approx(0, abs=1e-12)
    assert columns["score"] == pytest.approx(np.full(4000 // STRETCH, 5.0))


def test_a_split_too_short_for_an_error_is_one_line():
    text = text_of(np.ones(2 * STRETCH - 1, int), 8)
    with pytest.raises(
        UserError, match="data/short/validation.txt: 992 characters in whole windows; an error needs 1000"
    ):
        evaluate(model(np.ones(1000)), SimpleNamespace(**vars(text) | {"directory": "data/short"}), "validation")


def test_stretches_share_out_the_bits_and_lose_none():
    lengths, nats = np.full(6000, 2), RNG.exponential(size=6000)
    metrics, columns = evaluate(model(nats), text_of(lengths, 5), "test")
    assert len(columns["score"]) == 12000 // STRETCH
    assert columns["score"].mean() == pytest.approx(metrics["bpc"])


def test_stretches_are_of_the_same_text_whatever_the_tokenizer():
    """Tokens twice as long, each with the bits of two: the same scores."""
    nats = RNG.exponential(size=6000)
    _, fine = evaluate(model(nats), text_of(np.full(6000, 1), 10), "test")
    _, coarse = evaluate(model(nats.reshape(-1, 2).sum(1)), text_of(np.full(3000, 2), 5), "test")
    np.testing.assert_allclose(fine["score"], coarse["score"])


def test_blocks_are_of_neighbours_and_cover_the_text():
    index = moving_blocks(100, 400, np.random.default_rng(0))
    assert index.shape == (400, 100) and index.min() == 0 and index.max() == 99
    length = 10  # twice 100^(1/3), rounded up
    assert (np.diff(index.reshape(400, -1, length), axis=2) == 1).all()


def test_the_error_of_correlated_stretches_is_their_true_one_and_not_that_of_independent_ones():
    """An autoregressive series of lag-1 correlation 0.4: the mean's variance is (1 + r) / (1 - r) / n."""
    r, n = 0.4, 400
    truth = np.sqrt((1 + r) / (1 - r) / n)
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = np.zeros(n + 50)
        for t in range(1, n + 50):
            x[t] = r * x[t - 1] + rng.normal() * np.sqrt(1 - r**2)
        x = x[50:]
        errors.append(x[moving_blocks(n, 300, rng)].mean(1).std(ddof=1))
    assert np.mean(errors) == pytest.approx(truth, rel=0.12)
    assert np.mean(errors) > 1.25 / np.sqrt(n)  # independent examples would give 1 / sqrt(n)


def test_a_bound_is_named_as_one():
    metrics, _ = evaluate(model(np.ones(2000), "nelbo_bpc"), text_of(np.full(2000, 3), 10), "test")
    assert {"nelbo_bpc", "nelbo_bpc_se"} <= metrics.keys() and "bpc" not in metrics
    assert metrics["nelbo_bpc"] > 0 and language_model.RANKED_BY == ("bpc", "nelbo_bpc")


@pytest.mark.parametrize("n", [300, 20000])
def test_bits_along_the_text_are_drawn_of_short_and_long_texts(tmp_path, n):
    loaded = model(RNG.exponential(size=n))
    loaded.name = "m"
    data = text_of(RNG.integers(1, 8, n), 10)
    metrics, columns = evaluate(loaded, data, "test")
    rows = figures(loaded, data, columns, tmp_path)["bits_per_character"]
    assert [float(bits) for _, bits in rows[1:]] == pytest.approx(columns["score"], rel=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["bits_per_character.png"]
    assert standard_error(columns["score"]) == metrics["bpc_se"]
