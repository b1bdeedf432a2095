"""A trained generator -> text or images."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from genai.core.config import Experiment, UserError, validate
from genai.core.dataset import atomic, load_tokenizer, write_json, write_text

GAP = re.compile(r"\[\[(\d+)\]\]")
UNKNOWN = -1  # a position of the canvas that the model is to fill


def settings(loaded: SimpleNamespace, experiment: Experiment | None, changes: dict[str, Any]) -> Any:
    """Return the model's Sampling: of params.yaml (else what it was trained with), with the changes.

    Raises UserError where the model generates nothing or a value is out of its range.
    """
    if not hasattr(loaded.model, "Sampling"):
        raise UserError(
            f"{loaded.name}: {loaded.experiment.model} generates nothing; sample a diffusion or language model"
        )
    values = dict((experiment or loaded.experiment).sample or {})
    return validate(type(loaded.model).Sampling, values | changes, "sample")


def texts(loaded: SimpleNamespace, tokenizer: Any, prompt: str | None, n: int, sampling: Any) -> list[str]:
    """Return n texts that hold the prompt: continued, or where it has `[[N]]`, with the gap of N tokens filled.

    Raises UserError where the prompt is empty or does not fit the model's window.
    """
    import torch

    row = canvas(prompt, tokenizer, sampling.length, loaded.description.shape[0])
    generator = torch.Generator().manual_seed(sampling.seed)
    try:
        with torch.no_grad():
            tokens = loaded.model.sample(torch.tensor(row).repeat(n, 1), sampling, generator)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from None
    return [tokenizer.decode(tokens_of_one) for tokens_of_one in tokens.tolist()]


def canvas(prompt: str | None, tokenizer: Any, length: int, window: int) -> list[int]:
    """Return the token ids of the prompt with UNKNOWN where the model is to write. Raises UserError."""
    if length > window:
        raise UserError(f"sample.length: {length} should be at most {window}, the tokens that the model takes")
    if prompt is None:
        return [UNKNOWN] * length
    if not GAP.sub("", prompt).strip():
        raise UserError(f"--prompt: {prompt!r} is empty; give some text, or leave the option out")
    row: list[int] = []
    for i, part in enumerate(GAP.split(prompt)):
        row += [UNKNOWN] * int(part) if i % 2 else tokenizer.encode(part).ids
    given = len(row)
    if UNKNOWN not in row:
        row += [UNKNOWN] * ((length if given < length else window) - given)
    if len(row) > window or UNKNOWN not in row:
        what = "with its gaps " if GAP.search(prompt) else ""
        raise UserError(
            f"--prompt: {given} tokens {what}where the model takes {window - 1}, and one to write; shorten it"
        )
    return row


def complete(loaded: SimpleNamespace, tokenizer: Any, prompt: str | None, sampling: Any) -> str:
    """Return one text for a prompt."""
    return texts(loaded, tokenizer, prompt, 1, sampling)[0]


def images(loaded: SimpleNamespace, labels: np.ndarray, sampling: Any) -> np.ndarray:
    """Return an image of each label, (N, C, H, W) float32 in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.no_grad():
        return loaded.model.sample(torch.as_tensor(labels), sampling, generator).numpy()


def write(loaded: SimpleNamespace, model_folder: Path, sampling: Any, folder: Path) -> None:
    """Write what the stage `sample` makes: samples.md and samples.json, or grid.png."""
    if loaded.model.task == "image_generation":
        write_grid(loaded, sampling, folder / "grid.png")
        return
    tokenizer = load_tokenizer(model_folder)
    made = [{"prompt": None, "text": text} for text in texts(loaded, tokenizer, None, sampling.n, sampling)]
    for prompt in sampling.prompts:
        made.append({"prompt": prompt, "text": complete(loaded, tokenizer, prompt, sampling)})
    write_json(folder / "samples.json", made)
    lines = [f"# {loaded.name}\n"]
    for one in made:
        lines.append(f"**{one['prompt'] or '(no prompt)'}**\n\n```text\n{one['text']}\n```\n")
    write_text(folder / "samples.md", "\n".join(lines))


def write_grid(loaded: SimpleNamespace, sampling: Any, path: Path) -> None:
    """Write a PNG with a row of `sampling.per_class` images for each class."""
    n_classes = loaded.description.n_classes
    x = images(loaded, np.repeat(np.arange(n_classes), sampling.per_class), sampling)
    write_image_grid(x.reshape(n_classes, sampling.per_class, *x.shape[1:]), path)


def write_image_grid(x: np.ndarray, path: Path) -> None:
    """Write images (rows, columns, C, H, W) in [0, 1] as one PNG, enlarged to about 40 pixels each."""
    from PIL import Image

    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)
    rows, columns, channels, height, width = x.shape
    grid = x.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = (np.clip(grid, 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    factor = max(1, 40 // width)
    with atomic(path) as temporary:
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(temporary, "PNG")
