"""What a hidden span of held-out text costs, and how much of it is told: python -m genai cloze NAME ... [--spans 1 2 ...]

In the middle of each window, from where a word begins, n tokens are hidden. Given the left side alone the span is the
continuation of a prompt, which any language model writes; given both it is a gap, which a masked diffusion model fills:

bits      per character of the true span: its exact likelihood, token by token from the left
tokens    told, %: the likeliest token, again and again from the left (greedy), is the true one
words     told, %: of the span's words, and parts of words at its end, those that stand at the same place

n-grams are also asked for a single token by both sides, by Bayes' rule over all V tokens, which for longer spans would be V^n:
p(w | both) ~ p(left, w, right). The last row is the commonest token of the training text, each token by its frequency.

Errors are of moving blocks of windows, as in `likelihood`. 64 windows take a 4-layer model of width 128 a CPU-minute.
"""

from dataclasses import dataclass
from typing import Any

from genai.commands.likelihood import Measured, held_out, load
from genai.commands.quality import following, one_by_one
from genai.core.config import UserError

ROWS = 8  # windows that a network is given at a time; no result depends on it
COLDEST = 1e-3  # the temperature at which a model writes what is likeliest
LEFT, BOTH, NEITHER = "the left side", "both sides", "nothing"


@dataclass(frozen=True)
class Spans:
    """n tokens of each window: windows (N, T), where each span begins (N,), the characters of their tokens (N, n)."""

    windows: Any
    begins: Any
    characters: Any

    @property
    def places(self) -> Any:
        """Where the hidden tokens stand, (N, n)."""
        import numpy as np

        return self.begins[:, None] + np.arange(self.characters.shape[1])

    @property
    def tokens(self) -> Any:
        """The hidden tokens, (N, n)."""
        import numpy as np

        return np.take_along_axis(self.windows, self.places, 1)


@dataclass(frozen=True)
class Told:
    """What one model, given so much, says of the spans: nats (N,) of them all, its own tokens (N, n)."""

    name: str
    given: str
    nats: Any
    tokens: Any


def main(names: list[str], spans: list[int], windows: int, split: str) -> None:
    """spans: how many tokens are hidden; windows: of the split, evenly spaced."""
    if windows < 2:
        raise UserError(f"--windows: {windows} should be at least 2, for an error")
    loaded, dataset = load(names)
    tokens, characters, _ = held_out(dataset, split, windows)
    T = tokens.shape[1]
    if wrong := [n for n in spans if not 1 <= n < T]:
        raise UserError(f"--spans: {wrong[0]} should be at least 1 and less than {T}, a window's tokens")
    print(f"{dataset.directory.name}, {split}: a span in the middle of each of {len(tokens)} windows of {T} tokens")
    for n in sorted(set(spans)):
        hidden = cut(dataset.tokenizer, tokens, characters, n)
        print(f"\n{f'{n} tokens' if n > 1 else '1 token':<41}{'bits':>14}{'tokens':>12}{'words':>12}")
        for one in loaded:
            for told in asked(one, hidden):
                print(line(told, hidden, dataset.tokenizer), flush=True)
        print(line(commonest(dataset, hidden), hidden, dataset.tokenizer))


def cut(tokenizer: Any, windows: Any, characters: Any, n: int) -> Spans:
    """Return spans of n tokens as near to the middle of their windows as a word begins, or in the middle."""
    import numpy as np

    texts = [tokenizer.decode([token]) for token in range(tokenizer.get_vocab_size())]
    words = np.array([text[:1].isspace() and not text.isspace() for text in texts])
    T = windows.shape[1]
    middle = (T - n) // 2
    far = np.abs(np.arange(T - n + 1) - middle)
    begins = np.where(words[windows[:, : T - n + 1]], far, far + T).argmin(1)
    return Spans(windows, begins, np.take_along_axis(characters, begins[:, None] + np.arange(n), 1))


# What models say of spans


def asked(one: Any, hidden: Spans) -> list[Told]:
    """Return what a model says of the spans, given the left side and, where it can be, both."""
    import numpy as np

    if hasattr(one.model, "denoise"):
        return [Told(one.name, given, *filled(one, hidden, given)) for given in (LEFT, BOTH)]
    left = np.take_along_axis(one.apply("token_nats", hidden.windows), hidden.places, 1).sum(1)
    if hasattr(one.model, "parameters"):
        return [Told(one.name, LEFT, left, continued(one, hidden))]
    rows = list(zip(hidden.windows, hidden.begins, strict=True))
    n = hidden.places.shape[1]
    told = [Told(one.name, LEFT, left, np.stack([commonly_continued(one.model, x[:i], n) for x, i in rows]))]
    if n == 1:
        p = np.stack([between(one.model, x, i) for x, i in rows])
        true = np.take_along_axis(p, hidden.tokens, 1)[:, 0]
        told.append(Told(one.name, BOTH, -np.log(true), p.argmax(1)[:, None]))
    return told


