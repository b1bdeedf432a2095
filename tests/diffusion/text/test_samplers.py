"""Samplers against a joint distribution of four tokens small enough to enumerate, and the identities between them."""

import itertools
import math
from functools import partial
from typing import get_args

import pytest
import torch

from genai.core.config import UserError, validate
from genai.diffusion.text import samplers
from genai.diffusion.text.samplers import (
    SAMPLERS,
    MaskedSampling,
    ancestral,
    ancestral_cached,
    block_wise,
    categorical,
    confidence,
    entropy_bounded,
    first_hitting,
    guided,
    keywords,
    left_to_right,
    log_likelihood,
    margin,
    remdm,
    sample,
    threshold,
)

V, T, MASK = 3, 4, 3
STATES = torch.tensor(list(itertools.product(range(V), repeat=T)))  # (81, 4)
PARTLY = torch.tensor(list(itertools.product(range(V + 1), repeat=T)))  # (256, 4): some hidden


def joint():
    """By hand: the sum is mostly divisible by 3, which only all four tokens tell; ends alike, middle not, mostly."""
    x = STATES.double()
    p = (1 + 8 * (x.sum(1) % 3 == 0)) * (1 + 4 * (x[:, 0] == x[:, 3])) * (1 + x[:, 1]) * (1 + 5 * (x[:, 2] != x[:, 1]))
    return p / p.sum()


P = joint()


def agree(row):
    return ((STATES == row) | (row == MASK)).all(1)


def conditionals():
    """log p(x_i = v | the visible tokens) of each partly hidden text, (256, 4, 3)."""
    table = torch.zeros(len(PARTLY), T, V, dtype=torch.float64)
    for n, row in enumerate(PARTLY):
        q = P * agree(row)
        for i, v in itertools.product(range(T), range(V)):
            table[n, i, v] = q[STATES[:, i] == v].sum() / q.sum()
    return table.log()


TABLE = conditionals()


def number(x, base=V):
    """Return which row of STATES, or with base V + 1 of PARTLY, each row of x is."""
    return (x * base ** torch.arange(T - 1, -1, -1)).sum(1)


def exact(tokens, where):
    """The denoiser that knows the joint distribution."""
    assert (tokens[where] == MASK).all()
    return TABLE[number(tokens, V + 1)][where]


