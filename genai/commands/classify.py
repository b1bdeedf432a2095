"""Which label makes a text cheapest, classification by likelihood: python -m genai classify NAME ... [--labels ...]

A label is the name of a document without its number (of scripture a book), a text a paragraph of a held-out document (a
verse). The models were not told labels in training. They are given one as a context c, training text of that label up to
the end of a paragraph, as much as the window leaves beside the text x; contexts are mixed:

    p(x | label) = 1/m sum_j p(x | c_j),    p(label | x) = p(x | label) / sum over labels of the same

with p(x | c) exact, by the chain rule from left to right, and of a diffusion model also by its bound (NELBO), the same
tokens hidden for all labels and contexts. Labels have as many texts each, so that none is likelier before.

Beside them: n-grams fitted on the training text of each label by itself; naive Bayes on words; the label that has most
training text. Accuracy with its standard error, whole documents being what is drawn: verses of a chapter are alike.

A text of L tokens costs an autoregressive model k m evaluations for k labels, a diffusion model k m L from left to right
and DRAWS k m for the bound.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from genai.commands.likelihood import BOUND, EXACT, load
from genai.core.config import UserError

LABELS = 8  # where none are named
SHORTEST = 8  # tokens of a text; at most half a window, so that as much is left for a context
ROWS = 8  # given to a network at a time, all of one text's
DRAWS = 8  # of the hidden tokens, for the bound
NUMBER = re.compile(r"\s*\d+$")
ALPHA = 0.1  # added to each count of naive Bayes: chosen on scripture's validation split


@dataclass(frozen=True)
class Example:
    """A text whose label is to be told."""

    document: str
    text: str
    tokens: Any  # (L,)

    @property
    def label(self) -> str:
        """The document's name without its number."""
        return NUMBER.sub("", self.document)


def main(names: list[str], labels: list[str] | None, texts: int, contexts: int, split: str) -> None:
    """texts: of each label; contexts: of training text that are mixed."""
    for option, value in (("texts", texts), ("contexts", contexts)):
        if value < 1:
            raise UserError(f"--{option}: {value} should be at least 1")
    loaded, dataset = load(names)
    training = by_label(dataset, "train")
    found = examples(dataset, split, texts)
    labels = chosen(labels, training, found, texts, split)
    taken = [one for label in labels for one in found[label]]
    text = {label: "\n\n".join(training[label].values()) for label in labels}
    before = {label: before_a_text(dataset, label, text[label], contexts) for label in labels}
    print(
        f"{dataset.directory.name}, {split}: {len(taken)} texts of {len(labels)} labels; contexts of a label: {contexts}\n"
    )
    print(heading(labels))
    for one in loaded:
        for way, log_p in scores(one, dataset, text, before, taken).items():
            print(line(one.name, way, log_p, taken, labels), flush=True)
    print(line("naive Bayes", "words", naive_bayes(text, taken), taken, labels))
    print(line("most text", "always", most_text(text, taken), taken, labels))


# Labels and texts


def by_label(dataset: Any, split: str) -> dict[str, dict[str, str]]:
    """Return the documents of a split, by label and name."""
    content, begins = dataset.text(split), dataset.documents(split)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (name, begin), end in zip(begins.items(), [*begins.values(), len(content)][1:], strict=True):
        found[NUMBER.sub("", name)][name] = content[begin:end].strip("\n")
    return dict(found)


def examples(dataset: Any, split: str, n: int) -> dict[str, list[Example]]:
    """Return n evenly spaced paragraphs of each label, of SHORTEST tokens to half a window; fewer where it has fewer."""
    found, longest = {}, dataset.description.shape[0] // 2
    for label, documents in by_label(dataset, split).items():
        every = []
        for name, document in documents.items():
            for paragraph in document.split("\n\n"):
                tokens = tokens_of(dataset, paragraph)
                if SHORTEST <= len(tokens) <= longest:
                    every.append(Example(name, paragraph, tokens))
        step = max(len(every) / n, 1)
        found[label] = [every[int(i * step)] for i in range(min(n, len(every)))]
    return found


