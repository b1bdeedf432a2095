"""Quality per evaluation: what is counted, errors that are known, collapse told from quality, one line a mistake."""

import math

import numpy as np
import pytest
import torch

from genai import __main__ as command_line
from genai import model as models
from genai.commands import quality
from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.diffusion.text.samplers import SAMPLERS

T = 32


@pytest.fixture
def diffusion(here):
    return models.load(here / "models/diffusion")


@pytest.fixture
def judge(here):
    dataset = Dataset(here / "data/text")
    _, rest = quality.windows(dataset, "validation", 12)
    return quality.Judge([models.load(here / "models/n_gram")], models.load(here / "models/control"), dataset, rest)


def test_texts_are_those_of_the_model_and_do_not_depend_on_how_they_are_batched(diffusion, monkeypatch):
    n = quality.ROWS + 2
    sampling = diffusion.model.Sampling(sampler="confidence", steps=3, temperature=1.0, length=T)
    with torch.no_grad():
        whole = diffusion.model.sample(torch.full((n, T), -1), sampling, torch.Generator().manual_seed(0)).numpy()
    for rows in (quality.ROWS, 3, 1):
        monkeypatch.setattr(quality, "ROWS", rows)
        name, tokens, evaluations, _ = quality.sampled(diffusion, "confidence", {"steps": 3}, n, 1.0)
        assert name == "confidence" and evaluations == 3
        np.testing.assert_array_equal(tokens, whole)


def test_samplers_take_about_as_many_evaluations_as_are_wanted_and_none_more_than_they_can(diffusion):
    for sampler in SAMPLERS:
        for wanted in (6, T, 2 * T):
            numbers = quality.turned(diffusion, sampler, wanted, 1.0)
            if sampler in ("first_hitting", "left_to_right") or (wanted > T and sampler not in ("ancestral", "remdm")):
                assert numbers is None
                continue
            name, _, asked, _ = quality.sampled(diffusion, sampler, numbers, quality.PILOT, 1.0)
            assert name.split()[0] == sampler
            if sampler != "remdm" or wanted < T:  # where nothing moves, it asks nothing
                assert asked == pytest.approx(wanted, rel=0.35 if sampler in quality.OWN else 0.15), (sampler, wanted)
    rows = list(quality.token_by_token(diffusion, [], 2, 1.0))
    assert [(name, asked) for name, _, asked, _ in rows] == [("first_hitting", T), ("left_to_right", T)]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=20)
    value, error = quality.jackknife(lambda kept: float(x[kept].mean()), 20)
    assert value == pytest.approx(x.mean()) and error == pytest.approx(x.std(ddof=1) / math.sqrt(20))


def test_the_jackknife_of_an_entropy_is_how_it_varies():
    rng, p = np.random.default_rng(0), np.arange(1, 41) / 820
    draw = lambda: rng.multinomial(60, p, size=32)  # 32 texts of 60 tokens
    found = [
        quality.jackknife(lambda kept, c=c: quality.entropy(c[kept].sum(0)), 32) for c in (draw() for _ in range(60))
    ]
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)


def test_entropy_is_in_bits():
    assert quality.entropy(np.array([3, 3, 0, 3, 3])) == pytest.approx(2)
    assert quality.entropy(np.array([0, 7])) == 0


def test_repetition_is_called_collapse_and_neither_real_text_nor_noise_is(here, judge):
    dataset = Dataset(here / "data/text")
    windows = dataset.arrays("validation")["tokens"]
    real = judge.row("real text", quality.windows(dataset, "validation", 12)[0])
    same = np.tile(windows[5], (12, 1))
    cold = quality.n_gram_texts(judge.judges[0].model, 12, T, 0.01)
    noise = np.random.default_rng(0).integers(256, size=(12, T))
    other = judge.row("other", windows[1::30][:12])
    assert not other.collapsed(real) and not real.collapsed(real)
    assert abs(other.distance[0]) < 4 * other.distance[1] and other.known == (1, 0)
    repeated, wrong = judge.row("repeated", cold), judge.row("noise", noise)
    assert repeated.collapsed(real) and quality.line(repeated, real).endswith(" collapse")
    assert not wrong.collapsed(real) and wrong.bits["n_gram"][0] > 2 * real.bits["n_gram"][0] and wrong.known[0] < 0.5
    assert min(repeated.distance[0], wrong.distance[0]) > 4 * other.distance[1]
    assert judge.row("same", same).distinct[0] < 0.2 * real.distinct[0]