class Counted:
    """The exact denoiser, and what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, tokens, where):
        self.asked.append((tokens.clone(), where.clone()))
        return exact(tokens, where)

    @property
    def evaluations(self):
        """Of each row, in how many calls something of it was asked."""
        return sum(where.any(1).long() for _, where in self.asked)


def hidden(n, row=(MASK,) * T):
    return torch.tensor(row).repeat(n, 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(n, seed=0):
    g = generator(seed)
    return lambda *shape: torch.rand(n, *shape, generator=g, dtype=torch.float64)


def distance(a, b):
    return 0.5 * (a - b).abs().sum().item()  # total variation


def frequencies(x):
    return torch.bincount(number(x), minlength=V**T) / len(x)


def bound(p, n):
    """What the total variation of n draws from p is below, but once in a million.

    Its mean is at most half the sum of the standard deviations; one draw moves it by 1/n (McDiarmid).
    """
    return (0.5 * (p * (1 - p) / n).sqrt().sum() + math.sqrt(math.log(1e6) / (2 * n))).item()


N = 20_000


# Every text that a sampler could write, with its probability: `draw` is told which token to take and keeps account.


def law(sampler, scenarios=None, **numbers):
    """Return the exact distribution of what a sampler writes, (81,).

    scenarios: (S, ..., T), equally likely values of what it asks of `uniform` beside the quantiles; None: nothing.
    """
    S = 1 if scenarios is None else len(scenarios)
    texts = STATES.repeat(S, 1)
    told = (torch.arange(len(texts))[:, None] * V + texts).double()  # which row, and which token to take there
    log_p = torch.zeros(len(texts), dtype=torch.float64)

    def uniform(*shape):
        u = told.view(-1, *[1] * (len(shape) - 1), T)[..., : shape[-1]]
        if scenarios is None:
            return u.expand(-1, *shape)
        given = scenarios.repeat_interleave(len(STATES), 0)[..., : shape[-1]]
        steps = given.shape[1:-1]  # none, or (steps,)
        given, u = given.unsqueeze(-2), u.view(-1, *[1] * len(steps), 1, shape[-1]).expand(-1, *steps, 1, -1)
        return torch.cat([given, u], -2)

    def draw(logits, u):
        row, token = u.long() // V, u.long() % V
        log_p.index_add_(0, row, logits.log_softmax(-1).gather(1, token[:, None])[:, 0])
        return token

    assert torch.equal(sampler(exact, draw, uniform, hidden(len(texts)), MASK, **numbers), texts)
    return log_p.exp().view(S, -1).mean(0)


ORDERS = torch.tensor(list(itertools.permutations(range(T)))).double() / T  # (24, 4)


def pace(steps):
    """Return, for each way in which the tokens can fall to the steps, `move` (S, steps, T) that makes it so."""
    step = torch.tensor(list(itertools.product(range(steps), repeat=T)))
    return torch.where(step[:, None] == torch.arange(steps)[:, None], 0.0, 1 - 2.0**-53).double()


@pytest.mark.parametrize(
    ("sampler", "scenarios", "numbers"),
    [
        (left_to_right, None, {}),
        (first_hitting, ORDERS, {}),
        (margin, None, {"steps": T}),
        (threshold, None, {"threshold": 1.0}),
        (entropy_bounded, None, {"entropy_bound": 0.0}),
        (partial(block_wise, first_hitting), ORDERS, {"block": 2}),
        (partial(block_wise, first_hitting), ORDERS, {"block": 3}),
        (partial(block_wise, margin), None, {"block": 2, "steps": T}),
        (partial(block_wise, threshold), None, {"block": 1, "threshold": 0.0}),
        (partial(block_wise, ancestral), pace(1), {"block": 1, "steps": 4}),
    ],
)
def test_one_token_at_a_time_is_the_joint_distribution_exactly(sampler, scenarios, numbers):
    assert distance(law(sampler, scenarios, **numbers), P) < 1e-12


def test_all_tokens_at_once_are_the_product_of_the_marginals():
    marginals = TABLE[-1].exp()  # all hidden
    product = marginals[torch.arange(T), STATES].prod(1)
    assert distance(product, P) > 0.3
    for sampler, scenarios, numbers in [
        (ancestral, pace(1), {"steps": 1}),
        (ancestral_cached, pace(1), {"steps": 1}),
        (remdm, pace(1), {"steps": 1, "eta": 1.0}),
        (margin, None, {"steps": 1}),
        (threshold, None, {"threshold": 0.0}),
        (entropy_bounded, None, {"entropy_bound": 1000.0}),
    ]:
        assert distance(law(sampler, scenarios, **numbers), product) < 1e-12, sampler


def chain(steps, eta=0.0):
    """Return the distribution of the text after the paper's reverse process, (81,), by its transition matrices.

    ReMDM's posterior with alpha(t) = 1 - t, over all 256 partly hidden texts; eta 0 is MDLM's.
    """
    at = torch.zeros(len(PARTLY), dtype=torch.float64)
    at[-1] = 1  # all hidden
    masked = PARTLY == MASK
    for k in range(steps):
        alpha_t, alpha_s = k / steps, (k + 1) / steps
        sigma = min(eta, (1 - alpha_s) / alpha_t) if k else 0.0
        reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
        to = torch.zeros(len(PARTLY), T, V + 1, dtype=torch.float64)  # of each position, its next value
        to[..., :V] = torch.where(
            masked[..., None], reveal * TABLE.exp(), (1 - sigma) * (PARTLY[..., None] == torch.arange(V))
        )
        to[..., V] = torch.where(masked, 1 - reveal, sigma)
        at = at @ to[:, torch.arange(T), PARTLY].prod(-1)
    return at[(PARTLY < V).all(1)]


@pytest.mark.parametrize("sampler", [ancestral, ancestral_cached])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_ancestral_sampling_has_the_distribution_of_the_reverse_process_in_as_many_steps(sampler, steps):
    torch.testing.assert_close(law(sampler, pace(steps), steps=steps), chain(steps))


def test_the_reverse_process_comes_to_the_joint_distribution_as_its_steps_grow():
    errors = [distance(chain(steps), P) for steps in (1, 4, 16, 64, 256)]
    for steps, error in zip((1, 4, 16, 64, 256), errors, strict=True):
        assert error <= 1 - math.prod(1 - i / steps for i in range(T))  # the chance that a step reveals two
    assert errors[1:4] == pytest.approx([0.2024, 0.0555, 0.0142], abs=1e-4)  # the README quotes them
    assert distance(chain(16, 0.1), P) == pytest.approx(0.0915, abs=1e-4)
    assert errors[0] > 0.3 and errors[-1] < 0.01 and all(b < a / 3 for a, b in itertools.pairwise(errors[1:]))


def test_exercise_steps_in_which_128_tokens_fall_into_different_ones_as_often_as_not():
    steps = 128**2 / (2 * math.log(2))
    assert math.prod(1 - i / steps for i in range(128)) == pytest.approx(0.5, abs=0.005) and 11_500 < steps < 12_000


def test_remasking_comes_to_the_joint_distribution_as_its_steps_grow_and_its_rate_falls():
    errors = [distance(chain(steps, 4 / steps), P) for steps in (16, 64, 256)]
    assert errors[-1] < 0.02 and all(b < a / 2 for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize(("steps", "eta"), [(5, 0.0), (5, 0.3), (5, 1.0), (40, 0.2)])
def test_remasking_has_the_distribution_of_its_posterior(steps, eta):
    p = chain(steps, eta)
    x = remdm(exact, categorical, random(N), hidden(N), MASK, steps=steps, eta=eta)
    assert distance(frequencies(x), p) < bound(p, N)


@pytest.mark.parametrize("eta", [0.0, 0.2, 1.0])
def test_as_many_tokens_are_hidden_at_each_time_with_remasking_as_without(eta):
    seen = []

    def watched(tokens, where):
        seen.append((tokens == MASK).double().mean().item())
        return exact(tokens, where)

    remdm(watched, categorical, random(N), hidden(N), MASK, steps=10, eta=eta)
    assert seen == pytest.approx([1 - k / 10 for k in range(10)], abs=0.01)  # 4.5 standard errors


def test_ancestral_sampling_reveals_at_an_even_pace():
    """With t going from 1 to 0 each token's step of revelation is uniform."""
    denoiser = Counted()
    ancestral_cached(denoiser, categorical, random(N), hidden(N), MASK, steps=10)
    assert [where.sum().item() / (N * T) for _, where in denoiser.asked] == pytest.approx([0.1] * 10, abs=0.006)


