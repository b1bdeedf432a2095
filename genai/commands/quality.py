"""Quality per evaluation of the network, for all samplers on one model: python -m genai quality NAME --judges NAME ...

Prints for each sampler at each number of evaluations, beside as many windows of real text (the floor):

bits       per character under each judge, another model of the same text. Low is not good by itself: repetition is cheap
distinct   share of a text set's pairs of words that are distinct (Li et al., 2016), all texts together
entropy    of the tokens, bits: -sum_v q_v log2 q_v, q_v the share of token v in all texts together
known      share of the words that stand in the training text, all but each text's first and last, which may be cut
distance   the kernel distance (genai/tasks/image_generation.py: unbiased, so 0 on average for real text) of the texts'
           features from those of the split's windows that are not in the first row. Features are the means and the
           standard deviations over positions of the hidden states of the first judge with a network, else of the model
           itself, each scaled to mean 0 and variance 1 over those windows. MAUVE (Pillutla et al., 2021) compares texts
           by a large model's features in the same spirit; the numbers do not compare
tokens     written in a CPU-second

with standard errors over texts. "collapse" is what is more alike than real text is, and cheaper for it: bits under a judge
below real text's by more than 2 standard errors of their difference, and distinct or entropy too.

What a sampler costs is set by `steps` or by its own number, which is searched for on a few texts; the evaluations that are
printed are counted. Rows beyond a token at a time are left out: such samplers have no more to ask. 32 texts of 128 tokens
of a 4-layer model of width 128 take about 7 ms of CPU for each text and evaluation: by that some 15 CPU-minutes from 8 to 256.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai.commands.likelihood import load
from genai.core.config import UserError

ROWS = 8  # texts that are written at a time; no result depends on it
PILOT, ROUNDS = 8, 8  # texts on which a sampler's number is searched for, and halvings of its range
# by their own number, from few evaluations (u = 0) to one a token (u = 1)
OWN: dict[str, tuple[str, Callable[[float], float]]] = {
    "threshold": ("threshold", lambda u: 10 ** (4 * u - 4)),
    "entropy_bounded": ("entropy_bound", lambda u: 10 ** (3 - 6 * u) if u < 1 else 0.0),
}
FEWEST = 8  # texts
REFERENCE = 512  # windows at most that samples are held against
DRAWN = ("ancestral", "confidence", "remdm")  # in the figure
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0)  # in the figure
Figure = tuple[float, float]  # a value and its standard error
# what wrote texts, their tokens (N, T), the evaluations of each, the CPU-seconds of all
Written = tuple[str, Any, float, float]


@dataclass(frozen=True)
class Row:
    """What texts are made by, and how they are."""

    name: str
    evaluations: float  # of the network, per text; nan: there is none
    bits: dict[str, Figure]  # by judge
    distinct: Figure
    entropy: Figure
    known: Figure
    distance: Figure
    per_second: float  # tokens written in a CPU-second; nan: not written

    def collapsed(self, real: "Row") -> bool:
        """Return whether the texts are cheaper than real ones under a judge, and less varied."""
        cheaper = any(below(self.bits[judge], real.bits[judge]) for judge in self.bits)
        return cheaper and (below(self.distinct, real.distinct) or below(self.entropy, real.entropy))


def below(a: Figure, b: Figure) -> bool:
    """Return whether a is below b by more than 2 standard errors of their difference."""
    return a[0] < b[0] - 2 * math.hypot(a[1], b[1])


def main(
    name: str, judges: list[str], evaluations: list[int], texts: int, temperature: float, split: str, out: str | None
) -> None:
    """evaluations: wanted, per text; out: a PNG of bits against entropy over temperatures."""
    if texts < FEWEST:
        raise UserError(f"--texts: {texts} should be at least {FEWEST}, for errors over texts")
    if wrong := [n for n in evaluations if n < 1]:
        raise UserError(f"--evaluations: {wrong[0]} should be at least 1")
    if not 0 < temperature <= 10:
        raise UserError(f"--temperature: {temperature} should be above 0 and at most 10")
    judges = list(dict.fromkeys(judges))
    if name in judges:
        raise UserError(f"--judges: {name} should not judge itself; name other models of the same text")
    (model, *others), dataset = load([name, *judges])
    if not hasattr(model.model, "denoise"):
        raise UserError(f"{name}: it has no samplers; this takes a masked diffusion model")
    real, rest = windows(dataset, split, texts)
    judge = Judge(others, next((one for one in others if hasattr(one.model, "parameters")), model), dataset, rest)
    evaluations = sorted(set(evaluations))
    print(f"{name}, temperature {temperature:g}: {texts} texts of {real.shape[1]} tokens beside {split} text\n")
    print(heading(judges))
    floor = judge.row("real text", real)
    print(line(floor, floor))
    for wanted in evaluations:
        print(f"\nabout {wanted}")
        for one in drawn(model, wanted, texts, temperature):
            print(line(judge.row(*one), floor), flush=True)
    print("\na token at a time")
    for one in token_by_token(model, others, texts, temperature):
        print(line(judge.row(*one), floor), flush=True)
    if out:
        wanted = max([n for n in evaluations if 2 * n <= real.shape[1]], default=evaluations[0])
        draw(judge, model, others, wanted, texts, floor, Path(out))
        print(f"\n{out}")


def windows(dataset: Any, split: str, n: int) -> tuple[Any, Any]:
    """Return n evenly spaced windows of a split, (n, T), and REFERENCE at most of the others."""
    import numpy as np

    every = dataset.arrays(split)["tokens"]
    if len(every) < n + 2:
        raise UserError(f"--texts: {n} should be at most {len(every) - 2}, of the {split} split's {len(every)} windows")
    chosen = np.linspace(0, len(every) - 1, n).astype(int)
    rest = np.setdiff1d(np.arange(len(every)), chosen)
    return every[chosen], every[rest[np.linspace(0, len(rest) - 1, min(len(rest), REFERENCE)).astype(int)]]


# How texts are


class Judge:
    """All that tells how texts are: the judges, the words of training and the features of real windows."""

    def __init__(self, judges: list[Any], featured: Any, dataset: Any, rest: Any):
        import numpy as np

        from genai.data.text import words

        self.judges, self.featured, self.tokenizer, self.words = judges, featured, dataset.tokenizer, words
        self.known = set(words(dataset.text("train")))
        self.size = dataset.description.vocabulary_size
        real = features(featured, rest)
        self.mean, self.scale = real.mean(0), np.where(real.std(0) > 1e-6, real.std(0), 1.0)
        self.reference = (real - self.mean) / self.scale

    def row(self, name: str, tokens: Any, evaluations: float = math.nan, seconds: float = math.nan) -> Row:
        """Return what is to be said of texts, tokens (N, T)."""
        import numpy as np

        from genai.tasks.image_generation import kernel_distance, kernel_distance_error
        from genai.tasks.text_generation import bits_per_character, distinct

        texts = [self.tokenizer.decode(row) for row in tokens.tolist()]
        inner = [self.words(text)[1:-1] for text in texts]
        told = [np.array([f(words) for words in inner]) for f in (lambda w: sum(x in self.known for x in w), len)]
        counts = np.stack([np.bincount(row, minlength=self.size) for row in tokens])
        mine = (features(self.featured, tokens) - self.mean) / self.scale
        return Row(
            name,
            evaluations,
            {one.name: bits_per_character(one, texts) for one in self.judges},
            jackknife(lambda kept: distinct([texts[i] for i in kept], 2), len(texts)),
            jackknife(lambda kept: entropy(counts[kept].sum(0)), len(texts)),
            jackknife(lambda kept: float(told[0][kept].sum() / max(told[1][kept].sum(), 1)), len(texts)),
            (
                kernel_distance(mine, self.reference),
                kernel_distance_error(mine, self.reference, np.random.default_rng(0)),
            ),
            tokens.size / seconds,
        )


def features(loaded: Any, tokens: Any) -> Any:
    """Return means and standard deviations over positions of a network's hidden states of tokens (N, T), (N, 2 C)."""
    import numpy as np
    import torch

    with torch.no_grad():
        states = [loaded.model.transformer(torch.from_numpy(row[None]))[0].double().numpy() for row in tokens]
    return np.stack([np.concatenate([state.mean(0), state.std(0)]) for state in states])


