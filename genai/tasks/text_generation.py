"""Text generation: free text, prompts and gaps from a trained model, and how the free text compares with real text."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from genai.core.config import Strict, UserError, validate
from genai.core.dataset import Dataset, load_tokenizer, write_json, write_text
from genai.model import Loaded

RANKED_BY = ("judge_gap",)
HIGHER_IS_BETTER = False
JUDGE_NEEDS = ("nats",)
GAP = re.compile(r"\[\[(\d+)\]\]")
LONGEST = 4096  # tokens that a text may be asked to have (`length` in params.yaml)
UNKNOWN = -1  # a position of the canvas that the model is to fill


class Show(Strict):
    """What is written for people."""

    n: Annotated[int, Field(ge=1, le=64)] = Field(4, description="texts without a prompt")
    prompts: list[str] = Field([], description="texts to continue; [[N]] is a gap of N tokens to fill")
    replay: list[dict[str, Any]] = Field(
        [], description="samplings whose writing is recorded beside the generator's own: what changes, {sampler: remdm}"
    )


class Grade(Strict):
    """What is written to be graded."""

    n: Annotated[int, Field(ge=2, le=10_000)] = Field(description="texts without a prompt")


def texts(loaded: Loaded, directory: Path, prompt: str | None, n: int, sampling: Any) -> list[str]:
    """Return n texts that hold the prompt: continued, or where it has `[[N]]`, with the gap of N tokens filled.

    directory: of the model, with its tokenizer. Raises UserError where the prompt is empty or does not fit the
    model's window.
    """
    import torch

    tokenizer = load_tokenizer(directory)
    row = canvas(prompt, tokenizer, sampling.length, takes(loaded))
    generator = torch.Generator().manual_seed(sampling.seed)
    try:
        with torch.no_grad():
            tokens = loaded.model.sample(torch.tensor(row).repeat(n, 1), sampling, generator)
    except ValueError as error:
        raise UserError(f"prompt: {error}") from None
    return [tokenizer.decode(tokens_of_one) for tokens_of_one in tokens.tolist()]


def takes(loaded: Loaded) -> int:
    """Return how many tokens a model can write at most: its window, or where it writes block after block what one may ask."""
    return LONGEST if getattr(loaded.model, "any_length", False) else loaded.description.shape[0]


def canvas(prompt: str | None, tokenizer: Any, length: int, window: int) -> list[int]:
    """Return the token ids of the prompt with UNKNOWN where the model is to write. Raises UserError."""
    if length > window:
        raise UserError(f"sampling.length: {length} should be at most {window}, the tokens that the model takes")
    if prompt is None:
        return [UNKNOWN] * length
    if not GAP.sub("", prompt).strip():
        raise UserError(f"prompt: {prompt!r} is empty; give some text, or leave it out")
    row: list[int] = []
    for i, part in enumerate(GAP.split(prompt)):
        if i % 2 and int(part) > window:
            raise UserError(f"prompt: a gap of {part} tokens where the model takes {window}; shorten it")
        row += [UNKNOWN] * int(part) if i % 2 else tokenizer.encode(part).ids
    given = len(row)
    if UNKNOWN not in row:
        row += [UNKNOWN] * ((length if given < length else min(window, given + length)) - given)
    if len(row) > window or UNKNOWN not in row:
        what = "with its gaps " if GAP.search(prompt) else ""
        raise UserError(
            f"prompt: {given} tokens {what}where the model takes {window - 1}, and one to write; shorten it"
        )
    return row


def show(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write samples.md and samples.json: texts without a prompt, then each prompt continued or filled; and replay.json.

    This is how one text of each came about, in the ways of `replay`, then in the generator's own.
    """
    what = validate(Show, numbers, f"generators.{loaded.name}.show")
    ways = {}
    for i, change in enumerate(what.replay):
        way = changed(sampling, change, f"generators.{loaded.name}.show.replay.{i}")
        ways[described(change, way)] = way
    ways[described({}, sampling)] = sampling  # the animation is of the first: other orders are more to see
    made = [{"prompt": None, "text": text} for text in texts(loaded, loaded.directory, None, what.n, sampling)]
    for prompt in what.prompts:
        made.append({"prompt": prompt, "text": texts(loaded, loaded.directory, prompt, 1, sampling)[0]})
    write_json(folder / "samples.json", made)
    lines = [f"# {loaded.name}\n"]
    for one in made:
        lines.append(f"**{one['prompt'] or '(no prompt)'}**\n\n```text\n{one['text']}\n```\n")
    write_text(folder / "samples.md", "\n".join(lines))
    traces = [
        {"prompt": prompt, "way": way} | recorded(loaded, one, prompt)
        for prompt in (None, *what.prompts)
        for way, one in ways.items()
    ]
    write_text(
        folder / "replay.json", json.dumps({"name": loaded.name, "traces": traces}, separators=(",", ":")) + "\n"
    )


def changed(sampling: Any, change: dict[str, Any], at: str) -> Any:
    """Return a sampling with other numbers; of another sampler without those that it does not read. Raises UserError."""
    numbers = sampling.model_dump(exclude_unset=True) | change
    if "sampler" in change and hasattr(sampling, "of_sampler"):
        numbers = sampling.of_sampler(sampling.model_dump(exclude_unset=True) | {"sampler": change["sampler"]}) | change
    return validate(type(sampling), numbers, at)