def test_confidence_sampling_in_random_order_has_the_joint_distribution():
    x = confidence(exact, categorical, random(N), hidden(N), MASK, steps=T, noise=1e9)
    assert distance(frequencies(x), P) < bound(P, N)


def test_confidence_sampling_prefers_what_is_likely_even_one_by_one():
    x = confidence(exact, categorical, random(N), hidden(N), MASK, steps=T, noise=0.0)
    assert P[number(x)].log().mean() > (P * P.log()).sum() + 0.1


SETTINGS = [
    {"sampler": "ancestral", "steps": 6},
    {"sampler": "ancestral_cached", "steps": 6},
    {"sampler": "first_hitting"},
    {"sampler": "left_to_right"},
    {"sampler": "confidence", "steps": 3, "noise": 2.0},
    {"sampler": "margin", "steps": 3},
    {"sampler": "threshold", "threshold": 0.6},
    {"sampler": "entropy_bounded", "entropy_bound": 0.5},
    {"sampler": "remdm", "steps": 6, "eta": 0.5},
]
AROUND = [
    {},
    {"block": 2},
    {"best_of": 3},
    {"guidance": 2.0, "top_p": 0.8, "temperature": 0.5, "block": 3, "best_of": 2},
]


def run(x, seed=0, denoiser=exact, **numbers):
    return sample(denoiser, x, MASK, MaskedSampling(**{"temperature": 1.0} | numbers), generator(seed))


