"""Samplers of masked diffusion: how the hidden tokens of a canvas are revealed, one function for each algorithm.

All work over the same plain denoiser (masked.py) and change nothing but hidden tokens, wherever these stand: free
text, a prompt, a suffix, gaps. They take

    denoiser(tokens (B, T), where (B, T) bool) -> logits (where.sum(), V)   of the positions `where`, row by row
    draw(logits (n, V), u (n,)) -> tokens (n,)                              the token at quantile u
    uniform(*shape) -> (B, *shape)                                          independent numbers in [0, 1), float64
    x (B, T)                                                                tokens, `mask` where one is to be written

and return x (B, T) without a `mask`. What they need beyond that are the keywords after the star, the same names as in
`MaskedSampling`. A sampler asks for all its random numbers at once, in a shape that no row's content changes, and what it
does to a row depends on that row alone: so a text does not depend on which others are made with it.

Exact, below, means: where the denoiser knows the conditionals of one joint distribution and `draw` keeps them
(temperature 1, top_p 1), what is written has that distribution. So it is whenever a step reveals one token of a row, in an
order that does not look at what was drawn for it; tokens revealed together are drawn independently of each other.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from genai.diffusion.text.transformer import TextSampling

Denoiser = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[Tensor, Tensor], Tensor]
Uniform = Callable[..., Tensor]


class MaskedSampling(TextSampling):
    """How texts are generated: the sampler, the numbers that it reads, and what is done to the denoiser around it."""

    sampler: Literal[
        "ancestral", "ancestral_cached", "first_hitting", "left_to_right",
        "confidence", "margin", "threshold", "entropy_bounded", "remdm",
    ] = "ancestral"  # fmt: skip
    steps: Annotated[
        int, Field(ge=1, le=1000, description="ancestral, confidence, margin, remdm: in which all tokens are revealed")
    ] = 128
    noise: Annotated[
        float, Field(ge=0, le=1000, description="confidence: Gumbel noise on the order of revealing; 0 repeats")
    ] = 8.0
    threshold: Annotated[
        float, Field(ge=0, le=1, description="threshold: probability from which a token is revealed; 1: one at a time")
    ] = 0.9
    entropy_bound: Annotated[
        float,
        Field(ge=0, le=1000, description="entropy_bounded: nats of dependence risked in a step; 0: one at a time"),
    ] = 0.1
    eta: Annotated[
        float, Field(ge=0, le=1, description="remdm: share of the revealed that a step may hide again; 0: ancestral")
    ] = 0.02
    block: Annotated[
        int, Field(ge=1, le=4096, description="tokens written before those to their right; 4096: all at once")
    ] = 4096
    top_p: Annotated[
        float, Field(gt=0, le=1, description="mass of the likeliest tokens that are drawn from; 1: of all")
    ] = 1.0
    guidance: Annotated[
        float, Field(ge=0, le=100, description="above 1: texts that hang more on their prompt; 1: none")
    ] = 1.0
    best_of: Annotated[int, Field(ge=1, le=16, description="texts of which the model's likeliest is kept")] = 1

    @field_validator("steps", "noise", "threshold", "entropy_bound", "eta")
    @classmethod
    def _is_read(cls, value: float, info: ValidationInfo) -> float:
        """Refuse a number that is given and would change nothing."""
        name, sampler = str(info.field_name), info.data.get("sampler")
        if sampler and value != cls.model_fields[name].default and name not in keywords(sampler):
            reads = " and ".join(keywords(sampler)) or "none of these numbers"
            raise ValueError(f"{value} should be left out: the sampler {sampler} reads {reads}")
        return value

    @classmethod
    def of_sampler(cls, numbers: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers without those that only samplers other than the one they name read."""
        reads = keywords(numbers.get("sampler", cls.model_fields["sampler"].default))
        others = {key for sampler in SAMPLERS for key in keywords(sampler)}.difference(reads)
        return {key: value for key, value in numbers.items() if key not in others}


def keywords(sampler: str) -> list[str]:
    """Return the names of the numbers that a sampler reads: its keywords."""
    parameters = inspect.signature(SAMPLERS[sampler]).parameters.values() if sampler in SAMPLERS else ()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def sample(denoiser: Denoiser, x: Tensor, mask: int, sampling: MaskedSampling, generator: torch.Generator) -> Tensor:
    """Return x (B, T) with each `mask` replaced by a token, by the sampler and the numbers of `sampling`.

    generator: on the CPU, wherever the denoiser is. It gives each row's own seeds, so that the first rows of a larger
    batch are those of a smaller one.
    """
    one_call = asked(denoiser)
    hidden = (x == mask).repeat_interleave(sampling.best_of, 0)
    texts = block_wise(
        SAMPLERS[sampling.sampler],
        guided(one_call, ~hidden, mask, sampling.guidance),
        partial(categorical, temperature=sampling.temperature, top_p=sampling.top_p),
        per_row(generator, len(hidden), x.device),
        x.repeat_interleave(sampling.best_of, 0),
        mask,
        block=sampling.block,
        **{name: getattr(sampling, name) for name in keywords(sampling.sampler)},
    )
    if sampling.best_of == 1:
        return texts
    likelihood = log_likelihood(one_call, texts, hidden, mask).view(len(x), sampling.best_of)
    return texts.view(len(x), sampling.best_of, -1)[torch.arange(len(x), device=x.device), likelihood.argmax(1)]


