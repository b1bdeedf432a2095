"""Preparation of text: what normalisation does, splits without shared paragraphs, a tokenizer that loses nothing."""

import platform
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from genai.core.config import UserError, validate
from genai.core.dataset import SPLITS, Dataset
from genai.data import python_reference, shakespeare, text
from genai.data.download import MIRROR

WORDS = ["alpha", "beta", "gamma", "delta", "naïve", "日本語", "🙂", "tab\there", "x  y", "end."]


def story(n=400, seed=0):
    """Distinct paragraphs of words of several scripts."""
    rng = np.random.default_rng(seed)
    return "\n\n".join(f"{i}: " + " ".join(rng.choice(WORDS, 12)) for i in range(n))


def stories(n=120):
    """Documents of a few paragraphs, none of which shares words in a row with another."""
    return ["\n\n".join(f"{i} {j} " + " ".join(f"{w}{i}{j}" for w in WORDS[:7]) for j in range(4)) for i in range(n)]


def config(cls=text.TextConfig, **changes):
    return cls(**{"vocabulary_size": 300, "window": 16, "validation": 0.1, "test": 0.1, "seed": 0} | changes)


def test_normalise():
    assert text.normalise("\ufeffa \r\nb\t\r\rc\n\n\n\nd\x00\x0ce\tf\n\n") == "a\nb\n\nc\n\nde\tf"


@pytest.mark.parametrize("separator", ["\n", " ", ""])
def test_a_paragraph_longer_than_a_page_is_cut_and_loses_nothing(separator):
    long = separator.join(f"{i:07d}" for i in range(5000))
    parts = text.paragraphs(long)
    assert "".join(parts) == long + "\n\n"
    assert max(map(len, parts)) <= text.LONGEST + 2
    assert all(part.endswith(separator) for part in parts[:-1])


def test_sections_are_consecutive_lose_nothing_and_end_with_paragraphs():
    whole = text.normalise(story())
    parts = text.sections(story(), config())
    assert "".join(parts) == whole + "\n\n"
    size = max(text.LONGEST, int(0.1 * len(whole) / 4))
    assert all(size <= len(part) < size + text.LONGEST + 2 and part.endswith("\n\n") for part in parts[:-1])


def test_documents_are_dealt_whole_and_by_their_share_of_the_characters():
    lengths = np.random.default_rng(0).integers(500, 3000, 300).tolist()
    dealt = text.deal(lengths, config(validation=0.05, test=0.2))
    held = {split: sum(n for n, d in zip(lengths, dealt, strict=True) if d == split) / sum(lengths) for split in dealt}
    assert held["test"] == pytest.approx(0.2, rel=0.1) and held["validation"] == pytest.approx(0.05, rel=0.1)


def test_a_document_larger_than_a_split_goes_to_training():
    dealt = text.deal([10_000] + [100] * 60, config())
    assert dealt[0] == "train" and {"validation", "test"} <= set(dealt)


def test_no_document_stands_in_two_splits_and_none_is_lost(tmp_path):
    documents = stories()
    text.write(documents, config(), tmp_path, "# card")
    splits = {split: (tmp_path / f"{split}.txt").read_text() for split in ("train", "validation", "test")}
    for i, document in enumerate(documents):
        assert sum(text.normalise(document) in content for content in splits.values()) == 1, i
    assert 0.05 < len(splits["test"]) / sum(map(len, documents)) < 0.2


def test_near_duplicates_are_dropped_from_what_is_learned_from_and_not_from_what_is_measured():
    said = "one two three four five six seven eight nine"
    copy = "He said: One, two,\nthree four five six SEVEN eight. Then he left."
    fine = "one two three four five six seven and then something else"
    documents = {
        "train": [[copy, fine, "other"], ["end", copy]],  # of the second document nothing is left
        "validation": [[copy, "more"]],
        "test": [[said, said, "end"]],
    }
    kept = text.without_copies(documents)
    assert kept == {"train": [[fine, "other"], []], "validation": [["more"]], "test": [[said, "end"]]}


