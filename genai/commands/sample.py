"""Generate with a trained model, of this folder or of the registry, to standard output or a file."""

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from genai.core.config import PARAMS, Generator, UserError, load_file, pick, read_params, validate
from genai.core.stage import limit_threads, trained_threads

COLOURS = ("#d35400", "#bd6a2c", "#9c7a5f", "#7c8088", "#4f7fb0", "#1a7fd4")  # unsure to sure, on black as on white
STEPS, SECONDS = 120, 12.0  # frames at most, of a text that takes so long to be written


def main(model: str, prompt: str | None, watch: bool, out: str | None, **changes: Any) -> None:
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

        task = load_file("tasks", section["task"], "task")
        if watch and not hasattr(task, "recorded"):
            raise UserError(f"--watch: {name} draws images; only a text is watched as it is written")
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
        if not watch:
            print(task.generate(loaded, sampling, prompt, Path(out) if out else None))
            return
        if getattr(sampling, "best_of", 1) > 1:
            raise UserError(f"sampling.best_of: {sampling.best_of} should be 1 with --watch, which shows one text")
        trace = task.recorded(loaded, sampling, prompt)
        text = "".join(trace["tokens"])
        if out:
            from genai.core.dataset import write_text

            write_text(Path(out), text + "\n")
        if sys.stdout.isatty():
            play(trace)
        if out or not sys.stdout.isatty():
            print(out or text)


def play(trace: dict[str, Any]) -> None:
    """Show in the terminal how a text was written, in place; the finished text stays."""
    from rich.console import Console
    from rich.live import Live

    from genai.replay.trace import moments

    shown = moments(trace["evaluations"], STEPS)
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        for evaluation in shown:
            live.update(frame(trace, evaluation, coloured=not live.console.no_color), refresh=True)
            time.sleep(min(0.5, SECONDS / len(shown)))


def frame(trace: dict[str, Any], evaluation: int, coloured: bool = True) -> Any:
    """Return the text after so many evaluations, what is hidden as dots, and a line that says how far it is."""
    from rich.text import Text

    from genai.replay.trace import cells

    now, text = cells(trace, evaluation), Text()
    for cell in now:
        plain = "".join(c if c.isprintable() or c == "\n" else " " for c in cell.text)  # no codes of the terminal
        if cell.kind == "hidden":
            text.append("".join(c if c.isspace() else "·" for c in plain), "dim")
        else:
            new = " bold" * (0 < cell.evaluation == evaluation < trace["evaluations"])
            text.append(plain, COLOURS[cell.level] + new if cell.kind == "written" else "bold")
    every = str(trace["evaluations"])
    text.append(f"\n\n{evaluation:{len(every)}} of {every} evaluations", "dim")
    if coloured:
        text.append("  unsure ", "dim").append_tokens(("■", colour) for colour in COLOURS).append(" sure", "dim")
    return text