@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
def test_a_text_does_not_depend_on_how_many_are_made_with_it(setting, around):
    canvas = PARTLY[torch.randperm(256, generator=generator(1))[:64]]  # some nearly whole, some nearly empty
    x = run(canvas, **setting, **around)
    assert torch.equal(run(canvas[:1], **setting, **around), x[:1])
    assert torch.equal(run(canvas[:3], **setting, **around), x[:3])
    assert torch.equal(run(canvas, **setting, **around), x) and not torch.equal(run(canvas, 1, **setting, **around), x)


@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
def test_what_is_given_stays_wherever_it_stands_and_all_else_is_written(setting, around):
    x = run(PARTLY, **setting, **around)
    given = PARTLY < MASK
    assert torch.equal(x[given], PARTLY[given]) and (x < MASK).all() and x.min() >= 0
    assert torch.equal(run(STATES, **setting, **around), STATES)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
@pytest.mark.parametrize("row", [(0, MASK, MASK, MASK), (MASK, MASK, MASK, 1), (MASK, 2, MASK, 1)], ids=str)
def test_a_prompt_a_suffix_and_gaps_condition_the_rest(setting, row):
    """With as many steps as make each sampler exact, or nearly so."""
    finest = {"steps": 200, "noise": 1000.0, "threshold": 1.0, "entropy_bound": 0.0, "eta": 0.01}
    n = 4000
    numbers = MaskedSampling.of_sampler({"sampler": setting["sampler"]} | finest)
    p = P * agree(torch.tensor(row))
    p /= p.sum()
    # two of 4 tokens in one of 200 steps: 0.03; of those that remasking moves, as much again
    slack = {"ancestral": 0.03, "ancestral_cached": 0.03, "remdm": 0.06}.get(setting["sampler"], 0.0)
    assert distance(frequencies(run(hidden(n, row), **numbers)), p) < bound(p, n) + slack


@pytest.mark.parametrize("around", AROUND, ids=str)
def test_cached_ancestral_sampling_is_ancestral_sampling_to_the_bit(around):
    for steps in (1, 5, 50):
        x = run(PARTLY, sampler="ancestral", steps=steps, **around)
        assert torch.equal(run(PARTLY, sampler="ancestral_cached", steps=steps, **around), x)


def test_a_cached_row_costs_one_evaluation_for_each_state_that_it_takes():
    plain, cached, n = Counted(), Counted(), 300
    x = ancestral(plain, categorical, random(n), hidden(n), MASK, steps=30)
    assert torch.equal(ancestral_cached(cached, categorical, random(n), hidden(n), MASK, steps=30), x)
    canvases = torch.stack([tokens for tokens, _ in plain.asked] + [x])
    states = (canvases[1:] != canvases[:-1]).any(-1).sum(0)
    assert torch.equal(cached.evaluations, states) and states.max() == T
    assert plain.evaluations.double().mean() > 5 * states.double().mean()


def test_rows_of_which_nothing_is_asked_reach_no_network():
    rows = []

    def network(tokens, where):
        rows.append(len(tokens))
        assert where.any(1).all()
        return exact(tokens, where)

    run(hidden(50), denoiser=network, sampler="ancestral_cached", steps=100)
    assert sum(rows) <= 50 * T and max(rows) < 20
    rows.clear()
    run(
        torch.tensor([(MASK, MASK, MASK, MASK), (0, 1, MASK, 2), (0, 0, 0, 0)]),
        denoiser=network,
        sampler="left_to_right",
    )
    assert rows == [2, 1, 1, 1]


@pytest.mark.parametrize("sampler", [first_hitting, left_to_right])
def test_a_token_takes_one_evaluation(sampler):
    denoiser = Counted()
    sampler(denoiser, categorical, random(len(PARTLY)), PARTLY, MASK)
    assert torch.equal(denoiser.evaluations, (PARTLY == MASK).sum(1)) and len(denoiser.asked) == T
    assert all((where.sum(1) <= 1).all() for _, where in denoiser.asked)


