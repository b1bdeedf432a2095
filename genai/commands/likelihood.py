"""Bits per character of the same held-out text under several language models: python -m genai likelihood NAME ...

Of a diffusion model its bound (NELBO) and its exact likelihood in one order, from left to right; of an autoregressive
model and of n-grams the exact likelihood; beside them what compressors make of the text that were given the training
text. Each model also by the share of a window that is hidden: what is known of the rest makes it cheaper.
"""

import bz2
import lzma
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai.core.config import UserError
from genai.core.stage import limit_threads, trained_threads

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of a window's tokens that are hidden
DRAWS = 8  # of the hidden tokens, for each share
BOUND, EXACT, GIVEN = "bound (NELBO)", "left to right", "given the training text"
IN_ANY_ORDER, AT_ONCE, END = "anywhere, in any order", "anywhere, all at once", "the end, left to right"
# how each compresses, and over how many bytes it finds what is alike: xz its dictionary, bz2 one block
COMPRESSORS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "xz": (lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME), 64_000_000),
    "bz2": (bz2.compress, 890_000),
}


@dataclass(frozen=True)
class Measured:
    """What a way of coding the windows costs: bits and characters, (N,) each, or (N, S) by the share hidden."""

    name: str
    way: str
    bits: Any
    characters: Any

    def per_character(self) -> tuple[Any, Any]:
        """Return bits per character and its standard error, by moving blocks of windows, () or (S,) each."""
        import numpy as np

        from genai.tasks.language_model import RESAMPLES, moving_blocks

        drawn = moving_blocks(len(self.bits), RESAMPLES, np.random.default_rng(0))
        ratios = self.bits[drawn].sum(1) / self.characters[drawn].sum(1)
        return self.bits.sum(0) / self.characters.sum(0), ratios.std(0, ddof=1)


def main(names: list[str], windows: int, split: str, out: str | None) -> None:
    """windows: how many of the split, evenly spaced; out: a PNG of the costs by the share hidden."""
    if windows < 2:
        raise UserError(f"--windows: {windows} should be at least 2, for an error")
    loaded, dataset = load(names)
    tokens, characters, text = held_out(dataset, split, windows)
    measured = [measure(one, tokens, characters) for one in loaded]
    totals, by_share = ([one for ways in kind for one in ways] for kind in zip(*measured, strict=True))
    train, coded = dataset.text("train").encode(), text.encode()
    compressed = {name: given(train, coded, *how) / len(text) for name, how in COMPRESSORS.items()}
    print(
        f"{dataset.directory.name}, {split}: {len(tokens)} windows of {tokens.shape[1]} tokens, {len(text):,} characters\n"
    )
    print(f"{table(totals, compressed)}\n\nbits per hidden character, by the share of a window that is hidden\n")
    print(share_table(by_share))
    if out:
        draw(by_share, compressed, Path(out))
        print(f"\n{out}")


def load(names: list[str]) -> tuple[list[Any], Any]:
    """Return language models of the same text and that text, held to as many threads as they were trained with.

    Raises UserError where one is none, or of another text. To be called before NumPy or torch is imported.
    """
    limit_threads(max(trained_threads(Path("models") / name) for name in names))
    from genai import model as models
    from genai.core.dataset import Dataset

    loaded = [models.load(Path("models") / name) for name in names]
    for one in loaded:
        if one.experiment.task != "language_model":
            raise UserError(f"{one.name}: its task is {one.experiment.task}; this takes language models")
        if (data := one.experiment.data) != loaded[0].experiment.data:
            first = f"{loaded[0].name}'s, {loaded[0].experiment.data!r}"
            raise UserError(f"{one.name}: its data, {data!r}, should be {first}: the text is the same for all")
    return loaded, Dataset(Path("data") / loaded[0].experiment.data)


def held_out(dataset: Any, split: str, n: int) -> tuple[Any, Any, str]:
    """Return n evenly spaced windows of a split: tokens (N, T), how many characters each token has, and their text."""
    import numpy as np

    windows, offsets, content = dataset.arrays(split)["tokens"], dataset.offsets(split), dataset.text(split)
    T = windows.shape[1]
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(n, len(windows))).astype(int))
    if len(chosen) < 2:
        raise UserError(f"{dataset.directory}/{split}.txt: one window of {T} tokens; an error needs two")
    characters = np.diff(offsets)[: len(windows) * T].reshape(-1, T)[chosen]
    return windows[chosen], characters, "".join(content[offsets[i * T] : offsets[(i + 1) * T]] for i in chosen)


