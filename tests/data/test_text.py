"""Preparation of text: what normalisation does, splits without shared paragraphs, a tokenizer that loses nothing."""

from pathlib import Path

import numpy as np
import pytest

from genai.core.config import UserError, validate
from genai.core.dataset import Dataset
from genai.data import python_reference, shakespeare, text, text_file
from genai.data.download import MIRROR, checksum

WORDS = ["alpha", "beta", "gamma", "delta", "naïve", "日本語", "🙂", "tab\there", "x  y", "end."]


def story(n=400, seed=0):
    """Distinct paragraphs of words of several scripts."""
    rng = np.random.default_rng(seed)
    return "\n\n".join(f"{i}: " + " ".join(rng.choice(WORDS, 12)) for i in range(n))


def config(cls=text.TextConfig, **changes):
    return cls(**{"vocabulary_size": 300, "window": 16, "validation": 0.1, "test": 0.1, "seed": 0} | changes)


def test_normalise():
    assert text.normalise("\ufeffa \r\nb\t\r\rc\n\n\n\nd\x00\x0ce\tf\n\n") == "a\nb\n\nc\n\nde\tf"


def test_pieces_keep_every_distinct_paragraph_once_in_order():
    assert text.pieces("one\n\ntwo\n\none\n\n  two \n\nthree") == ["one\n\n", "two\n\n", "three\n\n"]


@pytest.mark.parametrize("separator", ["\n", " ", ""])
def test_a_paragraph_longer_than_a_block_is_cut_and_loses_nothing(separator):
    long = separator.join(f"{i:07d}" for i in range(5000))
    parts = text.pieces(long)
    assert "".join(parts) == long + "\n\n"
    assert max(map(len, parts)) <= text.BLOCK + 2
    assert all(part.endswith(separator) for part in parts[:-1])


def test_blocks_are_contiguous_and_of_the_size_said():
    parts = text.pieces(story())
    pages = text.blocks(parts)
    assert "".join(pages) == "".join(parts)
    assert all(text.BLOCK <= len(page) < text.BLOCK + max(map(len, parts)) for page in pages[:-1])


def test_splits_share_no_paragraph_and_lose_none(tmp_path):
    paragraphs = story().split("\n\n")
    text.write("\n\n".join(paragraphs + paragraphs[:50]), config(), tmp_path, "# card")
    splits = {split: (tmp_path / f"{split}.txt").read_text() for split in ("train", "validation", "test")}
    found = [text.key(p) for content in splits.values() for p in content.split("\n\n")]
    assert len(found) == len(set(found)) and set(found) == {text.key(p) for p in paragraphs}
    assert 0.05 < len(splits["test"]) / len(story()) < 0.2


def test_a_paragraph_in_two_splits_is_refused():
    with pytest.raises(UserError, match="'same  *one' stands in train and in test"):
        text._refuse_shared_paragraphs({"train": "a\n\nsame\none", "test": "same one\n\nb"}, "datasets.x")


def test_the_tokenizer_gives_back_any_text_even_of_bytes_it_never_saw(tmp_path):
    text.write(story(), config(), tmp_path, "# card")
    tokenizer = Dataset(tmp_path).tokenizer
    for sample in [
        " leading",
        "trailing \n",
        "\t\t\n\n\n",
        "Ελληνικά",
        "👩‍👩‍👧 é e\u0301",
        "\x00\x7f",
        "".join(map(chr, range(32, 1000))),
    ]:
        assert tokenizer.decode(tokenizer.encode(sample).ids, skip_special_tokens=False) == sample