def test_first_hitting_takes_each_order_equally_often():
    denoiser = Counted()
    first_hitting(denoiser, categorical, random(N), hidden(N), MASK)
    order = torch.stack([where.long().argmax(1) for _, where in denoiser.asked], 1)
    counts = order.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 24 and (counts - N / 24).abs().max() < 4.5 * math.sqrt(N / 24)


def reveals(sampler, **numbers):
    """Return how many tokens of each row a sampler reveals in each call, (calls, 500)."""
    denoiser, n = Counted(), 500
    x = sampler(denoiser, categorical, random(n), hidden(n), MASK, **numbers)
    left = torch.stack([(tokens == MASK).sum(1) for tokens, _ in denoiser.asked] + [(x == MASK).sum(1)])
    return left[:-1] - left[1:]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_confidence_and_margin_reveal_equal_numbers(steps):
    expected = {1: [4], 2: [2, 2], 3: [2, 1, 1], 4: [1] * 4, 9: [1] * 4}[steps]
    for revealed in (reveals(margin, steps=steps), reveals(confidence, steps=steps, noise=1.0)):
        if steps == 9:
            assert revealed.max() == 1 and (revealed.sum(0) == T).all()  # rounded up: early
        assert [row.tolist() for row in revealed] == [[n] * 500 for n in expected]


def test_equal_numbers_are_each_rows_own():
    canvas = torch.tensor([[MASK] * 4, [MASK, MASK, 0, MASK], [MASK, 0, MASK, 1], [2, 0, MASK, 1]])
    for sampler, numbers in [(margin, {"steps": 2}), (confidence, {"steps": 2, "noise": 1.0})]:
        denoiser = Counted()
        sampler(denoiser, categorical, random(len(canvas)), canvas, MASK, **numbers)
        assert [where.sum(1).tolist() for _, where in denoiser.asked] == [[4, 3, 2, 1], [2, 1, 1, 0]]


def test_a_threshold_of_0_reveals_all_at_once_and_of_1_one_by_one():
    assert reveals(threshold, threshold=0.0).tolist() == [[T] * 500]
    assert (reveals(threshold, threshold=1.0) == 1).all()
    between = reveals(threshold, threshold=0.6)
    assert (between.sum(0) == T).all() and 1 < len(between) <= T and between.max() > 1


def test_an_entropy_bound_of_0_reveals_one_by_one():
    assert (reveals(entropy_bounded, entropy_bound=0.0) == 1).all()
    assert reveals(entropy_bounded, entropy_bound=1000.0).tolist() == [[T] * 500]


@pytest.mark.parametrize("limit", [0.0, 0.9, 1.5, 2.4])
def test_the_entropy_bound_is_kept_by_as_many_tokens_as_can(limit):
    """At every state: the least entropies whose sum without the largest is within the bound."""
    canvas = PARTLY[(PARTLY == MASK).any(1)]
    denoiser = Counted()
    entropy_bounded(denoiser, categorical, random(len(canvas)), canvas, MASK, entropy_bound=limit)
    after = denoiser.asked[1][0] if len(denoiser.asked) > 1 else None
    seen = set()
    for n, row in enumerate(canvas):
        entropy = torch.special.entr(TABLE[number(row[None], V + 1)[0]].exp()).sum(-1)
        order = sorted((i for i in range(T) if row[i] == MASK), key=lambda i: (entropy[i].item(), i))
        prefixes = [order[:size] for size in range(1, len(order) + 1)]
        within = [u for u in prefixes if sum(entropy[i] for i in u) - max(entropy[i] for i in u) <= limit + 1e-12]
        shown = [i for i in range(T) if row[i] == MASK and (after is None or after[n, i] != MASK)]
        assert shown == sorted(within[-1]), row
        seen.add(len(shown))
    assert len(seen) > 1 or limit == 0


