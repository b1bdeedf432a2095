"""The transformer: tokens to hidden states, hidden states to logits.

Vaswani et al., "Attention is all you need" (2017), with what has replaced its parts since: rotary
positions (Su et al., 2021), RMS norm before each part (Zhang and Sennrich, 2019),
normalised queries and keys (Henry et al., 2020), squared ReLU (So et al., 2021), output projections
that start at zero, so that every block starts as the identity.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genai.core.config import Count, Fraction, Seed, Strict


class TransformerConfig(Strict):
    """The shape of a transformer; the number of tokens and the length come from the data."""

    layers: Count
    width: Count = Field(description="numbers that stand for a token between blocks")
    heads: Count
    window: Annotated[int, Field(ge=0, le=16)] = Field(
        2, description="the input is the sum of an embedding of each token within this distance (causal: before it)"
    )
    rope_base: Annotated[float, Field(gt=1)] = Field(
        1000.0, description="the longest wavelength of the positions is about 6 times it"
    )
    dropout: Fraction = Field(0.0, description="of what each part adds")

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} should be an even multiple of heads {self.heads}")
        return self


class TextSampling(Strict):
    """What every way of generating texts needs to be told."""

    length: Annotated[int, Field(ge=1, le=4096, description="tokens in a text")] = 128
    temperature: Annotated[float, Field(gt=0, le=10, description="below 1: likelier, less varied text")] = 0.8
    top_p: Annotated[
        float, Field(gt=0, le=1, description="mass of the likeliest tokens that are drawn from; 1: of all")
    ] = 1.0
    seed: Seed = 0


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last axis to a mean square of one."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def rotary(length: int, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin (T, size / 2) of position times frequency, base^(-2 i / size)."""
    frequency = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of numbers of x (..., T, size) by its position's angle: q . k then depends on distance alone."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class KeyValues:
    """What attention keeps of tokens that do not change any more: each layer's keys and values, (B, H, n, size)."""

    def __init__(self, limit: int):
        self.limit = limit  # tokens that are seen at a time
        self.kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.growing = False  # whether those that come next are kept, too

    def before(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kept keys and values followed by these, the last ones."""
        if layer in self.kept:
            k, v = (torch.cat(pair, 2)[:, :, -self.limit :] for pair in zip(self.kept[layer], (k, v), strict=True))
        if self.growing:
            self.kept[layer] = k, v
        return k, v


class Attention(nn.Module):
    """softmax(q k^T / sqrt(size)) v in several heads (Vaswani et al., eq. 1), q and k normalised and rotated."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None, past: KeyValues | None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, size)
        q, k = rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin)
        if past is not None:
            k, v = past.before(self, k, v)
        if x.device.type == "cuda":
            y = F.scaled_dot_product_attention(q, k, v, visible)
        else:  # on a CPU in bfloat16 a training step takes 1.7 times as long with the fused one
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, H, T, T)
            if visible is not None:
                scores = scores.masked_fill(~visible, -math.inf)
            y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """W2 relu(W1 x)^2, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.mlp = MLP(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None, past: KeyValues | None) -> Tensor:
        x = x + self.dropout(self.attention(rms_norm(x), cos, sin, visible, past))
        return x + self.dropout(self.mlp(rms_norm(x)))


class WindowEmbedding(nn.Module):
    """The sum over offsets o of E_o[token at position t + o]: short phrases are known before any attention.

    Positions outside the text have an embedding of their own.
    """

    def __init__(self, n_tokens: int, width: int, offsets: range):
        super().__init__()
        self.outside = n_tokens
        self.offsets = offsets
        tables = [nn.Embedding(n_tokens + 1, width) for _ in offsets]
        for table in tables:
            nn.init.normal_(table.weight, std=1 / math.sqrt(len(offsets)))
        self.tables = nn.ModuleList(tables)

    def windows(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) int64 -> the tokens at the offsets from each, (B, T, W)."""
        T = tokens.shape[1]
        before, after = max(0, -self.offsets[0]), max(0, self.offsets[-1])
        padded = F.pad(tokens, (before, after), value=self.outside)
        return torch.stack([padded[:, before + o : before + o + T] for o in self.offsets], -1)

    def forward(self, windows: Tensor) -> Tensor:
        """windows: (B, T, W) int64 -> (B, T, C)."""
        return sum(table(tokens) for table, tokens in zip(self.tables, windows.unbind(-1), strict=True))


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, C), and hidden states -> logits (..., n_outputs).

    Causal: position t sees the tokens before t, not itself (offsets end at -1). Otherwise it sees all.
    Raises ValueError where there are more tokens than the length it was made for.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: TransformerConfig, n_tokens: int, n_outputs: int, length: int, causal: bool):
        super().__init__()
        self.causal = causal
        offsets = range(-max(config.window, 1), 0) if causal else range(-config.window, config.window + 1)
        self.embedding = WindowEmbedding(n_tokens, config.width, offsets)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = nn.Linear(config.width, n_outputs, bias=False)
        nn.init.zeros_(self.head.weight)
        cos, sin = rotary(length, config.width // config.heads, config.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        T = tokens.shape[1]
        self.check_length(T)
        visible = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril() if self.causal else None
        return self.states(self.embedding.windows(tokens), self.cos[:T], self.sin[:T], visible)

    def check_length(self, T: int) -> None:
        if T > len(self.cos):
            raise ValueError(f"{T} tokens are more than the model's window of {len(self.cos)}")

    def states(
        self, windows: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None = None, past: KeyValues | None = None
    ) -> Tensor:
        """Return the hidden states (B, T, C) of windows (B, T, W) at the positions of cos and sin (T, size / 2).

        visible: (T, T) bool, which positions (columns) each one sees; None: all. past: what stands before them.
        """
        x = rms_norm(self.embedding(windows))
        for block in self.blocks:
            x = block(x, cos, sin, visible, past)
        return rms_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits, whatever the blocks were computed in."""
        return self.head(hidden).float()