def entropy(counts: Any) -> float:
    """Return -sum_v q_v log2 q_v of counts (V,), q_v their shares: bits."""
    import numpy as np

    q = counts[counts > 0] / counts.sum()
    return float(q @ np.log2(1 / q))


def jackknife(statistic: Callable[[Any], float], n: int) -> Figure:
    """Return a statistic of n texts, given which of them, and its standard error by leaving out each in turn.

    Tukey, "Bias and confidence in not quite large samples", 1958: sqrt((n - 1) / n sum_i (s_i - mean)^2). A
    bootstrap would draw texts twice, which makes any set less distinct.
    """
    import numpy as np

    without = np.array([statistic(np.delete(np.arange(n), i)) for i in range(n)])
    return statistic(np.arange(n)), float(math.sqrt((n - 1) * without.var()))


# How they are made


def drawn(model: Any, wanted: int, n: int, temperature: float) -> Iterator[Written]:
    """Yield n texts of each sampler that can be turned to a number of evaluations: see `sampled`."""
    from genai.diffusion.text.samplers import SAMPLERS

    for sampler in SAMPLERS:
        numbers = turned(model, sampler, wanted, temperature)
        if numbers is not None:
            yield sampled(model, sampler, numbers, n, temperature)


def turned(model: Any, sampler: str, wanted: int, temperature: float) -> dict[str, float] | None:
    """Return a sampler's numbers for about so many evaluations of a text of T tokens; None where there are none.

    `ancestral_cached` needs as many as steps in which one of the T tokens falls, n (1 - (1 - 1 / n)^T) of n.
    """
    from genai.diffusion.text.samplers import keywords

    T = model.description.shape[0]
    if sampler in OWN:
        key, number = OWN[sampler]
        if wanted >= T:
            return {key: number(1.0)} if wanted == T else None
        low, high, tried = 0.0, 1.0, {}
        for _ in range(ROUNDS):
            u = (low + high) / 2
            value = float(f"{number(u):.3g}")  # as it is printed
            asked = sampled(model, sampler, {key: value}, PILOT, temperature)[2]
            tried[value] = abs(asked - wanted)
            low, high = (u, high) if asked < wanted else (low, u)
        return {key: min(tried, key=tried.__getitem__)}
    if "steps" not in keywords(sampler):
        return None
    if sampler == "ancestral_cached" and wanted <= T:
        return {"steps": next(n for n in range(wanted, 1001) if n == 1000 or n * (1 - (1 - 1 / n) ** T) >= wanted)}
    return {"steps": wanted} if wanted <= T or sampler in ("ancestral", "remdm") else None


