"""Prepared data: what is written whole or not at all, splits that share nothing, windows that add up to the text."""

import errno
import os

import numpy as np
import pytest

from genai.core import dataset
from genai.core.config import UserError
from genai.core.dataset import (
    Dataset,
    Description,
    atomic,
    replaced,
    split_indices,
    write_arrays,
    write_json,
    write_text,
)
from genai.data.text import learn_tokenizer

SHARES = {"test": 0.2, "validation": 0.1}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, atomic(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    with replaced(folder) as new:
        assert new.name == "model"  # messages and cards name the data set by it
        (new / "old").touch()
    with pytest.raises(RuntimeError), replaced(folder) as new:
        (new / "half").touch()
        raise RuntimeError
    assert os.listdir(folder) == ["old"]
    with replaced(folder) as new:
        (new / "new").touch()
    assert os.listdir(folder) == ["new"] and os.listdir(tmp_path) == ["model"]


def test_splits_are_a_partition_with_each_class_in_proportion_and_follow_the_seed():
    y = np.repeat([0, 1], [80, 20])
    splits = split_indices(100, SHARES, 0, y)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(100))
    assert {name: (len(i), int(y[i].sum())) for name, i in splits.items()} == {
        "train": (70, 14),
        "validation": (10, 2),
        "test": (20, 4),
    }
    assert np.array_equal(splits["test"], split_indices(100, SHARES, 0, y)["test"])
    assert not np.array_equal(splits["test"], split_indices(100, SHARES, 1, y)["test"])


def test_too_few_examples_for_a_split_are_a_users_mistake():
    with pytest.raises(UserError, match="4 examples leave none for the validation split"):
        split_indices(4, {"test": 0.3, "validation": 0.1}, 0)


def text_data(folder, text, window=4):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    for split in ("train", "validation", "test"):
        write_text(folder / f"{split}.txt", text)
    write_json(folder / "description.json", Description(kind="text", shape=[window], vocabulary_size=256).model_dump())
    return Dataset(folder)


def test_windows_of_text_lie_side_by_side_and_training_ones_everywhere(tmp_path):
    data = text_data(tmp_path, "the first words.")
    windows = data.arrays("test")["tokens"]
    assert [data.tokenizer.decode(w) for w in windows] == ["the ", "firs", "t wo", "rds."]
    assert [data.tokenizer.decode(w) for w in data.arrays("train")["tokens"][:3]] == ["the ", "he f", "e fi"]
    with pytest.raises(UserError, match="3 tokens, fewer than one window of 4"):
        text_data(tmp_path, "abc").arrays("train")


def test_missing_and_damaged_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"not prepared; run: dvc repro prepare@nothing"):
        Dataset(tmp_path / "nothing")
    write_json(tmp_path / "description.json", Description(kind="images", shape=[1, 2, 2], classes=["a"]).model_dump())
    write_arrays(tmp_path / "train.safetensors", {"x": np.zeros((1, 1, 2, 2), np.float32), "y": np.zeros(1, np.int64)})
    assert Dataset(tmp_path).arrays("train")["x"].shape == (1, 1, 2, 2)
    whole = (tmp_path / "train.safetensors").read_bytes()
    (tmp_path / "train.safetensors").write_bytes(whole[:-3])
    with pytest.raises(UserError, match="train.safetensors: missing or damaged"):
        Dataset(tmp_path).arrays("train")
    (tmp_path / "description.json").write_text("{}")
    with pytest.raises(UserError, match="description.json: damaged"):
        Dataset(tmp_path)


@pytest.fixture
def text(tmp_path):
    """A text data set of three scripts, whose tokens are bytes and a few merges."""
    whole = "the naïve 日本語 🙂🙂 text, the text the end\n" * 3
    tokenizer = learn_tokenizer("the text the end the text", 264)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "train.txt").write_text(whole, encoding="utf-8")
    description = Description(kind="text", shape=[4], vocabulary_size=tokenizer.get_vocab_size())
    (tmp_path / "description.json").write_text(description.model_dump_json())
    return Dataset(tmp_path), whole


def test_a_token_begins_at_the_character_after_those_whose_bytes_began_before_it(tmp_path):
    """On random texts of one to four bytes a character; the tokens' bytes are what is counted."""
    rng, alphabet = np.random.default_rng(0), list("the xnd\t\néïñΩд日本語🙂👩\u200d\u0301")
    tokenizer = learn_tokenizer("the text the end 日本語 日本 🙂🙂 naïve é" * 3, 290)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "description.json", Description(kind="text", shape=[4], vocabulary_size=290).model_dump())
    apart = 0
    for length in range(60):
        whole = "".join(rng.choice(alphabet, length))
        write_text(tmp_path / "train.txt", whole)
        data = Dataset(tmp_path)
        n_bytes = [
            len(tokenizer.id_to_token(token)) for token in data.tokens("train")
        ]  # a byte is written as one character
        before = np.append(0, np.cumsum(n_bytes, dtype=np.int64))
        begins = np.append(0, np.cumsum([byte & 0xC0 != 0x80 for byte in whole.encode()], dtype=np.int64))
        np.testing.assert_array_equal(data.offsets("train"), begins[before])
        assert data.offsets("train").dtype == np.int64 and data.offsets("train")[-1] == length
        apart += np.count_nonzero(np.diff(data.offsets("train")) == 0)
    assert apart > 100  # characters whose bytes stand in several tokens were among them


def test_a_text_tokenized_in_parts_has_the_tokens_of_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    pieces = [
        "it's",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "naïve",
        "日本語",
        "🙂",
        "x1",
        "...",
        "\u00a0",
        "\u3000",
        "é",
        "1 000",
    ]
    text = "".join(rng.choice(pieces, 3000))
    tokenizer = learn_tokenizer(text, 400)
    monkeypatch.setattr(dataset, "PART", 10**9)
    ids, offsets = dataset.encode(tokenizer, text)
    assert ids.tolist() == tokenizer.encode(text).ids
    for size in (1, 7, 100):
        monkeypatch.setattr(dataset, "PART", size)
        for whole, parts in zip((ids, offsets), dataset.encode(tokenizer, text), strict=True):
            np.testing.assert_array_equal(whole, parts)
    monkeypatch.setattr(dataset, "PART", 5)
    assert [array.tolist() for array in dataset.encode(tokenizer, "")] == [[], [0]]


def test_a_split_is_encoded_once(text):
    data, _ = text
    assert data.tokens("train") is data.tokens("train") and data.offsets("train") is data.offsets("train")


def test_windows_cut_within_a_character_share_it_out_once(text):
    data, whole = text
    windows = data.arrays("train")["tokens"][::4]
    apart = sum(len(data.tokenizer.decode(window)) for window in windows)
    ends = data.offsets("train")[np.arange(len(windows) + 1) * 4]
    assert np.diff(ends).sum() == ends[-1] <= len(whole) < apart  # decoding each by itself overcounts
