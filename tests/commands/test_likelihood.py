"""Bits per character from one command: the figures evaluation has, known costs by the share hidden, one line a mistake."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genai import __main__ as command_line
from genai import model as models
from genai.commands import likelihood
from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.diffusion.text import autoregressive
from genai.tasks import language_model
from tests import project

NAMES = ["diffusion", "control", "n_gram"]


def rows(printed):
    """Return the numbers of each printed row by its first two columns."""
    lines = [line for line in printed.splitlines() if line[:25].strip() and line[25:49].strip()]
    return {
        (line[:25].strip(), line[25:49].strip()): [float(x) for x in line[49:].replace("±", "").split()]
        for line in lines
        if line[49:].strip()[:1].isdigit() and "windows of" not in line and "share" not in line
    }


def test_of_the_whole_split_it_prints_what_evaluation_measures(here, capsys):
    likelihood.main(NAMES, 10**6, "validation", None)
    found, dataset = rows(capsys.readouterr().out), Dataset(here / "data/text")
    for name, way in (("diffusion", likelihood.BOUND), ("control", likelihood.EXACT), ("n_gram", likelihood.EXACT)):
        loaded = models.load(here / "models" / name)
        metrics, _ = language_model.evaluate(loaded, dataset, "validation")
        assert found[name, way][0] == pytest.approx(metrics[loaded.model.metric], abs=6e-4)
    assert {("xz", likelihood.GIVEN), ("bz2", likelihood.GIVEN), ("diffusion", likelihood.EXACT)} < found.keys()
    for name in NAMES:  # all hidden is the whole
        assert found[name, likelihood.END][-1] == found[name, likelihood.EXACT][0]
    total, error = found["diffusion", likelihood.BOUND]
    assert found["diffusion", likelihood.IN_ANY_ORDER][-1] == pytest.approx(total, abs=6 * error)


def test_no_figure_depends_on_how_windows_are_batched(here, monkeypatch):
    tokens, characters, _ = likelihood.held_out(Dataset(here / "data/text"), "validation", 70)
    assert len(tokens) == 70
    for name in NAMES:
        loaded, measured = models.load(here / "models" / name), []
        for size in (1, 3, 64):
            for module, most in ((models, "BATCH"), (models, "WINDOWS"), (autoregressive, "ROWS")):
                monkeypatch.setattr(module, most, size)
            ways = [way for kind in likelihood.measure(loaded, tokens, characters) for way in kind]
            measured.append(np.hstack([way.bits.reshape(70, -1) for way in ways]))
        for other in measured[1:]:
            np.testing.assert_allclose(other, measured[0], rtol=0 if name == "diffusion" else 1e-6)


def test_windows_are_evenly_spaced_and_their_characters_are_their_texts(here):
    dataset = Dataset(here / "data/text")
    tokens, characters, text = likelihood.held_out(dataset, "validation", 5)
    every = dataset.arrays("validation")["tokens"]
    np.testing.assert_array_equal(tokens[[0, -1]], every[[0, -1]])
    assert len(tokens) == 5 and text == "".join(dataset.tokenizer.decode(row) for row in tokens.tolist())
    assert characters.shape == tokens.shape and characters.sum() == len(text)


def test_what_is_hidden_costs_what_is_known_of_it():
    """Windows of one letter, repeated: nothing where any of it is seen, else the letter's bits, once or for each."""
    T, V = likelihood.DRAWS, 4  # so that one after the other each number of hidden letters occurs once

    def denoise(tokens, where):
        seen = torch.where(tokens < V, tokens, -1).amax(1)
        logits = torch.zeros(len(tokens), V).masked_fill(torch.arange(V) != seen[:, None], -1e9)
        return torch.where(seen[:, None] < 0, 0.0, logits)[where.nonzero()[:, 0]]

    tokens = np.repeat(np.arange(V), T).reshape(V, T)
    model = SimpleNamespace(denoise=denoise, mask=V)
    letters = np.array(likelihood.counts(T))
    for at_once, all_hidden in ((True, T * math.log2(V)), (False, math.log2(V))):
        bits, characters = likelihood.scattered(model, tokens, np.full_like(tokens, 3), at_once)
        assert characters == pytest.approx(np.tile(3 * letters, (V, 1)))
        assert bits == pytest.approx(np.tile(np.where(letters == T, all_hidden, 0), (V, 1)))