def test_a_text_of_one_symbol_has_no_entropy_and_no_distance(here):
    dataset = Dataset(here / "data/text")
    one = np.full((9, T), 97)
    judge = quality.Judge([models.load(here / "models/n_gram")], models.load(here / "models/control"), dataset, one)
    row = judge.row("a", one)
    assert (row.entropy, row.distance) == ((0, 0), (0, 0)) and row.bits["n_gram"][1] == 0 and not row.collapsed(row)


def test_n_grams_write_by_their_own_probabilities(here):
    n_gram = models.load(here / "models/n_gram").model
    before = np.array([116, 104, 3, 116, 104])
    p = quality.following(n_gram, before)
    assert p.sum() == pytest.approx(1) and quality.following(n_gram, before[:0]).sum() == pytest.approx(1)
    for token in (101, 7):
        assert p[token] == pytest.approx(n_gram.probability(np.append(before, token)[None])[0, -1])
    texts = quality.n_gram_texts(n_gram, 3, 40, 1.0)
    np.testing.assert_array_equal(texts[:2], quality.n_gram_texts(n_gram, 3, 40, 1.0)[:2])
    cold = quality.n_gram_texts(n_gram, 3, 40, 0.01)
    assert n_gram.nats(cold).sum() < n_gram.nats(texts).sum()
    assert n_gram.nats(texts).sum() / 120 < 2.5 < math.log(256)


def run(here, capsys, *options, texts=8):
    arguments = ["quality", "diffusion", "--judges", "n_gram", "control", "--texts", str(texts), *options]
    given = vars(command_line.parser().parse_args(arguments))
    assert given.pop("command") == "quality"
    quality.main(**given)
    return capsys.readouterr().out.splitlines()


def test_it_prints_all_samplers_beside_real_text_and_draws(here, capsys, tmp_path, monkeypatch):
    for name, smaller in (("TEMPERATURES", (0.7, 1.0)), ("PILOT", 1), ("ROUNDS", 2), ("REFERENCE", 16)):
        monkeypatch.setattr(quality, name, smaller)
    lines = run(here, capsys, "--evaluations", "8", "40", "--out", str(tmp_path / "quality.png"))
    names = [line.split()[0] for line in lines if "±" in line]
    by_steps = [name for name in SAMPLERS if name not in ("first_hitting", "left_to_right")]
    assert names == [
        "real", *by_steps, "ancestral", "remdm", "first_hitting", "left_to_right", "n_gram", "control",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100 and (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    cut = lambda lines: [line[:85] for line in lines if "±" in line]  # without the speed
    assert cut(run(here, capsys, "--evaluations", "8"))[:8] == cut(lines)[:8]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--texts", "7"], "--texts: 7 should be at least 8"),
        (["--texts", "9999"], "--texts: 9999 should be at most .*, of the validation split's"),
        (["--evaluations", "0"], "--evaluations: 0 should be at least 1"),
        (["--temperature", "0"], "--temperature: 0.0 should be above 0"),
        (["--judges", "n_gram", "diffusion"], "--judges: diffusion should not judge itself"),
        (["--judges", "n_gam"], "models/n_gam: no trained model here"),
    ],
)
def test_what_cannot_be_is_one_line(here, capsys, options, line):
    with pytest.raises(UserError, match=line):
        run(here, capsys, *options)


def test_what_has_no_samplers_is_one_line(here):
    with pytest.raises(UserError, match="control: it has no samplers; this takes a masked diffusion model"):
        quality.main("control", ["n_gram"], [8], 8, 1.0, "validation", None)
