"""A hidden span: its likelihood given one side or both, enumerated; what is filled in is what is likeliest."""

from types import SimpleNamespace

import numpy as np
import pytest

from genai import __main__ as command_line
from genai import model as models
from genai.basics import KneserNey
from genai.commands import cloze
from genai.core.config import UserError
from genai.core.dataset import Dataset, Description
from tests import project
from tests.commands.conftest import MODELS, STATES, P, T, V, denoise


def spans(windows, begins, n):
    return cloze.Spans(windows, np.asarray(begins), np.ones((len(windows), n), dtype=int))


@pytest.mark.parametrize("n", [1, 2])
def test_a_span_costs_what_it_is_given_one_side_or_both(n):
    windows, begin = STATES[::7], 1
    one = SimpleNamespace(model=SimpleNamespace(denoise=denoise, mask=V))
    same = lambda a, b, places: (a[:, None, places] == b[None][:, :, places]).all(-1)  # (N, states)
    for given, known in ((cloze.LEFT, [0]), (cloze.BOTH, [0, *range(begin + n, T)])):
        whole, seen = same(windows, STATES, [*known, *range(begin, begin + n)]), same(windows, STATES, known)
        nats, tokens = cloze.filled(one, spans(windows, [begin] * len(windows), n), given)
        np.testing.assert_allclose(nats, -np.log((whole @ P) / (seen @ P)), rtol=1e-6)
        if n == 1:
            told = [np.bincount(STATES[s, begin], P[s], minlength=V).argmax() for s in seen]
            np.testing.assert_array_equal(tokens[:, 0], told)


def test_the_left_side_is_the_likelihood_of_a_continuation_and_nothing_depends_on_the_batch(here, monkeypatch):
    windows = Dataset(here / "data/text").arrays("validation")["tokens"][:11]
    hidden = spans(windows, np.arange(11) % 5 + 9, 3)
    one = models.load(here / "models/diffusion")
    expected = np.take_along_axis(one.apply("token_nats", windows), hidden.places, 1).sum(1)
    found = []
    for rows in (8, 1, 3):
        monkeypatch.setattr(cloze, "ROWS", rows)
        left, both = cloze.asked(one, hidden)
        assert (left.given, both.given) == (cloze.LEFT, cloze.BOTH)
        np.testing.assert_allclose(left.nats, expected, rtol=1e-4)
        found.append(np.column_stack([left.nats, both.nats, left.tokens, both.tokens]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)


def test_greedy_continuations_are_of_the_cheapest_token(here):
    windows = Dataset(here / "data/text").arrays("validation")["tokens"][:3]
    hidden = spans(windows, [9, 14, 20], 1)
    for name in ("control", "n_gram"):
        one = models.load(here / "models" / name)
        told = cloze.asked(one, hidden)[0]
        for window, begin, token in zip(windows, hidden.begins, told.tokens[:, 0], strict=True):
            candidates = np.tile(window[: begin + 1], (256, 1))
            candidates[:, -1] = np.arange(256)
            assert token == one.apply("token_nats", candidates)[:, -1].argmin()
    told = cloze.asked(one, spans(windows, [9, 14, 20], 3))
    assert [one.given for one in told] == [cloze.LEFT]  # both sides are for a single token
    assert told[0].tokens.shape == (3, 3)


def test_block_diffusion_is_asked_for_what_it_can_see(here):
    name = "blocks"
    numbers = MODELS["control"] | {"model": "blocks.BlockDiffusion"}
    numbers |= {"settings": {"layers": 1, "width": 8, "heads": 2, "block": 4}}
    project.finish(here, name, **numbers, scores=np.zeros(3))
    windows = Dataset(here / "data/text").arrays("validation")["tokens"][:3]
    (told,) = cloze.asked(models.load(here / "models" / name), spans(windows, [9, 14, 20], 3))
    assert told.given == cloze.LEFT and told.tokens.shape == (3, 3) and (told.tokens < 256).all()


def test_n_grams_tell_a_token_between_two_sides_by_bayes_rule():
    n_gram = KneserNey(KneserNey.Config(order=3), Description(kind="text", shape=[9], vocabulary_size=5))
    rng = np.random.default_rng(0)
    n_gram.fit(rng.integers(5, size=300))
    window = rng.integers(5, size=9)
    for place in (0, 1, 4, 7, 8):
        candidates = np.tile(window, (5, 1))
        candidates[:, place] = np.arange(5)
        p = np.exp(-n_gram.nats(candidates))
        np.testing.assert_allclose(cloze.between(n_gram, window, place), p / p.sum())


def test_a_span_begins_where_a_word_does_as_near_to_the_middle_as_can_be():
    windows = np.random.default_rng(0).integers(40, size=(20, 32))
    words = SimpleNamespace(
        get_vocab_size=lambda: 40, decode=lambda ids: " \n" if ids[0] > 30 else " " * (ids[0] < 5) + "x"
    )
    begins = cloze.cut(words, windows, np.ones_like(windows), 4).begins
    for window, begin in zip(windows, begins, strict=True):
        far = [abs(i - 14) for i in range(29) if window[i] < 5]
        assert abs(begin - 14) == min(far, default=0) and (window[begin] < 5 or not far)


def run(here, capsys, *options):
    given = vars(command_line.parser().parse_args(["cloze", "diffusion", "control", "n_gram", *options]))
    assert given.pop("command") == "cloze"
    cloze.main(**given)
    return capsys.readouterr().out.splitlines()


def test_it_prints_each_model_by_what_it_is_given(here, capsys):
    lines = run(here, capsys, "--windows", "6", "--spans", "2", "1")
    rows = [(line[:22].strip(), line[22:38].strip()) for line in lines if "±" in line]
    models = [("diffusion", cloze.LEFT), ("diffusion", cloze.BOTH), ("control", cloze.LEFT), ("n_gram", cloze.LEFT)]
    commonest = ("the commonest token", cloze.NEITHER)
    assert rows == [*models, ("n_gram", cloze.BOTH), commonest, *models, commonest]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--windows", "1"], "--windows: 1 should be at least 2"),
        (["--spans", "0"], "--spans: 0 should be at least 1 and less than 32"),
        (["--spans", "4", "32"], "--spans: 32 should be at least 1 and less than 32, a window's tokens"),
    ],
)
def test_what_cannot_be_is_one_line(here, capsys, options, line):
    with pytest.raises(UserError, match=line):
        run(here, capsys, *options)
