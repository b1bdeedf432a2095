"""Masked diffusion against a distribution of three tokens small enough to enumerate, and identities of the loss."""

import itertools
import math

import pytest
import torch

from genai.core.config import UserError, validate
from genai.core.dataset import Description
from genai.diffusion.text import masked
from genai.diffusion.text.masked import (
    MaskedDiffusion,
    bell_shaped_counts,
    chain_rule,
    masked_cross_entropy,
    nelbo,
    stratified_counts,
)
from genai.diffusion.text.samplers import SAMPLERS

V, T, MASK = 3, 3, 3
STATES = torch.tensor(list(itertools.product(range(V), repeat=T)))  # (27, 3)
P = torch.softmax(1.5 * torch.randn(V**T, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0)


def exact(tokens, where, p=P):
    """The denoiser that knows the joint distribution: log p(x_i | the tokens that are not hidden)."""
    rows = []
    for row, asked in zip(tokens, where, strict=True):
        agrees = ((STATES == row) | (row == MASK)).all(1)
        for i in asked.nonzero()[:, 0]:
            rows.append(torch.stack([p[agrees & (STATES[:, i] == v)].sum() for v in range(V)]).log())
    return torch.stack(rows)


def fast(denoiser):
    """The same, from a table of all 4^3 partly hidden states."""
    partly = torch.tensor(list(itertools.product(range(V + 1), repeat=T)))
    table = torch.zeros(len(partly), T, V, dtype=torch.float64)
    for number, row in enumerate(partly):
        if (hidden := row == MASK).any():
            table[number, hidden] = denoiser(row[None], hidden[None])
    base = (V + 1) ** torch.arange(T - 1, -1, -1)
    return lambda tokens, where: table[(tokens * base).sum(1)][where]


EXACT = fast(exact)
WRONG = fast(lambda tokens, where: exact(tokens, where) + torch.tensor([0.7, -0.5, 0.0]) * (1 + where.sum()))


def expected_nelbo(denoiser, x):
    """T E_k E_mask [mean cross-entropy of the hidden], every mask enumerated; (N,)."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for pattern in itertools.product([False, True], repeat=T):
        if k := sum(pattern):
            where = torch.tensor(pattern).expand(len(x), T)
            total += masked_cross_entropy(denoiser, x, where, MASK) / math.comb(T, k)
    return total


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_bound_is_tight_for_an_exact_denoiser_at_every_text():
    torch.testing.assert_close(expected_nelbo(EXACT, STATES), -P.log())


def test_the_bound_is_above_the_entropy_for_a_wrong_denoiser():
    assert (P * expected_nelbo(WRONG, STATES)).sum() > -(P * P.log()).sum() + 0.1


@pytest.mark.parametrize("draws", [1, 2, 5])
def test_the_estimate_of_the_bound_is_unbiased(draws):
    x = STATES[7].expand(6000 // draws, T)
    estimates = nelbo(WRONG, x, MASK, draws, generator())
    error = estimates.std() / len(x) ** 0.5
    assert abs(estimates.mean() - expected_nelbo(WRONG, STATES[7:8])) < 4 * error < 0.2


def test_the_estimate_has_no_noise_where_the_denoiser_has_none():
    """Independent uniform tokens: every masking has the same cross-entropy, log V."""
    uniform = lambda tokens, where: torch.zeros(int(where.sum()), V)
    torch.testing.assert_close(
        nelbo(uniform, STATES, MASK, 2, generator()), torch.full((27,), T * math.log(V), dtype=torch.float64)
    )


def code_lengths(denoiser, x):
    """-log p of each text in each order of revealing its tokens, one by one, (T!, N)."""
    lengths = []
    for order in itertools.permutations(range(T)):
        total = torch.zeros(len(x), dtype=torch.float64)
        for step, i in enumerate(order):
            where = torch.zeros(len(x), T, dtype=torch.bool)
            where[:, list(order[step:])] = True
            asked = torch.zeros_like(where)
            asked[:, i] = True
            logits = denoiser(torch.where(where, MASK, x), asked)
            total += torch.nn.functional.cross_entropy(logits.double(), x[:, i], reduction="none")
        lengths.append(total)
    return torch.stack(lengths)


def test_from_left_to_right_an_exact_denoiser_gives_the_conditionals_of_the_joint():
    nats = chain_rule(EXACT, STATES, MASK)
    torch.testing.assert_close(nats.sum(1), -P.log())
    marginal = torch.stack([P[STATES[:, 0] == v].sum() for v in range(V)])
    torch.testing.assert_close(nats[:, 0], -marginal.log()[STATES[:, 0]])


def test_the_chain_rule_is_a_distribution_even_of_a_wrong_denoiser_and_one_of_the_orders():
    nats = chain_rule(WRONG, STATES, MASK).sum(1)
    torch.testing.assert_close((-nats).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(nats, code_lengths(WRONG, STATES)[0])  # (0, 1, 2), the first permutation


def test_the_bound_is_the_mean_code_length_of_all_orders_and_above_the_mixture_of_them():
    lengths = code_lengths(WRONG, STATES)
    torch.testing.assert_close(lengths.mean(0), expected_nelbo(WRONG, STATES))
    mixture = -torch.logsumexp(-lengths, 0) + math.log(len(lengths))  # -log p of the model that draws its order
    assert (lengths.mean(0) > mixture).all() and lengths.std(0).max() > 0.1


def test_counts_of_hidden_tokens_are_stratified_and_uniform():
    counts = torch.stack([stratified_counts(torch.tensor((i + 0.5) / 700), 4, 7) for i in range(700)])
    assert counts.min() == 1 and counts.max() == 7
    assert (torch.bincount(counts.flatten(), minlength=8)[1:] == 400).all()
    assert (counts.diff(dim=1) >= 1).all()


def test_counts_of_training_are_a_bell_and_a_little_of_everything():
    counts = torch.cat([bell_shaped_counts(torch.tensor((i + 0.5) / 500), 20, 1000) for i in range(500)])
    assert counts.min() == 1 and counts.max() == 1000
    bell, even = (lambda s: math.erf((s - 0.5) / 0.2 / 2**0.5) / 2 + 0.5), lambda s: s
    for share in (0.1, 0.3, 0.5, 0.6, 0.9):
        expected = 0.85 * bell(share) + 0.15 * even(share)
        assert (counts <= 1000 * share).double().mean().item() == pytest.approx(expected, abs=2e-3)


@pytest.fixture(scope="module")
def model():
    """A small network with weights that are not zero anywhere."""
    torch.manual_seed(0)
    config = MaskedDiffusion.Config(layers=2, width=16, heads=2)
    model = MaskedDiffusion(config, Description(kind="text", shape=[12], vocabulary_size=20)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False)


TOKENS = torch.randint(0, 20, (6, 12), generator=torch.Generator().manual_seed(1))


def test_hidden_tokens_are_hidden_from_the_network(model):
    where = torch.rand(6, 12, generator=generator()) < 0.5
    other = torch.where(where, (TOKENS + 7) % 20, TOKENS)
    seen = [model.denoise(torch.where(where, model.mask, x), where) for x in (TOKENS, other)]
    assert torch.equal(*seen) and seen[0].shape == (int(where.sum()), 20)
    visible = TOKENS.clone()
    visible[~where] = (visible[~where] + 7) % 20
    assert not torch.allclose(seen[0], model.denoise(torch.where(where, model.mask, visible), where))


def test_the_loss_is_the_bound_per_token(model):
    torch.manual_seed(0)
    losses = torch.stack([model.loss({"tokens": TOKENS}) for _ in range(600)])
    bound = torch.stack([model.nats(TOKENS, generator(seed)).mean() for seed in range(100)]) / 12
    error = (losses.var() / len(losses) + bound.var() / len(bound)).sqrt()
    assert abs(losses.mean() - bound.mean()) < 4 * error < 0.12


def test_in_training_every_hidden_token_weighs_the_same(model, monkeypatch):
    """Two windows, of which 2 and 11 tokens are hidden: not the mean of the two means."""
    monkeypatch.setattr(masked, "bell_shaped_counts", lambda u, n, T: torch.tensor([2, 11]))
    seen = {}

    def denoise(tokens, where):
        seen["where"], seen["logits"] = where, model.transformer.logits(model.transformer(tokens)[where])
        return seen["logits"]

    monkeypatch.setattr(model, "denoise", denoise)
    model.train()
    loss = model.loss({"tokens": TOKENS[:2]})
    model.eval()
    assert sorted(seen["where"].sum(1).tolist()) == [2, 11]
    nats = -seen["logits"].log_softmax(-1)[torch.arange(13), TOKENS[:2][seen["where"]]]
    torch.testing.assert_close(loss, nats.sum() / 13)


def test_the_training_loss_of_a_new_model_is_that_of_guessing():
    model = MaskedDiffusion(
        MaskedDiffusion.Config(layers=1, width=8, heads=1), Description(kind="text", shape=[12], vocabulary_size=20)
    )
    for mode in (True, False):
        assert model.train(mode).loss({"tokens": TOKENS}).item() == pytest.approx(math.log(20), abs=1e-5)


def test_nats_do_not_depend_on_how_windows_are_batched(model):
    one, few = generator(), generator()
    together = model.nats(TOKENS, generator())
    assert torch.equal(together, torch.cat([model.nats(row[None], one) for row in TOKENS]))
    assert torch.equal(together, torch.cat([model.nats(TOKENS[:4], few), model.nats(TOKENS[4:], few)]))
    assert together.dtype == torch.float64 and together.shape == (6,)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_chain_rule_does_not_depend_on_how_windows_are_batched(model, size, monkeypatch):
    windows = TOKENS.repeat(11, 1)
    together = torch.cat([model.token_nats(part) for part in windows.split(size)])
    assert torch.equal(together, model.token_nats(TOKENS).repeat(11, 1)) and together.dtype == torch.float64
    monkeypatch.setattr(masked, "ROWS", size)  # of one window
    torch.testing.assert_close(model.token_nats(TOKENS), together[:6], atol=1e-5, rtol=1e-5)


def test_the_chain_rule_sees_what_stands_before_and_nothing_else(model):
    nats = model.token_nats(TOKENS)
    for t in (0, 4, 11):
        changed = TOKENS.clone()
        changed[:, t] = (changed[:, t] + 7) % 20
        other = model.token_nats(changed)
        assert torch.equal(other[:, :t], nats[:, :t])
        assert not torch.isclose(other[:, t:], nats[:, t:]).all(0).any()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_depend_on_the_seed_and_not_on_how_many_are_made(model, sampler):
    sampling = MaskedDiffusion.Sampling(**MaskedDiffusion.Sampling.of_sampler({"sampler": sampler, "steps": 8}))
    canvas = torch.full((5, 12), -1)
    x = model.sample(canvas, sampling, generator(3))
    assert torch.equal(x, model.sample(canvas, sampling, generator(3)))
    assert torch.equal(x[:2], model.sample(canvas[:2], sampling, generator(3)))
    assert not torch.equal(x, model.sample(canvas, sampling, generator(4)))
    assert x.min() >= 0 and x.max() < 20 and len(x.unique(dim=0)) == 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_prompt_is_kept_and_every_gap_filled(model, sampler):
    canvas = torch.where(torch.rand(4, 9, generator=generator()) < 0.5, -1, TOKENS[:4, :9])
    x = model.sample(canvas, MaskedDiffusion.Sampling(sampler=sampler), generator())
    assert (x[canvas >= 0] == canvas[canvas >= 0]).all() and x.min() >= 0
    full = TOKENS[:, :9]
    assert torch.equal(model.sample(full, MaskedDiffusion.Sampling(sampler=sampler), generator()), full)


def test_a_preview_is_two_texts_of_the_models_length_and_repeats(model):
    shown = model.preview(generator(3))
    assert shown.shape == (2, 12) and shown.min() >= 0 and shown.max() < 20
    assert torch.equal(shown, model.preview(generator(3))) and not torch.equal(shown, model.preview(generator(4)))


def test_it_learns_a_text_and_says_it_again():
    torch.manual_seed(0)
    text = torch.arange(60) % 5
    windows = text.unfold(0, 10, 1)
    model = MaskedDiffusion(
        MaskedDiffusion.Config(layers=1, width=32, heads=2), Description(kind="text", shape=[10], vocabulary_size=5)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model.loss({"tokens": windows})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # nothing is known of the first token revealed, and everything of the others
    assert model.nats(windows, generator()).mean() < math.log(5) + 1.0
    x = model.sample(torch.full((20, 10), -1), MaskedDiffusion.Sampling(steps=30, temperature=0.5), generator())
    assert ((x.diff(dim=1) % 5) == 1).float().mean() > 0.9


def test_the_bound_and_the_chain_rule_come_down_to_the_entropy_of_a_language():
    """Words 001 and 1, each with probability 1/2: a bit a word, of two letters on average, so half a bit a letter.

    A window begins anywhere in a word, which adds a bit or so: the truth is what the language itself takes for it.
    """
    torch.manual_seed(0)
    T = 32
    language = torch.tensor([int(c) for _ in range(3000) for c in ("001", "1")[int(torch.rand(()) < 0.5)]])
    windows = language.unfold(0, T, 1)
    model = MaskedDiffusion(
        MaskedDiffusion.Config(layers=1, width=32, heads=2), Description(kind="text", shape=[T], vocabulary_size=2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 300)
        loss = model.loss({"tokens": windows[torch.randint(len(windows) - 700, (64,))]})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held = windows[-640::16]
    truth = word_entropy(held) / math.log(2)
    with torch.no_grad():
        bound, exact = (x.mean() / math.log(2) for x in (model.nats(held, generator()), model.token_nats(held).sum(1)))
    assert truth.mean() == pytest.approx(0.5 * T + 0.5, abs=1)
    assert truth.mean() < exact < bound < 1.08 * truth.mean() and exact < 1.04 * truth.mean()


def word_entropy(windows):
    """-log p of windows of the language of the words 001 and 1 that begin anywhere, by the forward algorithm, in nats.

    States: at a word's begin, after 0, after 00; how often a letter finds the language in each is 1/2, 1/4, 1/4.
    """
    emit = torch.tensor([[[0, 0.5, 0], [0, 0, 1], [0, 0, 0]], [[0.5, 0, 0], [0, 0, 0], [1, 0, 0]]], dtype=torch.float64)
    nats = []
    for window in windows:
        state = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
        for letter in window:
            state = state @ emit[letter]
        nats.append(-state.sum().log())
    return torch.stack(nats)


def test_impossible_sampling_names_the_field():
    for values, line in [
        ({"sampler": "ddim"}, "sample.sampler: 'ddim' should be 'ancestral', .* or 'remdm'"),
        ({"temperature": 0.0}, "sample.temperature: 0.0 should be greater than 0"),
        ({"step": 3}, "sample.step: unknown key; did you mean steps"),
        ({"steps": 10**7}, "sample.steps: 10000000 should be less than or equal to 1000"),
        ({"length": 10**7}, "sample.length: 10000000 should be less than or equal to 4096"),
        ({"sampler": "confidence", "noise": 1e9}, "sample.noise: 1000000000.0 should be less than or equal to 1000"),
        ({"n": 3}, "sample.n: unknown key"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(MaskedDiffusion.Sampling, values, "sample")
