"""Tiny Shakespeare: 40,000 lines of the plays, the customary small benchmark of language models."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.data import text
from genai.data.download import fetch

kind: Kind = "text"

ADDRESSES = [
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
]
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Config(text.TextConfig):
    """Nothing of its own: the file is the published one."""


def prepare(config: Config, directory: Path) -> None:
    """Download or copy the file and write the data set into `directory`. Raises UserError."""
    path = fetch(ADDRESSES, "tinyshakespeare/input.txt", sha256=SHA256)
    text.write(
        text.sections(path.read_text(encoding="utf-8"), config),
        config,
        directory,
        f"""# Tiny Shakespeare

## Origin

`data/tinyshakespeare/input.txt` of A. Karpathy's char-rnn, 1,115,394 characters, SHA-256 `{SHA256}` (checked).
The plays are in the public domain; the repository's licence is MIT.

The file marks no acts or scenes, so its documents are consecutive sections of speeches, about as long as a scene. The
customary split is the first 90 % for training; figures do not compare with those of that one.
""",
    )