def filled(one: Any, hidden: Spans, given: str) -> tuple[Any, Any]:
    """Return what the spans cost a masked diffusion model in nats, (N,), and what it fills in greedily, (N, n).

    By the chain rule, from left to right. Without the right side all that follows the span is hidden, too.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    nats, tokens = [], []
    for i in range(0, len(hidden.windows), ROWS):
        x, places = torch.from_numpy(hidden.windows[i : i + ROWS]), torch.from_numpy(hidden.places[i : i + ROWS])
        position, rows = torch.arange(x.shape[1]), torch.arange(len(x))
        last = places[:, -1:] if given == BOTH else x.shape[1]
        canvas = x.masked_fill((position >= places[:, :1]) & (position <= last), one.model.mask)
        true, own, total = canvas.clone(), canvas.clone(), torch.zeros(len(x), dtype=torch.float64)
        with torch.no_grad():
            for place in places.T:
                where = position == place[:, None]
                logits = one.model.denoise(torch.cat([true, own]), torch.cat([where, where]))
                total += F.cross_entropy(logits[: len(x)].double(), x[rows, place], reduction="none")
                true[rows, place], own[rows, place] = x[rows, place], logits[len(x) :].argmax(-1)
        nats.append(total.numpy())
        tokens.append(own.gather(1, places).numpy())
    return np.concatenate(nats), np.concatenate(tokens)


def continued(one: Any, hidden: Spans) -> Any:
    """Return how an autoregressive model, or block diffusion, continues the windows' left sides greedily, (N, n)."""
    import torch

    n, tokens = hidden.places.shape[1], []
    for window, begin in zip(torch.from_numpy(hidden.windows), hidden.begins.tolist(), strict=True):
        canvas = torch.cat([window[:begin], torch.full((n,), -1)])[None]
        sampling = one_by_one(one, COLDEST, begin + n)
        with torch.no_grad():
            tokens.append(one.model.sample(canvas, sampling, torch.Generator().manual_seed(0))[0, begin:])
    return torch.stack(tokens).numpy()


def commonly_continued(n_gram: Any, before: Any, n: int) -> Any:
    """Return how n-grams continue tokens (t,) greedily, (n,)."""
    import numpy as np

    for _ in range(n):
        before = np.append(before, following(n_gram, before).argmax())
    return before[-n:]


def between(n_gram: Any, window: Any, place: int) -> Any:
    """Return n-grams' probability of each token at a place of a window (T,), given all others, (V,): Bayes' rule."""
    import numpy as np

    reach = n_gram.order - 1
    begin = max(0, place - reach)
    rows = np.tile(window[begin : place + reach + 1], (n_gram.V, 1))
    rows[:, place - begin] = np.arange(n_gram.V)
    log_p = np.log(n_gram.probability(rows)[:, place - begin :]).sum(1)
    p = np.exp(log_p - log_p.max())
    return p / p.sum()


def commonest(dataset: Any, hidden: Spans) -> Told:
    """Return what the frequencies of tokens in the training text, one added to each, say of the spans."""
    import numpy as np

    counts = 1 + np.bincount(dataset.tokens("train"), minlength=dataset.description.vocabulary_size)
    nats = -np.log(counts / counts.sum())
    return Told(
        "the commonest token", NEITHER, nats[hidden.tokens].sum(1), np.full_like(hidden.tokens, counts.argmax())
    )


# What is printed


def line(told: Told, hidden: Spans, tokenizer: Any) -> str:
    """Return a row of the table."""
    import numpy as np

    N, n = hidden.tokens.shape
    pairs = list(zip(hidden.tokens.tolist(), told.tokens.tolist(), strict=True))
    words = [(tokenizer.decode(true).split(), tokenizer.decode(own).split()) for true, own in pairs]
    same = np.array([sum(a == b for a, b in zip(true, own, strict=False)) for true, own in words])
    figures = [
        Measured(told.name, told.given, told.nats / np.log(2), hidden.characters.sum(1)),
        Measured(told.name, told.given, 100 * (hidden.tokens == told.tokens).sum(1), np.full(N, n)),
        Measured(told.name, told.given, 100 * same, np.array([len(true) for true, _ in words])),
    ]
    (bits, error), *shares = [figure.per_character() for figure in figures]
    cells = [f"{f'{bits:.2f} ± {error:.2f}':>14}", *(f"{f'{x:.0f} ± {e:.0f}':>12}" for x, e in shares)]
    return f"{told.name:<24} {told.given:<16}" + "".join(cells)
