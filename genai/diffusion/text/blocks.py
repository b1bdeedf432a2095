"""Block diffusion: blocks of tokens from left to right, each by masked diffusion given all before it.

Arriola et al., "Block diffusion: interpolating between autoregressive and diffusion language models" (BD3-LM, 2025):

    log p(x) = sum_b log p(x_b | x_<b)  >=  - sum_b NELBO(x_b | x_<b)

Blocks of one token: the autoregressive model, and the bound is exact. One block: masked diffusion of the whole text.
Between them a text can be of any length, and what was written is computed once: its keys and values are kept.
"""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from genai.core.config import Count
from genai.core.dataset import Description
from genai.diffusion.text.masked import DRAWS, PREVIEW_STEPS, bell_shaped_counts
from genai.diffusion.text.samplers import SAMPLERS, Revealing, categorical, keywords, per_row
from genai.diffusion.text.transformer import KeyValues, Transformer, TransformerConfig, rotary


class BlockDiffusion(nn.Module):
    """A language model by the chain rule over blocks of tokens, and masked diffusion within them."""

    takes = frozenset({"text"})
    task = "language_model"
    metric = "nelbo_bpc"
    generates = "text_generation"
    any_length = True
    Sampling = Revealing

    class Config(TransformerConfig):
        block: Count = Field(description="tokens of a block; 1: autoregressive")

    def __init__(self, config: Config, description: Description):
        super().__init__()
        V, T = description.vocabulary_size, description.shape[0]
        assert V is not None
        if config.block > T:
            raise ValueError(f"block: {config.block} should be at most {T}, the tokens of a window")
        self.length, self.block, self.mask = T, config.block, V
        self.head_size, self.rope_base = config.width // config.heads, config.rope_base
        self.transformer = Transformer(config, n_tokens=V + 1, n_outputs=V, length=T, causal=False)

    def logits(self, tokens: Tensor, where: Tensor) -> Tensor:
        """Return the logits (where.sum(), V) of hidden tokens, given the others of their block and all blocks before.

        tokens, where: (B, T). The text and the text with hidden tokens go through the network side by side, so that all
        blocks are learned at once: a block that is hidden in part sees itself and the whole blocks before it, a whole
        one itself and those before it (BD3-LM, section 3.2).
        """
        T, embedding = tokens.shape[1], self.transformer.embedding
        at = torch.arange(T, device=tokens.device)
        offsets = torch.tensor([*embedding.offsets], device=tokens.device)
        block, neighbor = at[:, None] // self.block, (at[:, None] + offsets) // self.block
        whole = embedding.windows(tokens).masked_fill(neighbor > block, embedding.outside)
        partly = embedding.windows(torch.where(where, self.mask, tokens)).where(neighbor == block, whole)
        before, same = block > block.T, block == block.T
        visible = torch.cat([torch.cat([before | same, before & same], 1), torch.cat([before, same], 1)])
        cos, sin = (table[:T].repeat(2, 1) for table in (self.transformer.cos, self.transformer.sin))
        states = self.transformer.states(torch.cat([whole, partly], 1), cos, sin, visible)
        return self.transformer.logits(states[:, T:][where])

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return an unbiased estimate of the NELBO per token in nats; in training what `MaskedDiffusion` has there."""
        tokens = batch["tokens"]
        B, T = tokens.shape
        sizes, order = self.sizes(T), torch.rand(B, T, device=tokens.device)
        if not self.training:
            return self.bound(tokens, evenly(torch.rand(len(sizes)), B, sizes), order).mean() / T
        hidden = bell_shaped_counts(torch.rand(()), B * len(sizes), self.block)
        hidden = hidden[torch.randperm(B * len(sizes))].view(B, -1).minimum(sizes)
        where = self.hide(hidden.to(tokens.device), order)
        return F.cross_entropy(self.logits(tokens, where), tokens[where])

    def nats(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """tokens: (B, T) -> an unbiased estimate of each window's NELBO, (B,) float64; exact with blocks of 1.

        Each window by itself: the result does not depend on which windows come together.
        """
        T, sizes = tokens.shape[1], self.sizes(tokens.shape[1])
        estimates = []
        for window in tokens:
            u = torch.rand(len(sizes) + DRAWS * T, generator=generator, dtype=torch.float64)
            hidden, order = evenly(u[: len(sizes)], DRAWS, sizes), u[len(sizes) :].view(DRAWS, T)
            estimates.append(self.bound(window.expand(DRAWS, T), hidden, order.to(tokens.device)).mean())
        return torch.stack(estimates)

    def token_nats(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) -> -log p of each token given those before it, (B, T) float64: the chain rule in each block.

        The j-th tokens of all blocks are asked for together: as many evaluations as a block has tokens.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device) % self.block
        turns = torch.arange(min(self.block, tokens.shape[1]), device=tokens.device)[:, None]  # a row each
        hidden, asked = place >= turns, place == turns
        nats = []
        for window in tokens:
            logits = self.logits(window.expand(hidden.shape), hidden)[asked[hidden]]
            costs = F.cross_entropy(logits.double(), window.expand(hidden.shape)[asked], reduction="none")
            nats.append(costs[asked.nonzero()[:, 1].argsort()])
        return torch.stack(nats)

    def sizes(self, T: int) -> Tensor:
        """Return how many tokens each block of a text of T has."""
        return torch.tensor([min(self.block, T - start) for start in range(0, T, self.block)])

    def hide(self, hidden: Tensor, order: Tensor) -> Tensor:
        """Return where tokens are hidden, (B, T) bool: of each block the first `hidden` (B, n) in an order (B, T) in [0, 1)."""
        T = order.shape[1]
        blocks = F.pad(order, (0, -T % self.block), value=1.0).unflatten(1, (-1, self.block))
        return (blocks.argsort(-1).argsort(-1) < hidden[..., None]).flatten(1)[:, :T]

    def bound(self, tokens: Tensor, hidden: Tensor, order: Tensor) -> Tensor:
        """Return the sum over the blocks of size times the mean cross-entropy of what is hidden, (B,) float64."""
        hidden = hidden.to(tokens.device)
        where = self.hide(hidden, order)
        weight = (self.sizes(tokens.shape[1]).to(tokens.device) / hidden.double()).repeat_interleave(self.block, 1)
        nats = F.cross_entropy(self.logits(tokens, where), tokens[where], reduction="none")
        weighted = nats.double() * weight[:, : tokens.shape[1]][where]
        return (
            torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device).masked_scatter(where, weighted).sum(1)
        )

    def sample(self, canvas: Tensor, sampling: Revealing, generator: torch.Generator) -> Tensor:
        """Return the canvas (B, T), of any T, with each -1 replaced by a token, block after block.

        A block sees the last `length` tokens with itself. Raises ValueError where a block with a -1 stands before one with
        a given token, which could not see it.
        """
        x = torch.where(canvas < 0, self.mask, canvas)
        given = canvas >= 0
        starts = range(0, x.shape[1], self.block)
        if any(
            (~given[:, i : i + self.block]).any(1).logical_and(given[:, i + self.block :].any(1)).any() for i in starts
        ):
            raise ValueError(
                f"a gap more than a block of {self.block} tokens before given text; this model writes block after block, "
                "masked diffusion of the whole text fills gaps anywhere"
            )
        draw = partial(categorical, temperature=sampling.temperature, top_p=sampling.top_p)
        uniform, past = per_row(generator, len(x), x.device), KeyValues(self.length)
        numbers = {name: getattr(sampling, name) for name in keywords(sampling.sampler)}
        if "steps" in numbers:  # those of the whole text
            numbers["steps"] = -(-numbers["steps"] * self.block // x.shape[1])
        for start in starts:
            part = x[:, start : start + self.block]
            denoiser = partial(self.next_logits, x[:, :start], past)
            if (part == self.mask).any():
                part = SAMPLERS[sampling.sampler](denoiser, draw, uniform, part, self.mask, **numbers)
                x = torch.cat([x[:, :start], part, x[:, start + self.block :]], 1)
            past.growing = True
            self.next_states(x[:, :start], part, past)
            past.growing = False
        return x

    def next_logits(self, text: Tensor, past: KeyValues, block: Tensor, where: Tensor) -> Tensor:
        """Return the logits (where.sum(), V) of positions `where` of a block (B, n) that comes after a text (B, T)."""
        return self.transformer.logits(self.next_states(text, block, past)[where])

    def next_states(self, text: Tensor, block: Tensor, past: KeyValues) -> Tensor:
        """Return the hidden states of a block (B, n), which comes after a text (B, T) whose keys and values are kept."""
        embedding, n = self.transformer.embedding, block.shape[1]
        reach = max(0, -embedding.offsets[0])
        windows = embedding.windows(torch.cat([text[:, max(0, text.shape[1] - reach) :], block], 1))[:, -n:]
        cos, sin = rotary(text.shape[1] + n, self.head_size, self.rope_base)
        cos, sin = (table[-n:].to(block.device) for table in (cos, sin))
        return self.transformer.states(windows, cos, sin, past=past)

    def preview(self, generator: torch.Generator) -> Tensor:
        """Return the tokens of two texts, (2, T)."""
        canvas = torch.full((2, self.length), -1, device=self.transformer.cos.device)
        return self.sample(canvas, Revealing(steps=PREVIEW_STEPS), generator)


def evenly(u: Tensor, n: int, sizes: Tensor) -> Tensor:
    """Return n numbers of hidden tokens for each block, (n, blocks), spread evenly over 1 ... size from one u (blocks,) each."""
    return 1 + ((torch.arange(n)[:, None] + u.double()) / n * sizes).long().minimum(sizes - 1)
