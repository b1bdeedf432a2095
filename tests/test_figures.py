"""What several figures draw, against what must hold: projections, what is unusual, colours that differ, equal bytes."""

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from genai import figures
from genai.core.dataset import Column, Description

RNG = np.random.default_rng(0)


def test_a_plane_is_that_of_the_first_two_principal_components():
    x = RNG.normal(size=(60, 5)) * [5, 3, 1, 0.5, 0.1] + 7
    plane, oracle = figures.Plane(x), PCA(2, svd_solver="full").fit(x)
    assert np.abs(plane.project(x)) == pytest.approx(np.abs(oracle.transform(x)), abs=1e-6)
    assert plane.share == pytest.approx(oracle.explained_variance_ratio_.sum())
    points = RNG.normal(size=(9, 2))
    assert plane.project(plane.example(points)) == pytest.approx(points, abs=1e-5)


def test_a_plane_through_some_of_many_examples_is_nearly_that_through_all(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20_000, 5)) * [5, 3, 1, 0.5, 0.1]
    some = figures.Plane(x)
    monkeypatch.setattr(figures, "FITTED", len(x))
    every = figures.Plane(x)
    assert not np.array_equal(some.components, every.components)
    assert np.abs((some.components * every.components).sum(1)) == pytest.approx(1, abs=1e-3)
    assert some.share == pytest.approx(every.share, abs=0.01)
    assert figures.evenly(3, 10).tolist() == [0, 1, 2] and figures.evenly(101, 3).tolist() == [0, 50, 100]


def test_regions_tell_what_is_said_of_the_places_of_points():
    plane = figures.Plane(RNG.normal(size=(50, 3)) * [4, 2, 0.1])
    points = RNG.normal(size=(20, 2))
    _, ax = figures.new(4, width=4)
    said = figures.regions(plane, lambda x: (plane.project(x)[:, 0] > 0).astype(int), ax, points, ["left", "right"])
    assert said.tolist() == (points[:, 0] > 0).astype(int).tolist()
    (image,) = ax.images
    colors = np.unique(image.get_array().reshape(-1, 3), axis=0)
    assert len(colors) == 2 and sorted(text.get_text() for text in ax.texts) == ["left", "right"]


def test_colors_differ_for_normal_and_for_colour_blind_eyes():
    """The palette, as a deuteranope sees it (Viénot, Brettel and Mollon, 1999), in linear RGB."""
    from matplotlib.colors import to_rgb

    deuteranope = np.array([[0.293, 0.707, 0], [0.293, 0.707, 0], [-0.022, 0.022, 1]])
    rgb = np.array([to_rgb(color) for color in figures.PALETTE]) ** 2.2
    for seen in (rgb, rgb @ deuteranope.T):
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 9 * np.eye(len(seen))
        assert distance.min() > 0.1
    assert len(set(figures.COLORS)) == len(figures.COLORS)


def test_the_same_figure_is_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figure, ax = figures.new(2)
        ax.plot([0, 1, 3])
        figures.save(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").size == (880, 220)


def test_what_is_unusual_in_a_row_is_named_with_how_much():
    columns = [Column(name="age", type="number"), Column(name="city", type="category", levels=["Lima", "Oslo"])]
    description = Description(kind="table", shape=[3], columns=columns)
    train = np.array([[0, 0, 0], [2, 1, 0], [0, 0, 0], [2, 1, 1]], np.float32)
    (text,) = figures.unusual(description, np.array([[4.0, 0, 0]], np.float32), train, n=2)
    assert text == "age +3.0,  city is Lima −1.0"
    unnamed = Description(kind="table", shape=[3])
    assert figures.unusual(unnamed, np.array([[1.0, 9, 0]]), train, n=1)[0].startswith("feature 2 +17.0")


@pytest.mark.parametrize(("n", "numbers"), [(3, True), (20, True), (40, False), (100, False)])
def test_a_table_of_counts_shows_numbers_up_to_twenty_classes(n, numbers):
    table, names = np.eye(n, dtype=int) * 3, [f"class {i}" for i in range(n)]
    figure = figures.counts(table, names, names, "class", "prediction", "title")
    assert len(figure.axes[0].texts) == (n if numbers else 0)
    assert figure.get_figwidth() <= figures.WIDTH
    assert figure.axes[0].images[0].get_array().max() == 1  # shares of the row


def test_pictures_stand_under_their_captions(tmp_path):
    x = RNG.random((7, 3, 4, 4))
    description = Description(kind="images", shape=[3, 4, 4], classes=["a", "b"])
    told = {"class": list("abababa"), "confidence": [f"{i} %" for i in range(7)]}
    figure = figures.examples(description, x, x, told, "title")
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert titles == [f"{c}, {i}\N{NO-BREAK SPACE}%" for i, c in enumerate("abababa")]
    figure = figures.pictures(x[:1], ["a class of → another long name, 97 %"], "title")
    assert max(map(len, figure.axes[0].get_title().split("\n"))) <= figures.CAPTION


@pytest.mark.parametrize("names", [list("ab"), ["cat", "a very long name of a class"]])
def test_marks_are_the_names_or_forms_that_a_legend_tells(names):
    _, ax = figures.new(4, width=4)
    kind = np.arange(10) % 2
    figures.mark(ax, RNG.normal(size=(10, 2)), kind, kind, names)
    if names == ["a", "b"]:
        assert [text.get_text() for text in ax.texts] == ["a", "b"] * 5
    else:
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "a very long n…"]