def tokens_of(dataset: Any, text: str) -> Any:
    """Return the token ids of a text, (N,) int64."""
    from genai.core.dataset import encode

    return encode(dataset.tokenizer, text)[0]


def chosen(
    labels: list[str] | None, training: dict[str, Any], found: dict[str, list[Example]], n: int, split: str
) -> list[str]:
    """Return the labels that are named or, of those with n texts, the LABELS of most training text. Raises UserError."""
    whole = [label for label in training if len(found.get(label, [])) == n]
    if labels is None:
        size = {label: sum(map(len, training[label].values())) for label in whole}
        labels = sorted(sorted(whole, key=lambda label: -size[label])[:LABELS])
    for label in labels:
        if label not in training:
            known = ", ".join(sorted(whole)) or "none"
            raise UserError(f"--labels: {label!r} is no label of the training text; with {n} texts in {split}: {known}")
        if label not in whole:
            raise UserError(f"--texts: {n} of {label!r} where the {split} split has {len(found.get(label, []))}")
    if len(set(labels)) < 2:
        raise UserError(f"--labels: {len(set(labels))} with {n} texts in the {split} split; two are needed")
    return list(dict.fromkeys(labels))


def before_a_text(dataset: Any, label: str, text: str, m: int) -> Any:
    """Return m contexts, the tokens before evenly spaced ends of paragraphs of a training text, a window less 1 of them."""
    import numpy as np

    from genai.core.dataset import encode

    tokens, offsets = encode(dataset.tokenizer, text + "\n\n")
    ends = np.searchsorted(offsets, [match.end() for match in re.finditer("\n\n", text + "\n\n")])
    size = dataset.description.shape[0] - 1
    ends = ends[ends >= size]
    if len(ends) < m:
        raise UserError(f"--contexts: {m} where the training text of {label!r} has {len(ends)} of {size} tokens")
    places = ends[((np.arange(m) + 0.5) / m * len(ends)).astype(int)]
    return np.stack([tokens[end - size : end] for end in places])


# What each text costs under each label


def scores(
    one: Any, dataset: Any, text: dict[str, str], before: dict[str, Any], taken: list[Example]
) -> dict[str, Any]:
    """Return log p(text | label), (N, K), in each way that a model can be asked.

    A text by itself, so that no result depends on which come together.
    """
    import numpy as np

    if not hasattr(one.model, "parameters"):
        return {"of each label": n_grams(one, dataset, text, taken)}
    ways = {EXACT: chain_rule} | ({BOUND: bound} if hasattr(one.model, "denoise") else {})
    contexts = np.concatenate(list(before.values()))  # (K m, T - 1)
    found: dict[str, list[Any]] = {way: [] for way in ways}
    for example in taken:
        L = len(example.tokens)
        rows = np.column_stack([contexts[:, L - 1 :], np.tile(example.tokens, (len(contexts), 1))])
        for way, nats in ways.items():
            found[way].append(mixed(-nats(one, rows, L).reshape(len(before), -1)))
    return {way: np.stack(log_p) for way, log_p in found.items()}


def mixed(log_p: Any) -> Any:
    """Return log of the mean of exp(log_p) over the last axis, (K, m) -> (K,)."""
    import numpy as np

    return np.logaddexp.reduce(log_p, axis=-1) - math.log(log_p.shape[-1])


def chain_rule(one: Any, rows: Any, L: int) -> Any:
    """Return -log p(the last L tokens | the others) of rows (B, T), (B,), exact."""
    import numpy as np
    import torch

    from genai.diffusion.text.samplers import log_likelihood

    if not hasattr(one.model, "denoise"):
        return np.concatenate([one.apply("token_nats", part)[:, -L:].sum(1) for part in parts(rows)])
    nats = []
    for x in map(torch.from_numpy, parts(rows)):
        hidden = torch.zeros_like(x, dtype=torch.bool)
        hidden[:, -L:] = True
        with torch.no_grad():
            nats.append(-log_likelihood(one.model.denoise, x, hidden, one.model.mask).numpy())
    return np.concatenate(nats)


def parts(rows: Any) -> list[Any]:
    """Return rows (B, T), ROWS of them at a time."""
    import numpy as np

    return np.split(rows, range(ROWS, len(rows), ROWS))


