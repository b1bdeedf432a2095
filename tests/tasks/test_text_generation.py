"""Prompts and gaps become canvases, and drawn texts are set beside real ones."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from genai import model
from genai.core.config import UserError
from genai.tasks import text_generation
from genai.tasks.text_generation import bits_per_character, canvas, distinct, grade
from tests import project

AUTOREGRESSIVE = project.DIFFUSION | {"model": "autoregressive.Autoregressive"}

# one token a character, its code
tokenizer = SimpleNamespace(
    encode=lambda text: SimpleNamespace(ids=[ord(c) for c in text]), decode=lambda ids: "".join(map(chr, ids))
)


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
    ("prompt", "tokens"), [("a" * 12, 12), ("a" * 40, 40), ("a[[12]]", 13), ("ab[[0]]" + "c" * 11, 13)]
)
def test_what_does_not_fit_the_window_is_refused_with_its_length(prompt, tokens):
    with pytest.raises(UserError, match=f"{tokens} tokens .*takes 11"):
        row(prompt)


def test_a_gap_of_any_number_costs_no_memory():
    with pytest.raises(UserError, match="a gap of 10000000000 tokens where the model takes 12"):
        row("a[[10000000000]]")


def test_block_diffusion_writes_more_than_its_window_takes(tmp_path):
    blocks = {"model": "blocks.BlockDiffusion", "settings": project.DIFFUSION["settings"] | {"block": 8}}
    project.finish(tmp_path, "judge", **project.N_GRAM)
    project.finish(tmp_path, "blocks", **(project.DIFFUSION | blocks | {"generator": None}))
    loaded = model.load(tmp_path / "models" / "blocks")
    sampling = loaded.model.Sampling(length=50, steps=50)
    text = text_generation.texts(loaded, loaded.directory, "the file", 1, sampling)[0]
    assert text.startswith("the file")
    ids = text_generation.load_tokenizer(loaded.directory).encode("the file").ids
    row = canvas("the file", text_generation.load_tokenizer(loaded.directory), 50, text_generation.takes(loaded))
    assert len(row) == 50 and row.count(-1) == 50 - len(ids)


def test_a_length_beyond_the_window_is_refused():
    with pytest.raises(UserError, match=r"sampling\.length: 13 should be at most 12"):
        row("abc", length=13)


def test_distinct_2_counts_bigrams_within_texts():
    assert distinct(["a b a b", "c"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) == 0


class Coin:
    """A judge for which an `a` takes one bit and every other character three, whatever stands before."""

    directory, description = None, SimpleNamespace(shape=[4])

    def nats(self, windows):
        assert windows.shape[1] <= 4
        return np.where(windows == ord("a"), 1, 3).sum(1) * np.log(2)


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setattr(text_generation, "load_tokenizer", lambda _: tokenizer)
    return Coin()


def test_bits_per_character_are_those_of_all_characters_with_the_error_of_a_ratio(judge):
    texts = ["aaaaaab", "aab", "bbbbb"]
    mean, error = bits_per_character(judge, texts)
    bits, characters = np.array([9, 5, 15]), np.array([7, 3, 5])
    assert mean == pytest.approx(bits.sum() / characters.sum())
    drawn = np.random.default_rng(0).integers(3, size=(20_000, 3))
    spread = (bits[drawn].sum(1) / characters[drawn].sum(1)).std()
    assert error == pytest.approx(spread, rel=0.35)  # three texts are few for the delta method


def test_drawn_texts_are_graded_beside_as_many_real_ones_of_their_length(judge, tmp_path):
    windows = np.array([[ord(c) for c in "aa a"], [ord(c) for c in "ab b"]] * 3)
    real = SimpleNamespace(arrays=lambda split: {"tokens": windows}, tokenizer=tokenizer)
    (tmp_path / "samples.json").write_text(json.dumps(["bb b", "bb b"]))
    figures = grade(SimpleNamespace(), judge, real, SimpleNamespace(length=3), tmp_path)["test"]
    # real: "aa " and "ab ", every third window of six
    assert figures["judge_bpc"] == 3 and figures["judge_bpc_real"] == pytest.approx((5 + 7) / 6)
    assert figures["judge_gap"] == pytest.approx(1) and figures["texts"] == 2
    assert figures["distinct_2"] == 0.5


def test_text_is_printed_or_written_to_the_file_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(text_generation, "texts", lambda *_: ["a text"])
    loaded = SimpleNamespace(directory=None)
    assert text_generation.generate(loaded, None, "a", None) == "a text"
    assert text_generation.generate(loaded, None, "a", tmp_path / "x.txt") == str(tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text() == "a text\n"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return the folder of what two generators of untrained networks show, with what they recorded."""
    root = tmp_path_factory.mktemp("drawn")
    for name, made in {"filled": project.DIFFUSION, "continued": AUTOREGRESSIVE}.items():
        about = (made[key] for key in ("code", "model", "task", "settings", "description", "data"))
        project.train(root, name, *about, seed=0, steps=3)
        loaded = model.load(root / "models" / name)
        numbers = {"length": 12, "seed": 3} | ({"sampler": "ancestral", "steps": 6} if name == "filled" else {})
        ways = (
            [{"sampler": "threshold", "threshold": 0.5}, {"block": 4}] if name == "filled" else [{"temperature": 2.0}]
        )
        show = {"n": 1, "prompts": ["the"], "replay": ways}
        (root / "samples" / name).mkdir(parents=True)
        text_generation.show(loaded, loaded.model.Sampling(**numbers), show, root / "samples" / name)
    return root / "samples"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_each_way_of_each_prompt_is_recorded_and_the_own_way_writes_what_is_shown(drawn):
    for name, ways in {
        "filled": ["threshold, threshold 0.5", "ancestral, block 4", "ancestral"],
        "continued": ["left_to_right, temperature 2.0", "left_to_right"],
    }.items():
        replay, samples = read(drawn / name / "replay.json"), read(drawn / name / "samples.json")
        told = [(trace["prompt"], trace["way"]) for trace in replay["traces"]]
        assert told == [(prompt, way) for prompt in (None, "the") for way in ways] and replay["name"] == name
        texts = ["".join(trace["tokens"]) for trace in replay["traces"]]
        assert texts[len(ways) - 1 :: len(ways)] == [one["text"] for one in samples]
        assert len({*texts}) == (6 if name == "filled" else 2)  # an untrained network gives all tokens alike
        for trace in replay["traces"]:
            assert trace["given"] == [trace["prompt"] is not None and i < 3 for i in range(12)]
            assert sum(len(event) > 2 for event in trace["events"]) == 12 - sum(trace["given"])


def test_of_the_best_of_several_one_is_recorded(drawn):
    loaded = model.load(drawn.parent / "models" / "filled")
    sampling = loaded.model.Sampling(length=12, seed=3, sampler="ancestral", steps=6, best_of=3)
    one = text_generation.recorded(loaded, sampling, None)
    assert "".join(one["tokens"]) == read(drawn / "filled" / "samples.json")[0]["text"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sampler": "ddim"}, r"generators\.filled\.show\.replay\.0\.sampler: 'ddim' should be"),
        ({"sampler": "threshold", "steps": 4}, r"show\.replay\.0\.steps: 4 should be left out: the sampler threshold"),
    ],
)
def test_a_way_that_cannot_be_is_refused_by_its_place_before_anything_is_drawn(drawn, change, line):
    loaded = model.load(drawn.parent / "models" / "filled")
    sampling = loaded.model.Sampling(length=12, sampler="ancestral", steps=6)
    with pytest.raises(UserError, match=line):
        text_generation.show(loaded, sampling, {"replay": [change]}, drawn / "nowhere")
    assert not (drawn / "nowhere").exists()