def test_the_overlap_is_what_a_search_word_by_word_finds():
    rng = np.random.default_rng(0)
    draw = lambda n: "\n\n".join(" ".join(rng.choice(list("abc"), rng.integers(5, 30))) for _ in range(n))
    train, test = draw(40), draw(15)
    stream = f" {' '.join(train.split())} "
    runs = lambda words, n: [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    long = [p.split() for p in test.split("\n\n") if len(p.split()) >= 8]
    near = np.mean([any(f" {run} " in stream for run in runs(p, 8)) for p in long])
    words = test.split()
    copied = {j for i, run in enumerate(runs(words, 13)) if f" {run} " in stream for j in range(i, i + 13)}
    assert text.overlap(test, train) == (pytest.approx(near), pytest.approx(len(copied) / len(words)))


def test_named_documents_are_found_where_they_begin(tmp_path):
    documents = stories()
    documents.insert(5, "")  # nothing is left of it
    names = [f"story {i}" for i in range(len(documents))]
    text.write(documents, config(), tmp_path, "# card", names)
    data, found = Dataset(tmp_path), {}
    for split in SPLITS:
        content, begins = data.text(split), data.documents(split)
        ends = [*begins.values(), len(content) + 1][1:]
        found |= {name: content[b : e - 2] for (name, b), e in zip(begins.items(), ends, strict=True)}
    assert found == {n: text.normalise(d) for n, d in zip(names, documents, strict=True) if d}


def test_a_text_without_names_says_so(tmp_path):
    text.write(stories(), config(), tmp_path, "# card")
    with pytest.raises(UserError, match="documents.json: missing or damaged; the documents of this text have no names"):
        Dataset(tmp_path).documents("test")


def test_the_card_tells_the_overlap_before_and_after(tmp_path):
    documents = stories()
    documents += [document + " and once more" for document in documents[:40]]  # of some, a copy in another split
    text.write(documents, config(seed=3), tmp_path, "# card")
    for split in ("test", "validation"):
        near, _ = text.overlap((tmp_path / f"{split}.txt").read_text(), (tmp_path / "train.txt").read_text())
        assert near == 0
    card = (tmp_path / "card.md").read_text()
    shares = re.findall(
        r"^\| (\w+) \| (\w+) \| ([\d.]+)% \| ([\d.]+)% \| ([\d.]+)% \| ([\d.]+)% \|$", card, re.MULTILINE
    )
    assert [row[:2] for row in shares] == [("validation", "train"), ("test", "train"), ("validation", "test")]
    dealt = text.deal(list(map(len, documents)), config(seed=3))
    raw = {s: "\n\n".join(d for d, split in zip(documents, dealt, strict=True) if split == s) for s in SPLITS}
    for split, other, *numbers in shares:
        before = text.overlap(raw[split], raw[other])
        assert numbers == [f"{before[0]:.2%}"[:-1], "0.00", f"{before[1]:.2%}"[:-1], "0.00"]
    assert max(float(row[2]) for row in shares) > 0


def test_the_tokenizer_gives_back_any_text_even_of_bytes_it_never_saw(tmp_path):
    text.write(stories(), config(), tmp_path, "# card")
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
        text.write(stories(), config(seed=seed), tmp_path / name, "# card")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["card.md", "description.json", "test.txt", "tokenizer.json", "train.txt", "validation.txt"]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert (tmp_path / "a/test.txt").read_bytes() != (tmp_path / "c/test.txt").read_bytes()


def test_the_description_fits_the_tokens(tmp_path):
    text.write(stories(), config(), tmp_path, "# card")
    data = Dataset(tmp_path)
    assert data.description.vocabulary_size == data.tokenizer.get_vocab_size() == 300
    for split in ("train", "validation", "test"):
        tokens = data.arrays(split)["tokens"]
        assert tokens.shape[1] == 16 and tokens.min() >= 0 and tokens.max() < 300


@pytest.mark.parametrize(
    ("content", "changes", "line"),
    [
        (["too short"], {}, "datasets.mine: 1 documents of 9 characters leave none for the .* split; give more"),
        (stories(), {"window": 4096}, "datasets.mine.window: 4096 tokens are more than the validation split has"),
        (["aaaa"] * 60, {}, "datasets.mine: every paragraph of the train split's [0-9]+ documents repeats what stands"),
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
        ({"validation": 0.0}, "datasets.x.validation: 0.0 should be greater than 0"),
        ({"test": 0.5}, "datasets.x.test: 0.5 should be less than 0.5"),
        ({"windows": 3}, "datasets.x.windows: unknown key; did you mean window"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(text.TextConfig, values | changes, "datasets.x")


def test_a_file_of_ones_own_may_be_any_utf8(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(("\ufeff" + story()).replace("\n", "\r\n").encode())
    (tmp_path / "out").mkdir()
    text.prepare(config(text.Config), tmp_path / "out", path)
    written = (tmp_path / "out/train.txt").read_text()
    assert "\r" not in written and "\ufeff" not in written and "日本語" in written


def splits_of(folder, documents):
    """Return the split in which each document's first line stands, each in one."""
    texts = {split: (folder / f"{split}.txt").read_text() for split in SPLITS}
    found = [[s for s in SPLITS if document.splitlines()[0] in texts[s]] for document in documents]
    assert all(len(splits) == 1 for splits in found)
    whole = [text.normalise(document) in texts[s] for document, (s,) in zip(documents, found, strict=True)]
    assert all(whole)
    return [s for (s,) in found]


def test_form_feeds_end_the_documents_of_a_file(tmp_path):
    path, documents = tmp_path / "mine.txt", stories()
    path.write_text("\f".join(documents))
    (tmp_path / "out").mkdir()
    text.prepare(config(text.Config), tmp_path / "out", path)
    assert 0 < splits_of(tmp_path / "out", documents).count("test") < 30


def test_each_file_of_a_folder_is_a_document_and_hidden_ones_are_none(tmp_path):
    documents = stories()
    for i, document in enumerate(documents[:-2]):
        path = tmp_path / "texts" / str(i % 3) / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document)
    (tmp_path / "texts" / "last.md").write_text("\f".join(documents[-2:]))
    (tmp_path / "texts" / ".hidden").write_bytes(b"\xff")
    (tmp_path / "out").mkdir()
    text.prepare(config(text.Config), tmp_path / "out", tmp_path / "texts")
    assert set(splits_of(tmp_path / "out", documents)) == set(SPLITS)
    assert "The 119 files of the user's folder" in (tmp_path / "out" / "card.md").read_text()


def test_what_is_not_text_is_refused_by_name_and_byte(tmp_path):
    path = tmp_path / "texts" / "mine.txt"
    path.parent.mkdir()
    path.write_bytes(b"abc\xff")
    for source in (path, path.parent):
        with pytest.raises(
            UserError, match=rf"datasets.{tmp_path.name}.source: .*mine.txt is not UTF-8 text \(byte 3\)"
        ):
            text.prepare(config(text.Config), tmp_path, source)
    path.unlink()
    with pytest.raises(UserError, match="texts holds no file; it should hold texts"):
        text.prepare(config(text.Config), tmp_path, path.parent)
    with pytest.raises(UserError, match="No such file"):
        text.prepare(config(text.Config), tmp_path, path)


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
    assert list(python_reference.docstrings(tmp_path)) == ["Module.\n\nMethod.", "Coroutine."]


def test_python_reference_is_refused_under_another_python():
    line = r"datasets\.x\.python: '3\.2' should be '3\.\d+', the Python that runs this, whose text is the corpus"
    with pytest.raises(UserError, match=line):
        validate(python_reference.Config, config().model_dump() | {"python": "3.2"}, "datasets.x")


def test_python_reference_prepares_offline(tmp_path):
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    python_reference.prepare(config(python_reference.Config, vocabulary_size=300, window=128, python=here), tmp_path)
    data = Dataset(tmp_path)
    assert len(data.text("train")) > 1_000_000 and data.text("train").isascii()
    assert "iterator" in data.text("test") and ">>>" not in data.text("train")
    assert f"{platform.python_implementation()} {here}." in (tmp_path / "card.md").read_text()
    for split in ("validation", "test"):  # was 15 % and 7 % when pages were dealt
        near, verbatim = text.overlap(data.text(split), data.text("train"))
        assert near < 0.005 and verbatim < 0.005


def test_shakespeare_from_the_mirror(tmp_path, monkeypatch):
    mirror = Path(__file__).parents[3] / "shared" / "data"
    if not (mirror / "tinyshakespeare" / "input.txt").is_file():
        pytest.skip("no mirror with tinyshakespeare/input.txt")
    monkeypatch.setenv(MIRROR, str(mirror))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shakespeare.prepare(config(shakespeare.Config, vocabulary_size=512, window=128), tmp_path / "data")
    splits = {split: Dataset(tmp_path / "data").text(split) for split in SPLITS}
    assert 1_100_000 < sum(map(len, splits.values())) < 1_115_394
    assert all(0.09 < len(splits[split]) / 1_115_394 < 0.11 for split in ("validation", "test"))