def bound(one: Any, rows: Any, L: int) -> Any:
    """Return an unbiased estimate of the bound on -log p(the last L tokens | the others) of rows (B, T), (B,).

    L times the mean cross-entropy of those j of the L that are hidden, j uniform in 1 ... L; the same for all rows.
    """
    import torch

    from genai.diffusion.text.masked import masked_cross_entropy, stratified_counts

    T, generator = rows.shape[1], torch.Generator().manual_seed(0)
    j = stratified_counts(torch.rand((), generator=generator), DRAWS, L)
    where = torch.zeros(DRAWS, T, dtype=torch.bool)
    where[:, -L:] = torch.rand(DRAWS, L, generator=generator).argsort(-1).argsort(-1) < j[:, None]
    with torch.no_grad():
        nats = [
            L * masked_cross_entropy(one.model.denoise, row.expand(DRAWS, T), where, one.model.mask).double().mean()
            for row in torch.from_numpy(rows)
        ]
    return torch.stack(nats).numpy()


def n_grams(one: Any, dataset: Any, text: dict[str, str], taken: list[Example]) -> Any:
    """Return log p(text | label) of n-grams fitted on each label's training text, after an end of a paragraph, (N, K)."""
    import numpy as np

    from genai.model import build

    start = tokens_of(dataset, "\n\n")
    log_p = np.zeros((len(taken), len(text)))
    for k, of_label in enumerate(text.values()):
        fitted = build(one.name, one.experiment, one.description).fit(tokens_of(dataset, of_label + "\n\n"))
        for n, example in enumerate(taken):
            row = np.concatenate([start, example.tokens])
            log_p[n, k] = -fitted.token_nats(row[None])[0, len(start) :].sum()
    return log_p


def naive_bayes(text: dict[str, str], taken: list[Example]) -> Any:
    """Return log p(words of a text | label), (N, K), less what is the same for all labels."""
    import numpy as np

    from genai.basics import MultinomialNB
    from genai.data.text import words

    index = {word: i for i, word in enumerate(sorted({word for of_label in text.values() for word in words(of_label)}))}
    count = lambda text: np.bincount([index[w] for w in words(text) if w in index], minlength=len(index))
    model = MultinomialNB(alpha=ALPHA).fit(
        np.stack([count(of_label) for of_label in text.values()]), np.arange(len(text))
    )
    return model.joint_log_likelihood(np.stack([count(example.text) for example in taken]).astype(float))


def most_text(text: dict[str, str], taken: list[Example]) -> Any:
    """Return the logarithms of the labels' shares of the training text, for each text the same, (N, K)."""
    import numpy as np

    sizes = np.array([len(of_label) for of_label in text.values()])
    return np.tile(np.log(sizes / sizes.sum()), (len(taken), 1))


# What is printed


def heading(labels: list[str]) -> str:
    """Return the table's headings."""
    from genai.figures import shortened

    return f"{'right, %':<47}" + "".join(f"{shortened(label, 6):>7}" for label in labels)


def line(name: str, way: str, log_p: Any, taken: list[Example], labels: list[str]) -> str:
    """Return a row of the table: which share of the texts has its own label as the cheapest, of all and of each label."""
    import numpy as np

    right = np.array([labels[k] == one.label for k, one in zip(log_p.argmax(1), taken, strict=True)])
    error = clustered_error(right, [one.document for one in taken])
    shares = [right[[one.label == label for one in taken]].mean() for label in labels]
    figures = f"{100 * right.mean():.0f} ± {100 * error:.0f}"
    return f"{name:<24} {way:<14}{figures:>8}" + "".join(f"{100 * share:7.0f}" for share in shares)


def clustered_error(right: Any, documents: list[str]) -> float:
    """Return the standard error of a mean whose examples come in documents: sqrt(C / (C - 1) sum_c (sum of residuals)^2) / N."""
    import numpy as np

    _, index = np.unique(documents, return_inverse=True)
    sums = np.bincount(index, right - right.mean())
    C = len(sums)
    return float(math.sqrt(C / max(C - 1, 1) * (sums**2).sum()) / len(right))