def sampled(model: Any, sampler: str, numbers: dict[str, float], n: int, temperature: float) -> Written:
    """Return what n texts are made by, their tokens (n, T), the evaluations of each and the CPU-seconds of all."""
    import torch

    from genai.diffusion.text.samplers import sample

    asked, mask, T = 0, model.model.mask, model.description.shape[0]

    def counted(tokens: Any, where: Any) -> Any:
        nonlocal asked
        asked += len(tokens)
        return model.model.denoise(tokens, where)

    sampling = model.model.Sampling(sampler=sampler, temperature=temperature, length=T, **numbers)
    generator, start, parts = torch.Generator().manual_seed(sampling.seed), time.process_time(), []
    with torch.no_grad():
        for i in range(0, n, ROWS):
            canvas = torch.full((min(ROWS, n - i), T), mask)
            parts.append(sample(counted, canvas, mask, sampling, generator))
    own = "".join(f" {numbers[key]:g}" for key, _ in [OWN[sampler]]) if sampler in OWN else ""
    return sampler + own, torch.cat(parts).numpy(), asked / n, time.process_time() - start


def token_by_token(model: Any, others: list[Any], n: int, temperature: float) -> Iterator[Written]:
    """Yield n texts of all that write one token after the other: samplers without a number, judges."""
    from genai.diffusion.text.samplers import SAMPLERS, keywords

    for sampler in SAMPLERS:
        if not keywords(sampler):
            yield sampled(model, sampler, {}, n, temperature)
    for one in others:
        yield written(one, n, temperature)


def written(one: Any, n: int, temperature: float) -> Written:
    """Return n texts of an autoregressive model, of block diffusion or of n-grams: see `sampled`."""
    import torch

    T, generator = one.description.shape[0], torch.Generator().manual_seed(0)
    start, parts = time.process_time(), []
    if not hasattr(one.model, "sample"):
        tokens = n_gram_texts(one.model, n, T, temperature)
        return one.name, tokens, math.nan, time.process_time() - start
    sampling = one_by_one(one, temperature, T)
    with torch.no_grad():
        for i in range(0, n, ROWS):
            parts.append(one.model.sample(torch.full((min(ROWS, n - i), T), -1), sampling, generator))
    return one.name, torch.cat(parts).numpy(), float(T), time.process_time() - start


def one_by_one(one: Any, temperature: float, length: int) -> Any:
    """Return the numbers by which a network writes from left to right, block diffusion as well."""
    order = {"sampler": "left_to_right"} if "sampler" in one.model.Sampling.model_fields else {}
    return one.model.Sampling(temperature=temperature, length=length, **order)