MEASURES = {
    "confidence": ({"steps": T, "noise": 0.0}, lambda p: p.max().item()),
    "threshold": ({"threshold": 1.0}, lambda p: p.max().item()),
    "margin": ({"steps": T}, lambda p: p.sort().values.diff()[-1].item()),
    "entropy_bounded": ({"entropy_bound": 0.0}, lambda p: (p * p.log()).sum().item()),
}
SOME_HIDDEN = PARTLY[(PARTLY == MASK).sum(1) > 1]


def surest(name):
    """Return where a sampler's measure is highest at each partly hidden text, by hand."""
    p = TABLE[number(SOME_HIDDEN, V + 1)].exp()
    score = lambda n, i: MEASURES[name][1](p[n, i])
    return [max((i for i in range(T) if row[i] == MASK), key=partial(score, n)) for n, row in enumerate(SOME_HIDDEN)]


@pytest.mark.parametrize("name", MEASURES)
def test_the_surest_token_comes_first_by_each_ones_measure(name):
    denoiser, likeliest = Counted(), partial(categorical, temperature=0.01)
    SAMPLERS[name](denoiser, likeliest, random(len(SOME_HIDDEN)), SOME_HIDDEN, MASK, **MEASURES[name][0])
    changed = denoiser.asked[0][0] != denoiser.asked[1][0]
    assert (changed.sum(1) == 1).all() and changed.int().argmax(1).tolist() == surest(name)


@pytest.mark.parametrize("level", [0.5, 0.6, 0.7])
def test_a_step_reveals_what_is_at_the_threshold_and_the_surest(level):
    denoiser = Counted()
    threshold(denoiser, categorical, random(len(SOME_HIDDEN)), SOME_HIDDEN, MASK, threshold=level)
    expected = (TABLE[number(SOME_HIDDEN, V + 1)].exp().amax(-1) >= level) & (SOME_HIDDEN == MASK)
    expected[torch.arange(len(SOME_HIDDEN)), surest("threshold")] = True
    assert torch.equal(denoiser.asked[0][0] != denoiser.asked[1][0], expected) and expected.sum() > len(expected)


def test_the_noise_of_confidence_sampling_falls_to_zero():
    """Its second step of four, from the random numbers: half the noise times Gumbel beside log p of what is drawn."""
    canvas, noise = PARTLY[(PARTLY == MASK).sum(1) == 3], 1.0
    denoiser, numbers = Counted(), random(len(canvas))(4, 2, T)
    confidence(denoiser, categorical, lambda *shape: numbers, canvas, MASK, steps=4, noise=noise)
    before, after = denoiser.asked[1][0], denoiser.asked[2][0]
    p, (u, v) = TABLE[number(before, V + 1)].exp(), numbers[:, 1].unbind(1)
    drawn = (p.cumsum(-1) < u[..., None]).sum(-1)
    log_p = p.gather(-1, drawn[..., None])[..., 0].log()
    score = (log_p - noise / 2 * (-v.log()).log()).masked_fill(before != MASK, -math.inf)
    assert torch.equal((before != after).int().argmax(1), score.argmax(1))


def test_the_measures_of_surety_differ():
    assert surest("threshold") != surest("margin") != surest("entropy_bounded") != surest("threshold")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
def test_blocks_of_one_token_go_from_left_to_right(setting):
    denoiser, numbers = Counted(), {key: setting[key] for key in keywords(setting["sampler"])}
    if "steps" in numbers:
        numbers["steps"] = T
    block_wise(SAMPLERS[setting["sampler"]], denoiser, categorical, random(256), PARTLY, MASK, block=1, **numbers)
    assert [where.int().argmax(1)[where.any(1)].unique().tolist() for _, where in denoiser.asked] == [
        [0],
        [1],
        [2],
        [3],
    ]
    assert torch.equal(denoiser.evaluations, (PARTLY == MASK).sum(1))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
def test_a_block_as_long_as_the_text_changes_nothing(setting):
    assert torch.equal(run(PARTLY, **setting, block=T), run(PARTLY, **setting))
    assert (
        not torch.equal(run(PARTLY, **setting, block=1), run(PARTLY, **setting))
        or setting["sampler"] == "left_to_right"
    )


