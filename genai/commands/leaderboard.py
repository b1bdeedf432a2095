"""Print the leaderboard with what each model cost, what the generators write, and where to look further."""

import json
import textwrap
from pathlib import Path

from genai.core.config import UserError

WIDTH = 100  # columns, of a terminal that is wider too
COLUMNS = (39, 20, 20, 12, 9)  # name, validation, test, parameters, CPU-seconds


def main() -> None:
    from rich.console import Console
    from rich.text import Text

    from genai import leaderboard, page

    try:
        board = json.loads(Path("reports/leaderboard.json").read_text())
    except (OSError, ValueError):
        raise UserError("reports/leaderboard.json: missing or damaged; run: dvc repro report") from None
    page.write(Path())  # DVC may have brought back the report without it
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    for group in leaderboard.groups(board):
        console.print(Text(leaderboard.heading(group), style="bold"))
        console.print(table(group))
        for row in group:
            if text := leaderboard.controls(row):
                told = textwrap.fill(
                    f"{row['experiment']}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    "
                )
                console.print(Text(told, style="dim"))
        console.print()
    for name, texts in page.texts(Path(), board).items():
        console.print(Text(f"{name} writes:", style="bold"))
        for one in texts[:2]:
            console.print(Text("  " + textwrap.shorten(one["text"], WIDTH - 4, placeholder=" …")))
        console.print()
    console.print("± is a standard error, CPU-s what training took here. All of it on one page, with every figure:")
    console.print(Text("  reports/index.html, or beside MLflow and Prefect: make ui"))


def table(group: list) -> object:
    """Return the rows of a group as a table as wide as that of any other group."""
    from rich.table import Table

    from genai import leaderboard

    result = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name, width in zip(("", "validation", "test", "parameters", "CPU-s"), COLUMNS, strict=True):
        result.add_column(name, width=width - 2, justify="right" if name else "left", no_wrap=True)
    for row in group:
        took = leaderboard.cpu_seconds(Path(), row["names"])
        style = "dim" if row["experiment"] == row["baseline"] else "bold" if row is group[0] else ""
        cells = leaderboard.cells(row, group)
        cells[0] = f"  {cells[0]}"
        result.add_row(*cells, f"{took:.1f}" if took is not None else "", style=style)
    return result
