"""What a run leaves to be seen: artifacts in Prefect's pages, a text at the end, and why git calls files modified."""

import base64
import re
import subprocess
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows import PREFIX
from flows.lock import LOCK
from flows.plan import Stage


def show_results(stages: list[Stage]) -> None:
    """Show in Prefect's pages what `meta: {show: PATH}` of the stages names."""
    for stage in stages:
        if "show" in stage.meta and (markdown := as_markdown(Path(stage.meta["show"]))):
            create_markdown_artifact(markdown, key=f"{slug(PREFIX)}{slug(stage.name)}", description=stage.name)


def as_markdown(path: Path) -> str:
    """Return a file .md, .png, .gif or .html, or all files .md, .png and .gif of a folder, as one text."""
    if path.suffix == ".html" and path.is_file():
        body = re.search("<body>(.*)</body>", path.read_text(encoding="utf-8"), re.DOTALL)
        shown = re.sub(r"<(script|style)\b.*?</\1>", "", body[1], flags=re.DOTALL) if body else ""  # Prefect runs none
        return re.sub(r"\n\s*\n", "\n", shown)  # Markdown takes HTML up to the next empty line
    parts = []
    files = sorted(path.rglob("*"), key=lambda file: (len(file.parts), file))  # what lies in no inner folder first
    for file in files if path.is_dir() else [path]:
        if file.suffix == ".md" and file.is_file():
            parts.append(file.read_text(encoding="utf-8"))
        elif file.suffix in (".png", ".gif") and file.is_file():
            encoded = base64.b64encode(file.read_bytes()).decode()
            parts.append(
                f"![{file}](data:image/{file.suffix[1:]};base64,{encoded})"
            )  # an image artifact would print the address too
    return "\n\n".join(parts)


def print_results(stages: list[Stage]) -> None:
    """Run the commands that `meta: {print: COMMAND}` of the stages names: what they print ends the run.

    A command, not a file that a stage writes, so that it can tell what was measured, which no output of a stage may hold.
    """
    for stage in stages:
        if "print" in stage.meta:
            print(flush=True)
            subprocess.run(["/bin/sh", "-c", stage.meta["print"]], check=False)


def explain_git_status(files: dict[str, bool]) -> None:
    """Print one line where git calls dvc.lock or outputs modified that stand in git.

    files: these outputs, and of each whether it is a metric.
    """
    command = ["git", "status", "--porcelain", "-z", "--untracked-files=no", "--", str(LOCK), *files]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return
    modified = {entry[3:] for entry in found.split("\0") if entry}
    outputs = [name for name in modified if not name.endswith(LOCK.name)]
    if modified:
        kind = "metric" if all(files.get(name) for name in outputs) else "output"
        names = [str(LOCK)] * (len(outputs) < len(modified))
        names += [f"{len(outputs)} {kind}{'s' * (len(outputs) > 1)}"] * bool(outputs)
        print(
            f"\ngit: {' and '.join(names)} {'differs' if len(modified) == 1 else 'differ'} from the commit (another "
            "processor, library or parameter); `dvc metrics diff` shows by how much"
        )


def slug(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts: train@text_diffusion becomes train-text-diffusion."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
