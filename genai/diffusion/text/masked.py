"""Masked diffusion of text: hide tokens at random, learn to tell them, generate by revealing a few at a time.

Sahoo et al., "Simple and effective masked diffusion language models" (MDLM, 2024); Shi et al., "Simplified
and generalized masked diffusion" (MD4, 2024); Ou et al., "Your absorbing discrete diffusion secretly models
the conditional distributions of clean data" (RADD, 2024).

Forward process: each token becomes [MASK] independently by time t with probability 1 - alpha(t) = t and
stays so. The reverse process needs p(x_i | the tokens that are not hidden), which one bidirectional
transformer gives for all positions; it is not told t, since t says nothing about x beyond what is
hidden (RADD shows it). A `denoiser` below is this function:

    denoiser(tokens (B, T), where (B, T) bool) -> logits (where.sum(), V)   of the positions `where`, row by row

It has no output for [MASK] and is only asked about hidden positions: MDLM's substitution (SUBS). How texts are made
with it stands in samplers.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai.core.dataset import Description
from genai.diffusion.text.samplers import Denoiser, MaskedSampling, sample
from genai.diffusion.text.transformer import Transformer, TransformerConfig

DRAWS = 8  # maskings per window in nats; the bound of 200,000 characters moves by 0.005 from draw to draw
ROWS = 128  # masked windows that the denoiser is given at a time in chain_rule; no result depends on it
PREVIEW_STEPS = 32  # of a text that is shown while it trains


class MaskedDiffusion(nn.Module):
    """A masked diffusion model of windows of tokens."""

    takes = frozenset({"text"})
    task = "language_model"
    metric = "nelbo_bpc"
    generates = "text_generation"
    Sampling = MaskedSampling

    class Config(TransformerConfig):
        pass

    def __init__(self, config: Config, description: Description):
        super().__init__()
        V, T = description.vocabulary_size, description.shape[0]
        assert V is not None
        self.length = T
        self.mask = V  # the id after the vocabulary's
        self.transformer = Transformer(config, n_tokens=V + 1, n_outputs=V, length=T, causal=False)

    def denoise(self, tokens: Tensor, where: Tensor) -> Tensor:
        """The denoiser: see the head of this file."""
        return self.transformer.logits(self.transformer(tokens)[where])

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return an unbiased estimate of the NELBO per token in nats, each window masked once.

        In training, of another mean of the same cross-entropies, which has the same minimum: `bell_shaped_counts` are
        hidden, and every hidden token weighs the same. Both spend the gradient where most is to be learned.
        """
        tokens = batch["tokens"]
        B, T = tokens.shape
        hidden = (bell_shaped_counts if self.training else stratified_counts)(torch.rand(()), B, T)
        hidden = hidden[torch.randperm(B)].to(tokens.device)
        where = torch.rand(B, T, device=tokens.device).argsort(-1).argsort(-1) < hidden[:, None]
        if self.training:
            return F.cross_entropy(self.denoise(torch.where(where, self.mask, tokens), where), tokens[where])
        return masked_cross_entropy(self.denoise, tokens, where, self.mask).mean()

    def nats(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """tokens: (B, T) -> an unbiased estimate of each window's NELBO, (B,) float64."""
        return nelbo(self.denoise, tokens, self.mask, DRAWS, generator)

    def token_nats(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) -> -log p of each token given those before it, (B, T) float64."""
        return chain_rule(self.denoise, tokens, self.mask)

    def sample(self, canvas: Tensor, sampling: MaskedSampling, generator: torch.Generator) -> Tensor:
        """Return the canvas (B, T) with each -1 replaced by a token; the rest, wherever it stands, is kept."""
        x = torch.where(canvas < 0, self.mask, canvas)
        return sample(self.denoise, x, self.mask, sampling, generator)

    def preview(self, generator: torch.Generator) -> Tensor:
        """Return the tokens of two texts, revealed in few steps, (2, T)."""
        canvas = torch.full((2, self.length), -1, device=self.transformer.cos.device)
        return self.sample(canvas, MaskedSampling(steps=PREVIEW_STEPS), generator)


def stratified_counts(u: Tensor, n: int, T: int) -> Tensor:
    """Return n numbers of hidden tokens in 1 ... T, evenly spaced from one u in [0, 1): each is uniform over u."""
    return 1 + ((torch.arange(n) + u.double()) / n * T).long().clamp(max=T - 1)


def bell_shaped_counts(u: Tensor, n: int, T: int) -> Tensor:
    """Return n numbers of hidden tokens in 1 ... T, from one u in [0, 1) spread over a bell and a little of everything.

    The share hidden is normal, 0.5 +- 0.2, in 85 % of them and uniform in the rest: where little or nearly all is hidden,
    a window says less of how its tokens depend on each other.
    """
    q = (torch.arange(n) + u.double()) / n
    bell = 0.5 + 0.2 * torch.special.ndtri(q / 0.85)
    hidden = torch.where(q < 0.85, bell, (q - 0.85) / 0.15)
    return 1 + (hidden * T).long().clamp(0, T - 1)


def masked_cross_entropy(denoiser: Denoiser, tokens: Tensor, where: Tensor, mask: int) -> Tensor:
    """Return the mean cross-entropy of each window's hidden tokens, (B,), given the others.

    With the number k of hidden tokens uniform in 1 ... T, and which ones uniform too, its mean is the
    NELBO per token. In continuous time that is (MDLM and MD4, with alpha(t) = 1 - t)

        -log p(x) <= int_0^1 (1/t) E[ sum over hidden i of -log p(x_i | rest) ] dt

    and given k, t drops out: int_0^1 (1/t) C(T, k) t^k (1 - t)^(T - k) dt = 1/k. So the bound is
    sum_k (1/k) E[sum] = T E_k[mean]: the mean code length over all orders of revealing (RADD), with none of the
    variance of the weight 1/t.
    """
    logits = denoiser(torch.where(where, mask, tokens), where)
    nats = F.cross_entropy(logits, tokens[where], reduction="none")
    rows = where.nonzero()[:, 0]
    return torch.zeros(len(tokens), dtype=nats.dtype, device=nats.device).index_add(0, rows, nats) / where.sum(1)


def nelbo(denoiser: Denoiser, tokens: Tensor, mask: int, draws: int, generator: torch.Generator) -> Tensor:
    """Return an unbiased estimate of the NELBO in nats of each window of tokens (B, T), (B,) float64.

    Each window is masked `draws` times, with numbers of hidden tokens spread evenly over 1 ... T, by
    itself: the result does not depend on which windows come together.
    """
    T = tokens.shape[1]
    estimates = []
    for window in tokens:
        u = torch.rand(1 + draws * T, generator=generator, dtype=torch.float64)
        hidden = stratified_counts(u[0], draws, T)
        where = (u[1:].view(draws, T).argsort(-1).argsort(-1) < hidden[:, None]).to(tokens.device)
        estimates.append(T * masked_cross_entropy(denoiser, window.expand(draws, T), where, mask).double().mean())
    return torch.stack(estimates)


def chain_rule(denoiser: Denoiser, tokens: Tensor, mask: int) -> Tensor:
    """Return the code length of each token from left to right, in nats, (B, T) float64.

    Position t is asked for with t and all after it hidden: -log p(x_t | x_1 ... x_{t-1}), so that a row's sum is -log p
    of the window exactly, for a model that writes in this order. The NELBO is the mean code length over all orders; a
    denoiser whose conditionals are those of one joint distribution has the same for each.

    Each window by itself, its T masked copies together: the result does not depend on which windows come together.
    """
    T = tokens.shape[1]
    hidden = torch.ones(T, T, dtype=torch.bool, device=tokens.device).triu()  # row t hides t and what follows
    asked = torch.eye(T, dtype=torch.bool, device=tokens.device)
    nats = []
    for window in tokens:
        for rows in torch.arange(T, device=tokens.device).split(ROWS):
            logits = denoiser(torch.where(hidden[rows], mask, window), asked[rows])
            nats.append(F.cross_entropy(logits.double(), window[rows], reduction="none"))
    return torch.cat(nats).view(tokens.shape)
