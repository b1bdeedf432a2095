"""Prompts and gaps become canvases, and images become grids."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genai.core.config import UserError
from genai.sample import canvas, write_image_grid

# one token a character, its code
tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=[ord(c) for c in text]))


def row(prompt, length=8, window=12):
    return canvas(prompt, tokenizer, length, window)


def test_without_a_prompt_all_is_to_be_written():
    assert row(None) == [-1] * 8


def test_a_prompt_is_continued_to_the_length_and_a_longer_one_to_the_window():
    assert row("abc") == [97, 98, 99] + [-1] * 5
    assert row("abcdefgh") == [ord(c) for c in "abcdefgh"] + [-1] * 4


def test_gaps_stand_where_they_are_marked_and_nothing_is_added():
    assert row("a[[2]]b[[1]]") == [97, -1, -1, 98, -1]


@pytest.mark.parametrize("prompt", ["", "  ", "[[3]]"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(UserError, match="is empty"):
        row(prompt)


@pytest.mark.parametrize(
    ("prompt", "tokens"), [("a" * 12, 12), ("a" * 40, 40), ("a[[30]]", 31), ("ab[[0]]" + "c" * 11, 13)]
)
def test_what_does_not_fit_the_window_is_refused_with_its_length(prompt, tokens):
    with pytest.raises(UserError, match=f"{tokens} tokens .*takes 11"):
        row(prompt)


def test_a_length_beyond_the_window_is_refused():
    with pytest.raises(UserError, match=r"sample\.length: 13 should be at most 12"):
        row("abc", length=13)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_in_its_row_and_column(tmp_path, channels):
    x = np.linspace(0, 1, 6)[:, None, None, None] * np.ones((6, channels, 8, 8))
    write_image_grid(x.reshape(2, 3, channels, 8, 8), tmp_path / "grid.png")
    pixels = np.asarray(Image.open(tmp_path / "grid.png")).reshape(2 * 40, 3 * 40, -1)
    centres = pixels[20::40, 20::40, 0]
    assert centres.ravel().tolist() == np.round(np.linspace(0, 1, 6) * 255).tolist()