def test_the_error_is_of_a_ratio_by_blocks_of_windows():
    rng = np.random.default_rng(0)
    characters = rng.integers(100, 300, 50)
    exact = likelihood.Measured("m", "w", 2.0 * characters, characters).per_character()
    assert exact == pytest.approx((2.0, 0))
    mean, error = likelihood.Measured("m", "w", rng.exponential(size=900), np.ones(900)).per_character()
    assert mean == pytest.approx(1, abs=0.15) and error == pytest.approx(1 / 30, rel=0.35)


def test_a_compressor_that_was_given_the_text_needs_little_for_it_and_no_more_for_much_before():
    assert likelihood.given(b"\xc3\xa9", b"abc", lambda content: content, 10**6) == 24
    rng = np.random.default_rng(0)
    draw = lambda n: bytes(rng.choice(list(b"abcdefgh"), n).astype(np.uint8))  # three bits each
    text = draw(4000)
    for compress, reach in likelihood.COMPRESSORS.values():
        assert 3 * 4000 < likelihood.given(draw(4000), text, compress, reach) < 3.5 * 4000
        assert likelihood.given(text, text, compress, reach) < 0.7 * 3 * 4000
    words = [draw(6) for _ in range(200)]
    say = lambda n: b"".join(words[i] for i in rng.integers(200, size=n))
    train, text = say(150_000), say(500)  # 900,000 bytes: with them the text would stand in another block of bz2's
    compress, reach = likelihood.COMPRESSORS["bz2"]
    assert likelihood.given(train, text, compress, reach) < 0.8 * likelihood.given(train, text, compress, 10**9)
    assert likelihood.given(b"x" * 50, b"y" * 60, lambda content: content, 40) == 8 * 60


def test_it_draws_where_asked_and_reads_test_only_when_asked(here, tmp_path, capsys):
    (here / "data/text/test.txt").rename(here / "data/text/away")
    try:
        likelihood.main(NAMES, 4, "validation", str(tmp_path / "share.png"))
        assert (tmp_path / "share.png").read_bytes().startswith(b"\x89PNG")
        assert capsys.readouterr().out.endswith("share.png\n")
        with pytest.raises(UserError, match=r"test.txt: missing"):
            likelihood.main(["n_gram"], 4, "test", None)
    finally:
        (here / "data/text/away").rename(here / "data/text/test.txt")


@pytest.mark.parametrize(
    ("names", "windows", "line"),
    [
        (["n_gram"], 1, "--windows: 1 should be at least 2"),
        (["n_gam"], 4, "models/n_gam: no trained model here"),
        (["n_gram", "mean"], 4, "mean: its task is regression; this takes language models"),
        (["n_gram", "other"], 4, "other: its data, 'novels', should be n_gram's, 'text'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(here, names, windows, line):
    if "mean" in names:
        project.finish(here, "mean", scores=np.zeros(3))
    if "other" in names:
        project.finish(here, "other", **project.N_GRAM | {"data": "novels"}, scores=np.zeros(3))
    with pytest.raises(UserError, match=line):
        likelihood.main(names, windows, "validation", None)


def test_the_command_line():
    given = vars(command_line.parser().parse_args(["likelihood", "a", "b", "--split", "test", "--out", "x.png"]))
    assert given.pop("command") == "likelihood"
    assert given == {"names": ["a", "b"], "windows": 64, "split": "test", "out": "x.png"}