def test_preparing_twice_gives_the_same_bytes_and_another_seed_another_split(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        (tmp_path / name).mkdir()
        text.write(story(), config(seed=seed), tmp_path / name, "# card")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["card.md", "description.json", "test.txt", "tokenizer.json", "train.txt", "validation.txt"]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert (tmp_path / "a/test.txt").read_bytes() != (tmp_path / "c/test.txt").read_bytes()


def test_the_description_fits_the_tokens(tmp_path):
    text.write(story(), config(), tmp_path, "# card")
    data = Dataset(tmp_path)
    assert data.description.vocabulary_size == data.tokenizer.get_vocab_size() == 300
    for split in ("train", "validation", "test"):
        tokens = data.arrays(split)["tokens"]
        assert tokens.shape[1] == 16 and tokens.min() >= 0 and tokens.max() < 300


@pytest.mark.parametrize(
    ("content", "changes", "line"),
    [
        ("too short", {}, "datasets.mine: 9 characters of text are too few"),
        (story(), {"window": 4096}, "datasets.mine.window: 4096 tokens are more than the validation split has"),
    ],
)
def test_too_little_text_is_one_line_and_writes_nothing(tmp_path, content, changes, line):
    directory = tmp_path / "mine"
    directory.mkdir()
    with pytest.raises(UserError, match=line):
        text.write(content, config(**changes), directory, "# card")
    assert list(directory.iterdir()) == []


def test_impossible_numbers_name_their_field():
    values = config().model_dump()
    for changes, line in [
        ({"vocabulary_size": 256}, "datasets.x.vocabulary_size: 256 should be greater than or equal to 257"),
        ({"validation": 0.6, "test": 0.5}, "validation 0.6 and test 0.5 should leave something"),
        ({"windows": 3}, "datasets.x.windows: unknown key; did you mean window"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(text.TextConfig, values | changes, "datasets.x")


def test_text_file_takes_any_utf8_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(("\ufeff" + story()).replace("\n", "\r\n").encode())
    (tmp_path / "out").mkdir()
    text_file.prepare(config(text_file.Config, path=str(path), sha256=checksum(path)), tmp_path / "out")
    written = (tmp_path / "out/train.txt").read_text()
    assert "\r" not in written and "\ufeff" not in written and "日本語" in written


def test_text_file_says_the_checksum_of_a_changed_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(story())
    with pytest.raises(UserError, match=f"datasets.{tmp_path.name}.sha256: .*its sha256 is {checksum(path)}$"):
        text_file.prepare(config(text_file.Config, path=str(path), sha256="0" * 64), tmp_path)


def test_text_file_refuses_what_is_not_text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"abc\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 3\)"):
        text_file.prepare(config(text_file.Config, path=str(path), sha256=checksum(path)), tmp_path)
    with pytest.raises(UserError, match="No such file"):
        text_file.prepare(config(text_file.Config, path=str(tmp_path / "no"), sha256="0" * 64), tmp_path)
    with pytest.raises(UserError, match="should be a text file"):
        text_file.prepare(config(text_file.Config, path=str(tmp_path), sha256="0" * 64), tmp_path)


def test_python_reference_cleans_a_docstring():
    document = """Return the “naïve” value…

        Indented paragraph,
          with a second line.

    Table
    =====

    +---+---+
    | a | b |
    +---+---+

    >>> 1 + 1
    2

    End."""
    assert python_reference.clean(document) == (
        'Return the "naive" value...\n\nIndented paragraph,\n  with a second line.\n\nTable\n\nEnd.'
    )


def test_python_reference_reads_docstrings_without_importing(tmp_path):
    (tmp_path / "abc.py").write_text(
        '"""Module."""\nraise SystemExit\nclass A:\n    def f(self):\n        """Method."""\n'
    )
    (tmp_path / "not_in_the_library.py").write_text('"""No."""\n')
    (tmp_path / "json" / "tests").mkdir(parents=True)
    (tmp_path / "json" / "tests" / "a.py").write_text('"""No."""\n')
    (tmp_path / "json" / "b.py").write_text('async def f():\n    """Coroutine."""\n')
    assert list(python_reference.docstrings(tmp_path)) == ["Module.", "Method.", "Coroutine."]


def test_python_reference_prepares_offline(tmp_path):
    python_reference.prepare(config(python_reference.Config, vocabulary_size=300, window=128), tmp_path)
    data = Dataset(tmp_path)
    assert len(data.text("train")) > 1_000_000 and data.text("train").isascii()
    assert "iterator" in data.text("test") and ">>>" not in data.text("train")
    assert "CPython" in (tmp_path / "card.md").read_text() or "PyPy" in (tmp_path / "card.md").read_text()


def test_shakespeare_from_the_mirror(tmp_path, monkeypatch):
    mirror = Path(__file__).parents[3] / "shared" / "data"
    if not (mirror / "tinyshakespeare" / "input.txt").is_file():
        pytest.skip("no mirror with tinyshakespeare/input.txt")
    monkeypatch.setenv(MIRROR, str(mirror))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shakespeare.prepare(config(shakespeare.Config, vocabulary_size=512, window=128), tmp_path / "data")
    assert 850_000 < len(Dataset(tmp_path / "data").text("train")) < 1_115_394