# What is random


def per_row(generator: torch.Generator, B: int, device: torch.device) -> Uniform:
    """Return `uniform`, each row's numbers from a generator of its own: a text does not depend on how many are made."""
    seeds = [int(torch.randint(2**31, (), generator=generator)) for _ in range(B)]
    rows = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda *shape: torch.stack([torch.rand(shape, generator=g, dtype=torch.float64) for g in rows]).to(device)


def categorical(logits: Tensor, u: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Return the token (n,) at quantile u (n,) of softmax(logits / temperature), (n, V), all in float64.

    In float32 the tail is cut off, which acts like a lower temperature (Zheng et al., "Masked diffusion
    models are secretly time-agnostic masked models and exploit inaccurate categorical sampling", 2024).

    top_p below 1: of the fewest tokens whose probabilities sum to top_p, the likeliest, alone (Holtzman et al., "The
    curious case of neural text degeneration", 2020, eq. 2 and 3).
    """
    # summed on the CPU: CUDA's cumsum is not deterministic, which training forbids
    p = (logits.double() / temperature).softmax(-1).cpu()
    if top_p < 1:
        ordered, token = p.sort(stable=True, dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        p = p.scatter(1, token, ordered.masked_fill(beyond, 0.0))
    cumulative = p.cumsum(-1)
    drawn = torch.searchsorted(cumulative, u.cpu()[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[-1] - 1).to(logits.device)


# What is done to the denoiser


def asked(denoiser: Denoiser) -> Denoiser:
    """Return the denoiser that leaves out the rows of which nothing is asked: they cost no evaluation."""

    def of_rows(tokens: Tensor, where: Tensor) -> Tensor:
        rows = where.any(1)
        return denoiser(tokens[rows], where[rows])

    return of_rows


def guided(denoiser: Denoiser, given: Tensor, mask: int, guidance: float) -> Denoiser:
    """Return the denoiser guided by the tokens that are given, (B, T) bool, at two evaluations instead of one.

    Classifier-free guidance (Ho and Salimans, 2022) in the form that needs no training for it: "without the prompt" is
    the canvas with the prompt hidden (Nie et al., "Scaling up masked diffusion models on text", 2025):

        logits = without + guidance (with - without)
    """
    if guidance == 1 or not given.any():
        return denoiser

    def extrapolated(tokens: Tensor, where: Tensor) -> Tensor:
        without = denoiser(torch.where(given, mask, tokens), where)
        return without + guidance * (denoiser(tokens, where) - without)

    return extrapolated


def block_wise(
    sampler: Callable[..., Tensor],
    denoiser: Denoiser,
    draw: Draw,
    uniform: Uniform,
    x: Tensor,
    mask: int,
    *,
    block: int,
    **numbers: Any,
) -> Tensor:
    """Fill blocks of as many tokens from left to right, each by a sampler, with all the rest of the canvas in view.

    Semi-autoregressive sampling (Nie et al., "Large language diffusion models" (LLaDA), 2025, and Arriola et al.,
    "Block diffusion", 2025, which trains for it). Blocks of 1: left to right; one block: the sampler itself. `steps` are
    those of the whole text, so a block has its share of them.
    """
    T = x.shape[1]
    if "steps" in numbers and block < T:
        numbers["steps"] = math.ceil(numbers["steps"] * block / T)
    for end in range(block, T + block, block):
        rest = x[:, end:]  # the sampler is not shown it, the denoiser is

        def whole(tokens: Tensor, where: Tensor, rest: Tensor = rest) -> Tensor:
            return denoiser(torch.cat([tokens, rest], 1), F.pad(where, (0, rest.shape[1])))

        x = torch.cat([sampler(whole, draw, uniform, x[:, :end], mask, **numbers), rest], 1)
    return x


def log_likelihood(denoiser: Denoiser, x: Tensor, hidden: Tensor, mask: int) -> Tensor:
    """Return log p(hidden tokens of x | the others) in nats, (B,) float64, by the chain rule from left to right.

    x: (B, T) tokens; hidden: (B, T) bool. As many evaluations as a row has hidden tokens.
    """
    canvas, total = torch.where(hidden, mask, x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    while (left := canvas == mask).any():
        where = left & (left.cumsum(1) == 1)
        total[where.any(1)] -= F.cross_entropy(denoiser(canvas, where).double(), x[where], reduction="none")
        canvas = torch.where(where, x, canvas)
    return total


# Samplers


def ancestral(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, steps: int) -> Tensor:
    """Run the reverse process from t = 1 to 0 in equal steps (Sahoo et al., MDLM, 2024).

    From t to s a hidden token is revealed with probability (t - s) / t, whatever it will be:

        q(x_s = v | x_t = mask) = (t - s) / t p(v | the visible tokens)

    Exact as the steps grow: an evaluation each.
    """
    x, random = x.clone(), uniform(steps, 2, x.shape[1])
    for k in range(steps):
        move, u = random[:, k].unbind(1)
        hidden = x == mask
        if not hidden.any():
            break
        logits = denoiser(x, hidden)
        reveal = hidden & (move * (steps - k) < 1)  # (t - s) / t = 1 / (steps - k)
        x[reveal] = draw(logits[reveal[hidden]], u[reveal])
    return x


def ancestral_cached(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, steps: int) -> Tensor:
    """Run `ancestral` without needless evaluations: the same draws give the same text.

    The denoiser is not told t, so the logits of a row hold until one of its tokens is revealed (Sahoo et al., MDLM,
    2024; Ou et al., RADD, 2025). Instead of keeping them, ask for them when they are used: which tokens a
    step reveals is known before. A row costs as many evaluations as it takes different states, at most min(steps, T).
    """
    x, random = x.clone(), uniform(steps, 2, x.shape[1])
    for k in range(steps):
        move, u = random[:, k].unbind(1)
        reveal = (x == mask) & (move * (steps - k) < 1)
        if reveal.any():
            x[reveal] = draw(denoiser(x, reveal), u[reveal])
    return x


def first_hitting(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int) -> Tensor:
    """Run the reverse process in continuous time, from one revealing to the next (Zheng et al., 2024).

    With n tokens hidden at time t_n the next is revealed at t_(n-1) = t_n u^(1/n), and each is as likely to be it. The
    times tell the denoiser nothing, so what is left of them is the order: uniform over all. Exact; an evaluation a token.
    """
    x, (order, u) = x.clone(), uniform(2, x.shape[1]).unbind(1)
    while (hidden := x == mask).any():
        where = hidden & (order == order.masked_fill(~hidden, math.inf).amin(1, keepdim=True))
        x[where] = draw(denoiser(x, where), u[where])
    return x


def left_to_right(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int) -> Tensor:
    """Draw each token given those before it and all that was given: p(x) = prod_i p(x_i | given, x_1 ... x_(i-1)).

    The chain rule, in the order of an autoregressive model. Exact; an evaluation a token.
    """
    x, u = x.clone(), uniform(x.shape[1])
    while (hidden := x == mask).any():
        where = hidden & (hidden.cumsum(1) == 1)
        x[where] = draw(denoiser(x, where), u[where])
    return x


def confidence(
    denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, steps: int, noise: float
) -> Tensor:
    """Draw all hidden tokens, keep at each step those of which the model is surest (Chang et al., "MaskGIT", 2022).

    In equal numbers, as LLaDA does (Nie et al., 2025). Their order is by log p + noise * Gumbel, the
    noise falling linearly to zero: without it the surest text is a repetition. Not exact, whatever the steps: of the
    tokens drawn the likelier are kept.
    """
    x, random = x.clone(), uniform(steps, 2, x.shape[1])
    for k in range(steps):
        u, v = random[:, k].unbind(1)
        hidden = x == mask
        if not hidden.any():
            break
        logits = denoiser(x, hidden)
        drawn = draw(logits, u[hidden])
        log_p = logits.double().log_softmax(-1).gather(1, drawn[:, None])[:, 0]
        gumbel = -(-v[hidden].clamp(min=1e-300).log()).log()
        best = ranks(log_p + noise * (1 - (k + 1) / steps) * gumbel, hidden) < share(hidden, steps - k)
        x[best] = x.masked_scatter(hidden, drawn)[best]
    return x


def margin(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, steps: int) -> Tensor:
    """Reveal in equal numbers where the likeliest token leads the second by most (Kim et al., "Train for the worst,
    plan for the best", 2025: top probability margin, |p_1 - p_2|).

    The order does not look at what is drawn: exact with a step for each token.
    """
    x, random = x.clone(), uniform(steps, x.shape[1])
    for k in range(steps):
        hidden = x == mask
        if not hidden.any():
            break
        logits = denoiser(x, hidden)
        first, second = F.pad(logits.double().softmax(-1), (0, 1)).topk(2).values.unbind(1)  # padded: V may be 1
        best = ranks(first - second, hidden) < share(hidden, steps - k)
        x[best] = draw(logits[best[hidden]], random[:, k][best])
    return x


def threshold(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, threshold: float) -> Tensor:
    """Reveal all tokens of which the likeliest has at least a probability, and always the surest (Wu et al.,
    "Fast-dLLM", 2025).

    As many evaluations as it takes, one for all to one a token. Exact at 1, where only certain tokens come together.
    """
    x, u = x.clone(), uniform(x.shape[1])
    while (hidden := x == mask).any():
        logits = denoiser(x, hidden)
        p = logits.double().softmax(-1).amax(-1)
        reveal = ranks(p, hidden) < 1
        reveal[hidden] |= p >= threshold
        x[reveal] = draw(logits[reveal[hidden]], u[reveal])
    return x


def entropy_bounded(
    denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, entropy_bound: float
) -> Tensor:
    """Reveal, least entropy first, as many tokens as depend on each other by no more than a bound (Ben-Hamu et al.,
    "Accelerated sampling from masked diffusion models via entropy bounded unmasking", 2025).

    Drawing the tokens U independently is wrong by D(p(x_U) || prod p(x_i)) = sum_U H(x_i) - H(x_U), at most

        sum_U H(x_i) - max_U H(x_i)  <=  entropy_bound

    Exact at 0, where only certain tokens come together.
    """
    x, u = x.clone(), uniform(x.shape[1])
    while (hidden := x == mask).any():
        logits = denoiser(x, hidden)
        entropy = torch.special.entr(logits.double().softmax(-1)).sum(-1)
        grid = torch.full(x.shape, math.inf, dtype=torch.float64, device=x.device)
        grid[hidden] = entropy
        ordered, position = grid.cpu().sort(stable=True, dim=-1)  # on the CPU, as in `categorical`
        smaller = F.pad(ordered.cumsum(-1)[:, :-1], (1, 0))  # the sum without its largest
        within = torch.zeros_like(hidden, device="cpu").scatter(1, position, smaller <= entropy_bound)
        reveal = hidden & within.to(x.device)
        x[reveal] = draw(logits[reveal[hidden]], u[reveal])
    return x


def remdm(denoiser: Denoiser, draw: Draw, uniform: Uniform, x: Tensor, mask: int, *, steps: int, eta: float) -> Tensor:
    """Run the reverse process that also hides tokens again, so that errors can be mended (Wang et al., "Remasking
    discrete diffusion models with inference-time scaling", 2025: ReMDM with a capped rate).

    From t to s, a revealed token is hidden with probability sigma = min(eta, (1 - alpha(s)) / alpha(t)), and a hidden
    one revealed with probability (alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)): the share that is hidden at each
    time stays as in `ancestral`, which eta = 0 is. Given tokens are never hidden. Exact as the steps grow and eta
    falls as 1 / steps, so that a step moves one token.
    """
    x, random, writable = x.clone(), uniform(steps, 2, x.shape[1]), x == mask
    for k in range(steps):
        move, u = random[:, k].unbind(1)
        hidden = x == mask
        sigma = min(eta, (steps - k - 1) / k) if k else 0.0  # alpha(t) = k / steps, alpha(s) = (k + 1) / steps
        reveal, hide = hidden & (move * (steps - k) < 1 + sigma * k), writable & ~hidden & (move < sigma)
        if reveal.any():
            x[reveal] = draw(denoiser(x, reveal), u[reveal])
        x[hide] = mask
    return x


def ranks(score: Tensor, hidden: Tensor) -> Tensor:
    """Return how many positions of a row have a higher score, (B, T), of the hidden ones' scores (n,); ties: the left."""
    grid = torch.full(hidden.shape, -math.inf, dtype=torch.float64, device=hidden.device)
    grid[hidden] = score
    rank = grid.argsort(stable=True, dim=-1, descending=True).argsort(-1)
    return rank.masked_fill(~hidden, hidden.shape[1])


def share(hidden: Tensor, steps: int) -> Tensor:
    """Return how many of each row's hidden tokens to reveal, (B, 1), so that all are after as many steps."""
    return -(-hidden.sum(1, keepdim=True) // steps)


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    sampler.__name__: sampler
    for sampler in (
        ancestral,
        ancestral_cached,
        first_hitting,
        left_to_right,
        confidence,
        margin,
        threshold,
        entropy_bounded,
        remdm,
    )
}
