"""The vectorised Kneser-Ney against the formula written with dictionaries, and the laws of probability."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from genai.basics.kneser_ney import KneserNey, discounts
from genai.core.dataset import Description

V = 7
TEXT = np.random.default_rng(0).choice(5, 400, p=[0.4, 0.3, 0.15, 0.1, 0.05])  # 5 and 6 never occur
TEXT[100:200] = TEXT[:100]  # so that long n-grams repeat


def model(order, text=TEXT, V=V):
    description = Description(kind="text", shape=[8], vocabulary_size=V)
    return KneserNey(KneserNey.Config(order=order), description).fit(text)


class ByHand:
    """Chen and Goodman's equations, one n-gram at a time, of a text whose small counts give discounts above 0."""

    def __init__(self, order, text, V):
        self.count, self.D, self.order, self.V = {}, {}, order, V
        for m in range(1, order + 1):
            grams = [tuple(text[i : i + m]) for i in range(len(text) - m + 1)]
            if m == order:
                self.count[m] = Counter(grams)
            else:
                left = defaultdict(set)
                for i in range(1, len(text) - m + 1):
                    left[tuple(text[i : i + m])].add(text[i - 1])
                self.count[m] = Counter({gram: len(before) for gram, before in left.items()})
            n = Counter(self.count[m].values())
            Y = n[1] / (n[1] + 2 * n[2])
            self.D[m] = [0, *(c - (c + 1) * Y * n[c + 1] / n[c] for c in (1, 2, 3))]
            assert min(self.D[m][1:]) > 0

    def p(self, w, h):
        h = tuple(h[max(0, len(h) - self.order + 1) :])
        m = len(h) + 1
        lower = self.p(w, h[1:]) if h else 1 / self.V
        following = {gram: c for gram, c in self.count[m].items() if gram[:-1] == h}
        total = sum(following.values())
        if not total:
            return lower
        D = lambda c: self.D[m][min(c, 3)]
        c = following.get((*h, w), 0)
        return (c - D(c)) / total + sum(map(D, following.values())) / total * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_formula(order):
    rng, V, frequency = np.random.default_rng(3), 60, 1 / np.arange(1, 61) ** 1.3  # as Zipf has it: many rare tokens
    text = rng.choice(V, 1000, p=frequency / frequency.sum())
    text = np.concatenate([text, text[:300]])  # so that long n-grams repeat
    tokens = rng.integers(0, V, (20, 8))
    tokens[:10] = np.lib.stride_tricks.sliding_window_view(text, 8)[:10]
    hand = ByHand(order, text.tolist(), V)
    expected = [[hand.p(w, tuple(row[:t])) for t, w in enumerate(row)] for row in tokens.tolist()]
    np.testing.assert_allclose(model(order, text, V).probability(tokens), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_probabilities_of_the_next_token_sum_to_one_after_any_context(order):
    contexts = np.array(list(itertools.product(range(V), repeat=3)))
    rows = np.concatenate([np.c_[contexts, np.full(len(contexts), w)] for w in range(V)])
    p = model(order).probability(rows)[:, -1].reshape(V, -1)
    assert p.min() > 0
    np.testing.assert_allclose(p.sum(0), 1)


def test_nats_are_those_of_the_whole_window_and_add_up_to_one():
    windows = np.array(list(itertools.product(range(V), repeat=4)))
    nats = model(3).nats(windows)
    assert nats.shape == (V**4,) and nats.dtype == np.float64
    np.testing.assert_allclose(np.exp(-nats).sum(), 1)


def test_a_token_with_one_left_neighbour_is_unlikely_elsewhere():
    """San Francisco: `1` occurs as often as `2`, but only after 0."""
    text = np.array([0, 1, 3, 2, 4, 2, 5, 2, 6, 2, 0, 1, 4, 3, 0, 1, 5, 0, 1, 6] * 3)
    p = model(2, text).probability(np.array([[1], [2]]))[:, 0]
    assert np.isclose((text == 1).sum(), (text == 2).sum()) and p[1] > 2 * p[0]


def test_it_codes_a_text_it_knows_better_than_one_it_does_not():
    known, strange = TEXT[:160].reshape(20, 8), np.random.default_rng(2).integers(0, V, (20, 8))
    assert model(4).nats(known).mean() + 3 < model(4).nats(strange).mean()


def test_discounts():
    count = np.repeat([0, 1, 2, 3, 4, 9], [5, 40, 20, 10, 5, 3])
    np.testing.assert_allclose(discounts(count), [0, 0.5, 1.25, 2.0])  # Y = 40 / 80
    assert discounts(np.array([1, 1, 2])).tolist() == [0, 0.5, 0.5, 0.5]  # no count of 3: one discount, Y = 2 / 4
    assert discounts(np.array([2, 2])).tolist() == [0, 0.75, 0.75, 0.75]
    rising = np.repeat([1, 2, 3, 4], [2, 5, 20, 5])  # D(2) = 2 - 3 Y 20 / 5 is negative
    assert len(set(discounts(rising)[1:])) == 1 and 0 < discounts(rising)[1] < 1


def test_no_token_is_impossible_after_any_text_however_small():
    """The laws of probability over hundreds of random texts; discounts of 0 broke the first in 40 of 300."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        V, n, order = int(rng.integers(2, 6)), int(rng.integers(1, 40)), int(rng.integers(1, 5))
        text = rng.choice(V, n, p=rng.dirichlet(np.full(V, 0.5)))
        contexts = np.array(list(itertools.product(range(V), repeat=2)))
        rows = np.concatenate([np.c_[contexts, np.full(len(contexts), w)] for w in range(V)])
        p = model(order, text, V).probability(rows)[:, -1].reshape(V, -1)
        assert p.min() > 0
        np.testing.assert_allclose(p.sum(0), 1)


def test_nothing_takes_no_bits():
    assert model(3).nats(np.zeros((1, 0))).tolist() == [0.0]
    assert model(3, np.array([1])).nats(np.array([[2]])) > 0