def test_blocks_share_the_steps_of_the_text():
    for block, steps, calls in [(2, 4, 4), (1, 4, 4), (2, 2, 2), (3, 4, 4), (1, 1, 4)]:
        assert len(reveals(partial(block_wise, margin), block=block, steps=steps)) == calls


@pytest.mark.parametrize("around", AROUND, ids=str)
def test_remasking_without_a_rate_is_ancestral_sampling_to_the_bit(around):
    x = run(PARTLY, sampler="ancestral", steps=7, **around)
    assert torch.equal(run(PARTLY, sampler="remdm", steps=7, eta=0.0, **around), x)


def test_guidance_of_1_is_none_and_without_a_prompt_there_is_nothing_to_guide():
    for setting in SETTINGS:
        x = run(PARTLY, **setting)
        assert torch.equal(run(PARTLY, **setting, guidance=1.0, top_p=1.0, best_of=1, block=4096), x)
        assert torch.equal(run(hidden(9), **setting, guidance=3.0), run(hidden(9), **setting))


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_guidance_extrapolates_from_the_prompt_hidden(guidance):
    row = torch.tensor([[1, MASK, MASK, 1]])
    given, filled = row < MASK, torch.tensor([[1, 2, MASK, 1]])  # as it is after one token
    logits = guided(exact, given, MASK, guidance)(filled, filled == MASK)
    seen, unseen = (TABLE[number(torch.tensor([x]), V + 1)[0], 2] for x in ([1, 2, MASK, 1], [MASK, 2, MASK, MASK]))
    torch.testing.assert_close(
        logits[0].softmax(-1),
        (seen.exp() ** guidance * unseen.exp() ** (1 - guidance)).div(
            (seen.exp() ** guidance * unseen.exp() ** (1 - guidance)).sum()
        ),
    )
    calls = []
    run(row, denoiser=lambda *asked: calls.append(0) or exact(*asked), sampler="first_hitting", guidance=guidance)
    assert len(calls) == (2 if guidance == 1 else 4)


def test_the_likelihood_is_that_of_what_was_hidden_given_the_rest():
    torch.testing.assert_close(log_likelihood(exact, STATES, torch.ones_like(STATES, dtype=torch.bool), MASK), P.log())
    gaps = torch.tensor([False, True, False, True]).expand(len(STATES), T)
    given = torch.stack([P[agree(row)].sum() for row in torch.where(gaps, MASK, STATES)])
    torch.testing.assert_close(log_likelihood(exact, STATES, gaps, MASK), (P / given).log())
    assert (log_likelihood(exact, STATES, torch.zeros_like(gaps), MASK) == 0).all()


@pytest.mark.parametrize("n", [2, 5])
def test_the_best_of_several_is_the_likeliest_of_them(n):
    x = run(hidden(3), sampler="first_hitting", best_of=n)
    candidates = run(hidden(3 * n), sampler="first_hitting").view(3, n, T)
    assert torch.equal(x, torch.stack([few[P[number(few)].argmax()] for few in candidates]))


def test_the_best_of_several_has_the_distribution_of_a_maximum():
    likelihood, n, draws = (P * 1e6).round(), 3, 4000  # equal ones are equal
    below, up_to = ((P * (likelihood[:, None] > likelihood)).sum(1), (P * (likelihood[:, None] >= likelihood)).sum(1))
    p = (up_to**n - below**n) * P / (up_to - below)
    assert p.sum().item() == pytest.approx(1)
    assert distance(frequencies(run(hidden(draws), sampler="left_to_right", best_of=n)), p) < bound(p, draws)


# Draws


def test_categorical_is_the_inverse_of_the_distribution_function():
    logits = torch.tensor([0.0, 1.0, 2.0, -80.0])
    u = (torch.arange(100_000) + 0.5) / 100_000
    for temperature in (0.5, 1.0, 3.0):
        drawn = categorical(logits.expand(len(u), 4), u.double(), temperature)
        expected = (logits / temperature).softmax(-1)
        torch.testing.assert_close(torch.bincount(drawn, minlength=4) / len(u), expected, atol=2e-5, rtol=0)
    assert categorical(logits[None], torch.tensor([1 - 2**-53], dtype=torch.float64)) == 2


