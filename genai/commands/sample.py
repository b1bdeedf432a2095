"""Generate with a trained model, of this folder or of the registry, to standard output or a file."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from genai.core.config import PARAMS, Generator, UserError, load_file, pick, read_params, validate
from genai.core.stage import limit_threads, trained_threads


def main(model: str, prompt: str | None, out: str | None, **changes: Any) -> None:
    """model: the name of a generator of params.yaml, or models:/NAME@ALIAS; changes: of its sampling numbers."""
    with ExitStack() as stack:
        if model.startswith("models:"):
            from genai import tracking

            folder = tracking.local_copy(model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            section = (
                json.loads((folder / "generator.json").read_text()) if (folder / "generator.json").exists() else None
            )
            if section is None:
                raise UserError(f"{model}: generates nothing; sample a diffusion or language model")
            name = model
        else:
            name, folder = model, Path("models") / model
            section = pick(read_params().get("generators") or {}, model, f"generators of {PARAMS}")
            section = validate(Generator, section, f"generators.{model}").model_dump()
            limit_threads(trained_threads(folder))
        from genai import model as models

        loaded = models.load(folder, same_code=not model.startswith("models:"))
        given = {key: value for key, value in changes.items() if value is not None}
        if unknown := [key for key in given if key not in loaded.model.Sampling.model_fields]:
            raise UserError(
                f"--{unknown[0].replace('_', '-')}: {name} has no such number; "
                f"it has {', '.join(loaded.model.Sampling.model_fields)}"
            )
        numbers = section["sampling"]
        if "sampler" in given:  # what only the section's own sampler reads goes with it
            numbers = loaded.model.Sampling.of_sampler(numbers | {"sampler": given["sampler"]})
        sampling = validate(loaded.model.Sampling, numbers | given, "sampling")
        task = load_file("tasks", section["task"], "task")
        print(task.generate(loaded, sampling, prompt, Path(out) if out else None))