def measure(loaded: Any, tokens: Any, characters: Any) -> tuple[list[Measured], list[Measured]]:
    """Return what windows cost in all the ways that a model can be asked, and what they cost by the share hidden."""
    import numpy as np

    name, whole = loaded.name, characters.sum(1)
    left_to_right = loaded.apply("token_nats", tokens) / np.log(2)
    totals = [Measured(name, EXACT, left_to_right.sum(1), whole)]
    ends = [np.stack([x[:, -k:].sum(1) for k in counts(x.shape[1])], 1) for x in (left_to_right, characters)]
    by_share = [Measured(name, END, *ends)]
    if loaded.model.metric.startswith("nelbo"):
        totals.insert(0, Measured(name, BOUND, loaded.nats(tokens) / np.log(2), whole))
    if hasattr(loaded.model, "denoise"):
        for way in (IN_ANY_ORDER, AT_ONCE):
            by_share.append(Measured(name, way, *scattered(loaded.model, tokens, characters, way == AT_ONCE)))
    return totals, by_share


def counts(T: int) -> list[int]:
    """Return how many of T tokens each share is."""
    return [max(1, round(share * T)) for share in SHARES]


def scattered(model: Any, tokens: Any, characters: Any, at_once: bool) -> tuple[Any, Any]:
    """Return the bits and the characters of tokens hidden at random given those that are not, (N, S) both.

    At once each is told from what is seen alone: the integrand of the NELBO. Otherwise one after the other in a random
    order, a bound on the hidden tokens' joint code length that is the NELBO where all are hidden: k times the mean
    cross-entropy of those j of the k that are still hidden, j uniform in 1 ... k.

    Each window by itself, so that the result does not depend on which come together.
    """
    import torch

    from genai.diffusion.text.masked import masked_cross_entropy, stratified_counts

    T, generator = tokens.shape[1], torch.Generator().manual_seed(0)
    k = torch.tensor(counts(T)).repeat_interleave(DRAWS)
    bits, hidden = [], []
    for window, lengths in zip(torch.from_numpy(tokens), torch.from_numpy(characters), strict=True):
        u = torch.rand((), generator=generator)
        j = k if at_once else torch.cat([stratified_counts(u, DRAWS, n) for n in counts(T)])
        rank = torch.rand(len(k), T, generator=generator).argsort(-1).argsort(-1)
        with torch.no_grad():
            mean = masked_cross_entropy(model.denoise, window.expand(rank.shape), rank < j[:, None], model.mask)
        bits.append((mean.double() * k / math.log(2)).view(-1, DRAWS).mean(1))
        hidden.append(((rank < k[:, None]) * lengths).sum(1).double().view(-1, DRAWS).mean(1))
    return torch.stack(bits).numpy(), torch.stack(hidden).numpy()


def given(train: bytes, text: bytes, compress: Callable[[bytes], bytes], reach: int) -> int:
    """Return by how many bits a compressed training text, as much of its end as is in reach, grows with a text behind."""
    seen = train[max(0, len(train) + len(text) - reach) :]
    return 8 * (len(compress(seen + text)) - len(compress(seen)))


def table(totals: list[Measured], compressed: dict[str, float]) -> str:
    """Return a line for each way of coding the windows: bits per character and its error."""
    lines = []
    for one in totals:
        mean, error = one.per_character()
        lines.append(f"{one.name:<24} {one.way:<24}{mean:6.3f} ± {error:.3f}")
    return "\n".join([*lines, *(f"{name:<24} {GIVEN:<24}{bits:6.3f}" for name, bits in compressed.items())])


def share_table(by_share: list[Measured]) -> str:
    """Return a line for each way, a column for each share, with the errors below."""
    lines = [" " * 49 + "".join(f"{share:>7.0%}" for share in SHARES)]
    for one in by_share:
        mean, error = one.per_character()
        lines.append(f"{one.name:<24} {one.way:<24}" + "".join(f"{bits:7.3f}" for bits in mean))
        lines.append(f"{'±':>49}" + "".join(f"{bits:7.3f}" for bits in error))
    return "\n".join(lines)


def draw(by_share: list[Measured], compressed: dict[str, float], path: Path) -> None:
    """Draw bits per hidden character by the share hidden, with 95 % intervals, and the compressors' of the whole."""
    from genai.figures import GREY, PALETTE, new, save

    figure, ax = new(4.2)
    colors = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(one.name for one in by_share))}
    for one in by_share:
        mean, error = one.per_character()
        style = {END: "-", IN_ANY_ORDER: "--", AT_ONCE: ":"}[one.way]
        ax.errorbar(
            SHARES, mean, 1.96 * error, fmt=f"o{style}", color=colors[one.name], markersize=4, capsize=2,
            label=f"{one.name}: {one.way}",
        )  # fmt: skip
    for (name, bits), style in zip(compressed.items(), ("-", "--"), strict=True):
        ax.axhline(bits, color=GREY, linestyle=style, linewidth=1, label=f"{name}, {GIVEN}: the whole window")
    ax.set(
        title="What the hidden part of a window costs",
        xlabel="share of the tokens that is hidden",
        ylabel="bits per hidden character",
    )
    ax.grid(alpha=0.3)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, ncols=2, loc="lower right")
    save(figure, path)
