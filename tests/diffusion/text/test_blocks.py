"""Block diffusion against its two ends, enumeration of all texts, and itself without kept keys and values."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from genai.core.dataset import Description
from genai.diffusion.text.blocks import BlockDiffusion, evenly
from genai.diffusion.text.masked import MaskedDiffusion
from genai.diffusion.text.samplers import SAMPLERS, Revealing
from genai.diffusion.text.transformer import KeyValues

V, T = 3, 4
ALL = torch.tensor(list(itertools.product(range(V), repeat=T)))  # every text of 4 tokens, (81, 4)


def built(block, T=T, V=V, model=BlockDiffusion, **config):
    torch.manual_seed(0)
    config = {"layers": 1, "width": 16, "heads": 2} | config | ({"block": block} if model is BlockDiffusion else {})
    network = model(model.Config(**config), Description(kind="text", shape=[T], vocabulary_size=V)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.requires_grad_(False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_one_block_is_masked_diffusion_of_the_whole_text():
    blocks, whole = built(T), built(T, model=MaskedDiffusion)
    where = torch.rand(len(ALL), T, generator=generator()) < 0.5
    expected = whole.denoise(torch.where(where, whole.mask, ALL), where)
    torch.testing.assert_close(blocks.logits(ALL, where), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(blocks.token_nats(ALL[::9]), whole.token_nats(ALL[::9]), atol=1e-5, rtol=1e-5)


def test_blocks_of_one_token_are_an_autoregressive_model_and_their_bound_is_exact():
    model = built(1)
    torch.testing.assert_close(
        model.nats(ALL[::9], generator()), model.token_nats(ALL[::9]).sum(1), atol=1e-5, rtol=1e-6
    )


@pytest.mark.parametrize("block", [1, 3, 4])
def test_the_probabilities_of_all_texts_sum_to_one(block):
    assert (-built(block).token_nats(ALL).sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_bound_is_the_mean_code_length_over_the_orders_within_blocks():
    """Blocks of 2 and 1 token: two orders of the first."""
    model, x = built(2, T=3), ALL[::9, :3]
    mean = torch.zeros(len(x), dtype=torch.float64)
    for order in ((0, 1), (1, 0), (2,), (2,)):
        for i, t in enumerate(order):
            where = torch.zeros(x.shape, dtype=torch.bool)
            where[:, list(order[i:])] = True
            logits = model.logits(x, where)[where.nonzero()[:, 1] == t]
            mean += F.cross_entropy(logits.double(), x[:, t], reduction="none") / 2
    # every number of hidden tokens and, for one of two, each of them
    orders = torch.tensor([[0.1, 0.2, 0.5], [0.2, 0.1, 0.5]])
    masks = [(torch.tensor([k, 1]), order) for k in (1, 2) for order in orders]
    bounds = [model.bound(x, hidden.expand(len(x), 2), order.expand(len(x), 3)) for hidden, order in masks]
    torch.testing.assert_close(torch.stack(bounds).mean(0), mean, atol=1e-5, rtol=1e-5)


def test_numbers_of_hidden_tokens_are_even_in_each_block():
    counts = torch.stack([evenly(torch.full((2,), (i + 0.5) / 60), 4, torch.tensor([6, 5])) for i in range(60)])
    assert torch.bincount(counts[..., 0].flatten()).tolist() == [0] + [40] * 6
    assert torch.bincount(counts[..., 1].flatten()).tolist() == [0] + [48] * 5


def test_a_block_sees_what_is_not_hidden_of_it_and_whole_blocks_before():
    model, x = built(3, T=9, V=7), torch.randint(0, 7, (1, 9), generator=generator())
    where = torch.zeros(1, 9, dtype=torch.bool)
    where[0, [1, 4, 5, 7]] = True
    before = model.logits(x, where)
    for t in range(9):
        changed = x.clone()
        changed[0, t] = (x[0, t] + 1) % 7
        moved = ((model.logits(changed, where) - before).abs() > 1e-6).any(-1)
        sees = [t // 3 < i // 3 or (t // 3 == i // 3 and not where[0, t]) for i in (1, 4, 5, 7)]
        assert moved.tolist() == sees, t


def test_kept_keys_and_values_give_the_logits_of_the_whole_computation():
    model, x = built(3, T=12, V=7, window=4, layers=2), torch.randint(0, 7, (2, 11), generator=generator())
    where = torch.rand(2, 11, generator=generator()) < 0.5
    expected = model.logits(x, where)
    columns = where.nonzero()[:, 1]
    past = KeyValues(model.length)
    for start in range(0, 11, 3):
        part = slice(start, start + 3)
        hidden = torch.where(where, model.mask, x)[:, part]
        here = (columns >= start) & (columns < start + 3)
        torch.testing.assert_close(
            model.next_logits(x[:, :start], past, hidden, where[:, part]), expected[here], atol=1e-5, rtol=1e-5
        )
        past.growing = True
        model.next_states(x[:, :start], x[:, part], past)
        past.growing = False


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_text_of_any_length_keeps_its_prompt_and_does_not_depend_on_how_many_are_made(sampler):
    model = built(4, T=8, V=7)
    canvas = torch.full((2, 18), -1)
    canvas[:, :5] = torch.arange(5)
    canvas[:, 6] = 3
    sampling = Revealing(**Revealing.of_sampler({"sampler": sampler, "steps": 20}))
    x = model.sample(canvas, sampling, generator())
    assert (x[canvas >= 0] == canvas[canvas >= 0]).all() and 0 <= x.min() and x.max() < 7
    assert torch.equal(model.sample(canvas[:1], sampling, generator()), x[:1])
    assert len(x.unique(dim=0)) == 2


def test_one_token_after_the_other_is_drawn_from_the_chain_rule():
    """The probability of a sampled text under the exact conditionals, over all texts: total variation below noise."""
    model = built(3)
    p = (-model.token_nats(ALL).sum(1)).exp()
    x = model.sample(torch.full((4000, T), -1), Revealing(sampler="left_to_right", temperature=1.0), generator())
    counts = torch.bincount((x * V ** torch.arange(T - 1, -1, -1)).sum(1), minlength=V**T)
    variation = (counts / 4000 - p).abs().sum() / 2
    noise = (p * (1 - p) / 4000).sqrt().sum() / 2 * (2 / torch.pi) ** 0.5  # its mean where the distribution is p
    assert variation < 1.15 * noise


def test_a_gap_that_given_text_could_not_be_seen_from_is_refused():
    canvas = torch.tensor([[1, -1, 2, -1]])
    with pytest.raises(ValueError, match="a gap more than a block of 2 tokens before given text"):
        built(2).sample(canvas, Revealing(), generator())
    assert built(4).sample(canvas, Revealing(), generator())[0, 2] == 2


def test_the_loss_is_the_bound_per_token():
    model = built(2)
    torch.manual_seed(0)
    losses = torch.stack([model.loss({"tokens": ALL}) for _ in range(60)])
    bound = model.nats(ALL, generator()).mean() / T
    assert abs(losses.mean() - bound.mean()) < 0.02


def test_training_finds_the_entropy_of_a_language_of_pairs():
    """Tokens come in equal pairs: log 3 a pair, whatever the blocks."""
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2))).repeat_interleave(2, 1)
    for block in (1, 3):
        model = built(block)
        model.requires_grad_(True).train()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(80):
            optimizer.zero_grad()
            model.loss({"tokens": pairs}).backward()
            optimizer.step()
        with torch.no_grad():
            nats = model.eval().nats(pairs, generator()).mean().item()
        assert 2 * math.log(3) - 0.1 < nats < 2 * math.log(3) + 0.3, (block, nats)


def test_a_block_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="block: 6 should be at most 4"):
        built(6)
