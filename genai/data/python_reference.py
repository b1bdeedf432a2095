"""Python's own reference text and the docstrings of its standard library: real text on every machine, offline.

It differs between Python versions, so the card names the one that it came from.
"""

import ast
import platform
import re
import sys
import sysconfig
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from genai.core.config import UserError
from genai.core.dataset import Kind
from genai.data import text

kind: Kind = "text"

# Packages that distributions leave out of Python or ship apart, and encodings, whose docstrings are generated
# copies of one another: without them the text depends on the Python version alone.
SKIPPED = {
    "encodings",
    "ensurepip",
    "distutils",
    "idlelib",
    "lib2to3",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "venv",
}
FOLDED = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--", "\u2026": "..."}
)
RULE = re.compile(r"[ \t]*[-=~*_+^\"#. |]{4,}[ \t]*")
TABLE = re.compile(r"^\s*[+|].*[+|]\s*$|\S {3,}\S.*\S {3,}\S", re.MULTILINE)


class Config(text.TextConfig):
    """The text is the running Python's, so that its version is an input."""

    python: Annotated[str, Field(pattern=r"^3\.\d+$")] = Field(description="the running Python's version, like 3.11")

    @field_validator("python")
    @classmethod
    def _is_running(cls, version: str) -> str:
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version != running:
            raise ValueError(f"{version!r} should be {running!r}, the Python that runs this, whose text is the corpus")
        return version


def prepare(config: Config, directory: Path) -> None:
    """Write the data set into `directory`. Raises UserError where this Python came without its sources."""
    documents = [clean(document) for document in (*topics(), *docstrings(Path(sysconfig.get_path("stdlib"))))]
    if (total := sum(map(len, documents))) < 500_000:
        raise UserError(f"datasets.{directory.name}: this Python has {total} characters of reference text, no sources")
    text.write(
        documents,
        config,
        directory,
        f"""# Python reference text

English technical prose with code, ASCII only.

## Origin

`pydoc_data.topics` (the language reference as `help()` shows it) and the docstrings of the standard library's
modules, classes and functions, both of {platform.python_implementation()} {platform.python_version()}, read from its
installed sources. Copyright Python Software Foundation; PSF License Version 2.

A chapter of the reference is a document, and so are all docstrings of a module.

Typographic characters were folded to ASCII, paragraphs dedented; interactive examples (`>>>`), rules and tables were
dropped. Another version of Python gives another text: figures compare within one version.
""",
    )


def topics() -> list[str]:
    """Return the chapters of the language reference in the order of their names."""
    from pydoc_data.topics import topics as chapters

    return [chapters[name] for name in sorted(chapters)]


def docstrings(directory: Path) -> Iterator[str]:
    """Yield the docstrings of each of the standard library's source files, by path; nothing is imported."""
    wanted = sys.stdlib_module_names - SKIPPED  # site-packages is in this folder, too
    files = [path for top in directory.iterdir() if top.stem in wanted for path in (top, *top.rglob("*.py"))]
    for path in sorted(files, key=lambda path: path.relative_to(directory).parts):
        if path.suffix != ".py" or SKIPPED.intersection(path.relative_to(directory).parts):
            continue
        tree = ast.parse(path.read_bytes())
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        nodes.sort(key=lambda node: (node.lineno, node.col_offset))
        yield "\n\n".join(filter(None, (ast.get_docstring(node) for node in (tree, *nodes))))


def clean(document: str) -> str:
    """Return a document's prose: ASCII, each paragraph dedented, without doctests, rules and tables."""
    document = unicodedata.normalize("NFKD", document.translate(FOLDED)).encode("ascii", "ignore").decode()
    lines = [line for line in document.expandtabs().splitlines() if not RULE.fullmatch(line)]
    paragraphs = re.split(r"\n\s*\n", "\n".join(line.rstrip() for line in lines))
    paragraphs = [textwrap.dedent(p).strip() for p in paragraphs if ">>>" not in p and not TABLE.search(p)]
    return "\n\n".join(filter(None, paragraphs))
