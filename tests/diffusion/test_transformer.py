"""The transformer's parts against torch's own, and the language model against sums over every text."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from genai.core.config import UserError, validate
from genai.core.dataset import Description
from genai.diffusion.text.autoregressive import Autoregressive
from genai.diffusion.text.transformer import (
    Attention,
    Block,
    Transformer,
    TransformerConfig,
    WindowEmbedding,
    rms_norm,
    rotary,
    rotate,
)


def shaped(**changes):
    return TransformerConfig(**{"layers": 2, "width": 16, "heads": 2} | changes)


def random_weights(module, std=0.5):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.eval().requires_grad_(False)


def language_model(V=3, T=4, **changes):
    config = Autoregressive.Config(**{"layers": 2, "width": 16, "heads": 2} | changes)
    return random_weights(Autoregressive(config, Description(kind="text", shape=[T], vocabulary_size=V)))


def test_rms_norm():
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (8,), eps=1e-6))


def test_rotation_is_multiplication_by_a_complex_number():
    x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary(7, 8, 100.0)
    angle = torch.arange(7)[:, None] * 100.0 ** (-torch.arange(4) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(7, 4), angle)
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([turned.real, turned.imag], -1))


def test_rotated_products_depend_on_the_distance_alone():
    cos, sin = rotary(20, 8, 50.0)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    products = rotate(q.expand(20, 8), cos, sin) @ rotate(k.expand(20, 8), cos, sin).T
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(causal):
    attention = random_weights(Attention(16, 2))
    x = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))
    cos, sin = rotary(6, 8, 100.0)
    q, k, v = (part.view(3, 6, 2, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1))
    q, k = (rotate(F.rms_norm(part, (8,), eps=1e-6), cos, sin) for part in (q, k))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).reshape(3, 6, 16)
    visible = torch.ones(6, 6, dtype=torch.bool).tril() if causal else None
    torch.testing.assert_close(attention(x, cos, sin, visible, None), attention.out(expected))


def test_a_new_block_changes_nothing():
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Block(shaped())(x, *rotary(5, 8, 100.0), None, None), x)


def test_the_window_embedding_is_a_sum_over_offsets():
    embedding = WindowEmbedding(4, 2, range(-1, 2))
    tokens = torch.tensor([[3, 0, 2]])
    table = {o: t.weight for o, t in zip((-1, 0, 1), embedding.tables, strict=True)}
    expected = [
        table[-1][4] + table[0][3] + table[1][0],  # 4: outside the text
        table[-1][3] + table[0][0] + table[1][2],
        table[-1][0] + table[0][2] + table[1][4],
    ]
    torch.testing.assert_close(embedding(embedding.windows(tokens))[0], torch.stack(expected))


@pytest.mark.parametrize("window", [0, 1, 3])
def test_causal_hidden_states_see_the_tokens_before_them_and_the_others_all(window):
    tokens = torch.randint(0, 9, (1, 8), generator=torch.Generator().manual_seed(0))
    for causal in (True, False):
        network = random_weights(Transformer(shaped(window=window), 9, 9, 8, causal=causal))
        before = network(tokens)
        for t in range(8):
            changed = tokens.clone()
            changed[0, t] = (changed[0, t] + 1) % 9
            moved = ((network(changed) - before)[0].abs() > 1e-5).any(-1).tolist()
            assert moved == ([False] * (t + 1) + [True] * (7 - t) if causal else [True] * 8)


def test_logits_and_loss_are_float32_under_autocast():
    model = language_model()
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(tokens).dtype == torch.float32 and model.loss({"tokens": tokens}).dtype == torch.float32


ALL = torch.tensor(list(itertools.product(range(3), repeat=4)))  # every text of 4 tokens


def test_the_probabilities_of_all_texts_sum_to_one():
    nats = language_model().nats(ALL)
    assert nats.dtype == torch.float64 and nats.shape == (81,)
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_the_loss_is_nats_per_token_and_that_of_guessing_at_first():
    model = language_model()
    assert model.loss({"tokens": ALL}).item() == pytest.approx(model.nats(ALL).mean().item() / 4, rel=1e-6)
    new = Autoregressive(shaped_as_config(), Description(kind="text", shape=[4], vocabulary_size=3))
    assert new.loss({"tokens": ALL}).item() == pytest.approx(math.log(3), abs=1e-6)


def shaped_as_config():
    return Autoregressive.Config(layers=1, width=8, heads=1)


def test_nats_do_not_depend_on_how_windows_are_batched():
    model = language_model()
    torch.testing.assert_close(model.nats(ALL), torch.cat([model.nats(row[None]) for row in ALL]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_tempered_conditionals(temperature):
    model = language_model()
    sampling = Autoregressive.Sampling(temperature=temperature)
    p = torch.ones(81, dtype=torch.float64)
    for t in range(4):
        conditional = (model.logits(ALL)[:, t].double() / temperature).softmax(-1)
        p *= conditional.gather(1, ALL[:, t : t + 1])[:, 0]
    x = model.sample(torch.full((20_000, 4), -1), sampling, torch.Generator().manual_seed(0))
    frequencies = torch.bincount((x * 3 ** torch.arange(3, -1, -1)).sum(1), minlength=81) / len(x)
    assert 0.5 * (frequencies - p).abs().sum() < 0.035  # expected of this many samples: about 0.02


def test_a_text_does_not_depend_on_how_many_are_made_and_top_p_leaves_out_the_tail():
    model = language_model(V=9, T=8)
    x = model.sample(torch.full((3, 8), -1), Autoregressive.Sampling(), torch.Generator().manual_seed(0))
    alone = model.sample(torch.full((1, 8), -1), Autoregressive.Sampling(), torch.Generator().manual_seed(0))
    assert torch.equal(x[:1], alone) and len(x.unique(dim=0)) == 3
    surest = model.sample(torch.full((3, 8), -1), Autoregressive.Sampling(top_p=1e-6), torch.Generator().manual_seed(0))
    assert torch.equal(surest, model.logits(surest).argmax(-1))


def test_a_prompt_is_kept_and_continued():
    model = language_model(V=9, T=8)
    canvas = torch.tensor([[1, 2, 3, -1, -1, -1], [4, 5, -1, -1, -1, -1], [1, 2, 3, 4, 5, 6]])
    sampling = Autoregressive.Sampling()
    x = model.sample(canvas, sampling, torch.Generator().manual_seed(0))
    assert (x[canvas >= 0] == canvas[canvas >= 0]).all() and x.min() >= 0 and x.max() < 9
    assert torch.equal(x, model.sample(canvas, sampling, torch.Generator().manual_seed(0)))
    assert not torch.equal(x, model.sample(canvas, sampling, torch.Generator().manual_seed(1)))
    assert canvas.min() == -1, "the caller's canvas is its own"


def test_a_gap_before_given_text_is_refused():
    with pytest.raises(ValueError, match="a gap before given text"):
        language_model().sample(torch.tensor([[1, -1, 2]]), Autoregressive.Sampling(), torch.Generator())


def test_more_tokens_than_the_window_are_refused():
    with pytest.raises(ValueError, match="5 tokens are more than the model's window of 4"):
        language_model(T=4).sample(torch.full((1, 5), -1), Autoregressive.Sampling(), torch.Generator())


def test_a_preview_is_two_short_texts_and_repeats():
    for T in (8, 40):
        model, seeded = language_model(V=9, T=T), torch.Generator().manual_seed
        shown = model.preview(seeded(3))
        assert shown.shape == (2, min(T, 32)) and shown.min() >= 0 and shown.max() < 9
        assert torch.equal(shown, model.preview(seeded(3))) and not torch.equal(shown, model.preview(seeded(4)))


def test_numbers_of_a_request_are_bounded():
    for values, line in [
        ({"length": 10**7}, "sample.length: 10000000 should be less than or equal to 4096"),
        ({"temperature": 11.0}, "sample.temperature: 11.0 should be less than or equal to 10"),
        ({"steps": 4}, "sample.steps: unknown key"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(Autoregressive.Sampling, values, "sample")


def test_it_learns_a_text_and_says_it_again():
    torch.manual_seed(0)
    windows = (torch.arange(60) % 5).unfold(0, 10, 1)
    config = Autoregressive.Config(layers=1, width=32, heads=2)
    model = Autoregressive(config, Description(kind="text", shape=[10], vocabulary_size=5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.loss({"tokens": windows})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        # nothing is known of the first token, and everything of the others
        assert model.nats(windows).mean().item() == pytest.approx(math.log(5), abs=0.15)
        x = model.sample(torch.full((20, 10), -1), Autoregressive.Sampling(), torch.Generator().manual_seed(0))
    assert (x.diff(dim=1) % 5 == 1).float().mean() > 0.95


def test_impossible_shapes_name_both_values():
    values = shaped().model_dump()
    for changes, line in [
        ({"heads": 3}, "x.config: width 16 should be an even multiple of heads 3"),
        ({"heads": 16}, "x.config: width 16 should be an even multiple of heads 16"),
        ({"layers": 0}, "x.config.layers: 0 should be greater than or equal to 1"),
        ({"dropout": 1.0}, "x.config.dropout: 1.0 should be less than 1"),
        ({"widht": 8}, "x.config.widht: unknown key; did you mean width"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(Autoregressive.Config, values | changes, "x.config")
