"""The description of a run: what it is, how it did beside its baseline, a sample, and what brings it back."""

import contextlib
import json
from typing import Any

from genai.tracking.finished import Finished


def note(e: Finished) -> str:
    """Return up to five lines of markdown; what is not known yet, as before the report has run, is left out."""
    experiment = e.config["experiment"]
    lines = [f"{experiment['model']} of {experiment['code']}, trained on {e.data[0]} for {experiment['task']}"]
    board = _leaderboard(e)
    own = [row for row in board if row["experiment"] == e.name]
    lines += [", ".join(_figure(row) for row in own) + " on test"] if own else []
    lines += ["; ".join(text for row in own if (text := _beside(row, board)))]
    lines += [_sample(e)]
    commit = e.started.get("commit", "")
    here = f"git checkout {commit.removesuffix('-dirty')} && " if commit else ""
    lines += [f"to restore it: `{here}dvc checkout models/{e.name}` (or `dvc pull models/{e.name}`)"]
    if commit.endswith("-dirty"):
        lines[-1] += "; the working tree had changes that are in no commit"
    return "  \n".join(line for line in lines if line)  # two spaces: markdown's line break


def _leaderboard(e: Finished) -> list[dict[str, Any]]:
    """Return the rows of the report, best first in each group; none where it is older than these metrics."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = json.loads((e.root / "reports" / "leaderboard.json").read_text())
        own = [row for row in rows if row["experiment"] == e.name]
        if all(e.metrics["test"][row["metric"]] == row["test"] for row in own):
            return rows
    return []


def _figure(row: dict[str, Any]) -> str:
    error = f" ± {row['test_se']:.2g}" if row.get("test_se") is not None else ""
    return f"{row['metric']} {row['test']:.4g}{error}"


def _beside(own: dict[str, Any], board: list[dict[str, Any]]) -> str:
    """Return what a figure stands beside: its baseline, the best model of the basics; the best other one; its controls."""
    others = [row for row in board if row is not own and (row["data"], row["task"]) == (own["data"], own["task"])]
    basics = [row for row in others if row["topic"] == "basics"]
    text = [f"baseline {row['experiment']}: {_figure(row)}" for row in basics[:1]]
    text += [f"best other {row['experiment']}: {_figure(row)}" for row in others[:1] if row not in basics[:1]]
    controls = {
        k: v for k, v in own.get("others", {}).items() if k.endswith(("_floor", "_ceiling", "_constant", "_real"))
    }
    return ", ".join(text + [f"{key} {value:.4g}" for key, value in controls.items()])


def _sample(e: Finished) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        texts = json.loads((e.root / "samples" / e.name / "samples.json").read_text(encoding="utf-8"))
        return "it writes: " + " ".join(texts[0]["text"].split())[:200].replace("`", "'")
    grid = e.root / "samples" / e.name / "grid.png"
    return "it draws: samples/grid.png among the artifacts" if grid.exists() else ""