def n_gram_texts(model: Any, n: int, T: int, temperature: float) -> Any:
    """Return n texts drawn token by token from n-grams, (n, T)."""
    import numpy as np

    texts = np.zeros((n, T), dtype=np.int64)
    for row, rng in zip(texts, np.random.default_rng(0).spawn(n), strict=True):
        for t in range(T):
            p = following(model, row[:t]) ** (1 / temperature)
            row[t] = np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right").clip(max=len(p) - 1)
    return texts


def following(model: Any, before: Any) -> Any:
    """Return n-grams' probability of each token after those before it (t,), (V,)."""
    import numpy as np

    context = before[max(0, len(before) - model.order + 1) :]
    return model.probability(np.column_stack([np.tile(context, (model.V, 1)), np.arange(model.V)]))[:, -1]


# What is printed and drawn


def heading(judges: list[str]) -> str:
    """Return which judge is which, and the table's headings."""
    bits = [f"bits {i}" for i in range(1, len(judges) + 1)]
    names = ", ".join(f"{column} by {judge}" for column, judge in zip(bits, judges, strict=True))
    columns = f"{'':<25}{'evals':>6}" + "".join(f"{column:>10}" for column in bits)
    return f"{names}\n\n{columns}{'distinct':>10}{'entropy':>10}{'known %':>8}{'distance':>10}{'tokens':>7}"


def line(row: Row, real: Row) -> str:
    """Return a row of the table."""
    figures = [*row.bits.values(), row.distinct]
    cells = [f"{row.name:<24} {number(row.evaluations, 6)}", *(f"{told(*figure):>10}" for figure in figures)]
    cells += [f"{told(*row.entropy):>10}", f"{100 * row.known[0]:5.0f}±{100 * row.known[1]:.0f}"]
    cells += [f"{told(*row.distance):>10}", number(row.per_second, 7)]
    return "".join(cells) + (" collapse" if row.collapsed(real) else "")


def told(value: float, error: float) -> str:
    """Return a value with its standard error, two decimals each."""
    return f"{value:.2f}±{error:.2f}".replace("±0.", "±.")


def number(value: float, width: int) -> str:
    """Return a number right-justified, - where there is none."""
    return f"{'-' if math.isnan(value) else f'{value:.0f}':>{width}}"


def draw(judge: Judge, model: Any, others: list[Any], wanted: int, n: int, floor: Row, path: Path) -> None:
    """Draw bits under each judge against entropy over TEMPERATURES, of some samplers and the judges that sample.

    A cross marks what has collapsed.
    """
    import numpy as np

    from genai.figures import MARKERS, PALETTE, new, save

    def of_sampler(sampler: str) -> Callable[[float], Written]:
        return lambda t: sampled(model, sampler, turned(model, sampler, wanted, t) or {}, n, t)

    def of_network(one: Any) -> Callable[[float], Written]:
        return lambda t: written(one, n, t)

    ways = {f"{sampler}, {wanted} evaluations": of_sampler(sampler) for sampler in DRAWN}
    ways |= {f"{one.name}, a token at a time": of_network(one) for one in others if hasattr(one.model, "sample")}
    found = {label: [judge.row(*write(t)) for t in TEMPERATURES] for label, write in ways.items()}
    figure, axes = new(4.4, 1, len(others), squeeze=False, sharex=True)
    for ax, one in zip(axes[0], others, strict=True):
        for (label, rows), color, marker in zip(found.items(), PALETTE, MARKERS, strict=False):
            x, y = (np.array(figures).T for figures in ([r.entropy for r in rows], [r.bits[one.name] for r in rows]))
            style = {"fmt": f"{marker}-", "color": color, "markersize": 4, "linewidth": 1, "elinewidth": 0.6}
            ax.errorbar(x[0], y[0], y[1], x[1], label=label, **style)
            for i in (0, -1):
                at = (x[0][i], y[0][i])
                ax.annotate(f"{TEMPERATURES[i]:g}", at, (4, 4), textcoords="offset points", fontsize=7, color=color)
            crossed = [i for i, row in enumerate(rows) if row.collapsed(floor)]
            ax.plot(x[0][crossed], y[0][crossed], "x", color="black", markersize=9, zorder=5)
        (e, de), (b, db) = floor.entropy, floor.bits[one.name]
        ax.errorbar([e], [b], [db], [de], fmt="*", color="black", markersize=12, label="real text", zorder=6)
        ax.plot([], [], "x", color="black", markersize=9, linestyle="", label="collapse")
        ax.set(title=f"judged by {one.name}", xlabel="entropy of the tokens, bits", ylabel="bits per character")
        ax.grid(alpha=0.3)
    figure.suptitle(
        f"{model.name}: quality against variety at temperatures {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g}"
    )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    save(figure, path)