def described(change: dict[str, Any], sampling: Any) -> str:
    """Return what a way of sampling is called: its sampler, and what else is changed."""
    others = [f"{key} {value}" for key, value in change.items() if key != "sampler"]
    return ", ".join([getattr(sampling, "sampler", "left_to_right"), *others])


def recorded(loaded: Loaded, sampling: Any, prompt: str | None) -> dict[str, Any]:
    """Return a text that holds the prompt, as `texts` does, and how it was written: a trace (replay/trace.py).

    Where the best of several is kept, the first of them. Raises UserError where the prompt is empty or does not fit.
    """
    import torch

    from genai.replay import trace

    tokenizer = load_tokenizer(loaded.directory)
    row = canvas(prompt, tokenizer, sampling.length, takes(loaded))
    if hasattr(sampling, "best_of"):
        sampling = sampling.model_copy(update={"best_of": 1})
    generator = torch.Generator().manual_seed(sampling.seed)
    try:
        with torch.no_grad():
            return trace.trace(row, trace.record(loaded.model, torch.tensor([row]), sampling, generator), tokenizer)
    except ValueError as error:
        raise UserError(f"prompt: {error}") from None


def generate(loaded: Loaded, sampling: Any, prompt: str | None, out: Path | None) -> str:
    """Return one text, or write it to `out` and return where it is. Raises UserError."""
    text = texts(loaded, loaded.directory, prompt, 1, sampling)[0]
    if out is None:
        return text
    write_text(out, text + "\n")
    return str(out)


def draw(loaded: Loaded, sampling: Any, numbers: dict[str, Any], folder: Path) -> None:
    """Write samples.json, the texts to be graded."""
    what = validate(Grade, numbers, f"generators.{loaded.name}.grade")
    write_json(folder / "samples.json", texts(loaded, loaded.directory, None, what.n, sampling))


def grade(loaded: Loaded, judge: Loaded, real: Dataset, sampling: Any, folder: Path) -> dict[str, dict[str, float]]:
    """Return what sets the drawn texts beside as many real ones of the same length, for validation and test.

    distinct_2: share of word bigrams that are distinct. judge_bpc: bits per character under the judge, of the
    generated texts and of the real; judge_gap is the distance of the two: text that the judge finds too
    likely (repetition) is as far from real text as text that it finds too unlikely (noise).
    """
    generated = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    own, own_se = bits_per_character(judge, generated)
    metrics = {}
    for split in ("validation", "test"):
        windows = real.arrays(split)["tokens"]
        every = max(1, len(windows) // len(generated))
        texts = [real.tokenizer.decode(w[: sampling.length]) for w in windows[::every][: len(generated)]]
        theirs, theirs_se = bits_per_character(judge, texts)
        metrics[split] = {
            "judge_gap": abs(own - theirs),
            "judge_gap_se": float(np.hypot(own_se, theirs_se)),
            "judge_bpc": own,
            "judge_bpc_real": theirs,
            "distinct_2": distinct(generated, 2),
            "distinct_2_real": distinct(texts, 2),
            "texts": len(generated),
        }
    return metrics


def bits_per_character(judge: Loaded, texts: list[str]) -> tuple[float, float]:
    """Return the bits per character of texts under a language model, and its standard error over the texts."""
    tokenizer, window = load_tokenizer(judge.directory), judge.description.shape[0]
    bits, characters = np.zeros(len(texts)), np.array([max(len(text), 1) for text in texts])
    for i, text in enumerate(texts):
        tokens = np.array(tokenizer.encode(text).ids, dtype=np.int64)
        parts = np.split(tokens, range(window, len(tokens), window))
        bits[i] = sum(judge.nats(part[None])[0] for part in parts if len(part)) / np.log(2)
    mean = bits.sum() / characters.sum()
    residual = bits - mean * characters  # of a ratio of sums, by the delta method
    return float(mean), float(residual.std(ddof=1) / characters.mean() / np.sqrt(len(texts)))


def distinct(texts: list[str], n: int) -> float:
    """Return the share of word n-grams that are distinct (Li et al., 2016); falls with more text."""
    words = [text.split() for text in texts]
    grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    inputs, outputs = ("columns", {"prompt": "string"}), ("columns", {"text": "string"})
    return {"inputs": inputs, "outputs": outputs, "example": {"prompt": ["The"]}}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return a text for each prompt of the column `prompt`. Raises UserError."""
    import pandas as pd

    if wrong := [prompt for prompt in data["prompt"] if not isinstance(prompt, str)]:
        raise UserError(f"prompt: {wrong[0]!r} should be a string")
    if "sampler" in sampling:  # MLflow fills in all that a request leaves out: what its sampler does not read, too
        sampling = loaded.model.Sampling.of_sampler(sampling)
    settings = validate(loaded.model.Sampling, sampling, "sampling")
    return pd.DataFrame({"text": [texts(loaded, directory, prompt, 1, settings)[0] for prompt in data["prompt"]]})