def test_what_is_rarer_than_float32_can_tell_is_drawn_as_often_as_it_should():
    logits = torch.tensor([[0.0, -23.0]])  # 1e-10
    tail = torch.tensor([0.99, 1.01], dtype=torch.float64) * math.exp(-23.0) / (1 + math.exp(-23.0))
    assert categorical(logits.expand(2, 2), 1 - tail).tolist() == [1, 0]


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.5, 0.75, 0.9, 1.0])
def test_the_nucleus_is_the_fewest_tokens_of_that_mass_in_their_proportions(top_p):
    p = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2], dtype=torch.float64)
    u = (torch.arange(100_000) + 0.5) / 100_000
    drawn = torch.bincount(categorical(p.log().expand(len(u), 5), u.double(), top_p=top_p), minlength=5) / len(u)
    best = min(
        (
            kept
            for size in range(1, 6)
            for kept in itertools.combinations(range(5), size)
            if p[[*kept]].sum() > top_p - 1e-12
        ),
        key=lambda kept: (len(kept), -p[[*kept]].sum()),
    )
    expected = torch.zeros(5, dtype=torch.float64)
    expected[[*best]] = p[[*best]] / p[[*best]].sum()
    torch.testing.assert_close(drawn.double(), expected, atol=2e-5, rtol=0)


def test_the_nucleus_is_taken_at_the_temperature():
    logits = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log().expand(1000, 3)
    u = (torch.arange(1000).double() + 0.5) / 1000
    assert categorical(logits, u, 1.0, 0.6).unique().tolist() == [0, 1]
    assert categorical(logits, u, 0.2, 0.6).unique().tolist() == [0]


# Settings


def test_every_sampler_has_a_name_and_reads_numbers_that_there_are():
    assert list(get_args(MaskedSampling.model_fields["sampler"].annotation)) == list(SAMPLERS)
    assert all(getattr(samplers, name) is sampler for name, sampler in SAMPLERS.items())
    assert {key for name in SAMPLERS for key in keywords(name)} < {*MaskedSampling.model_fields}
    assert {setting["sampler"]: [*setting][1:] for setting in SETTINGS} == {name: keywords(name) for name in SAMPLERS}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_number_that_the_sampler_does_not_read_is_refused_by_name(sampler):
    for key, value in {"steps": 9, "noise": 3.0, "threshold": 0.5, "entropy_bound": 0.7, "eta": 0.3}.items():
        values = {"sampler": sampler, key: value}
        if key in keywords(sampler):
            assert getattr(validate(MaskedSampling, values, "sampling"), key) == value
        else:
            with pytest.raises(
                UserError, match=rf"^sampling\.{key}: {value} should be left out: the sampler {sampler} reads"
            ):
                validate(MaskedSampling, values, "sampling")
            assert MaskedSampling.of_sampler(values) == {"sampler": sampler}
        whole = MaskedSampling(sampler=sampler).model_dump()  # defaults of all: as MLflow hands them back
        assert validate(MaskedSampling, whole, "sampling") == MaskedSampling(sampler=sampler)


def test_a_number_is_refused_whatever_the_order_of_keys_and_of_a_sampler_there_is_not_only_its_name():
    for values, line in [
        ({"noise": 3.0, "sampler": "margin"}, "s.noise: 3.0 should be left out: the sampler margin reads steps$"),
        ({"noise": 3.0}, "s.noise: 3.0 should be left out: the sampler ancestral reads steps$"),
        ({"sampler": "first_hitting", "steps": 9}, "sampler first_hitting reads none of these numbers$"),
        ({"sampler": "marginn", "noise": 3.0}, "s.sampler: 'marginn' should be 'ancestral', .* or 'remdm'$"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(MaskedSampling, values, "s")
