"""text8: the first 100,000,000 characters of a Wikipedia of 2006, lower-case a-z and single blanks.

M. Mahoney, "About the test data" (2011). The customary split is in order, 90 / 5 / 5 million, so that bits per character
compare with those published.
"""

import hashlib
import zipfile
from pathlib import Path

from genai.core.config import UserError
from genai.core.dataset import Kind, write_text
from genai.data import text
from genai.data.download import fetch

kind: Kind = "text"

ADDRESSES = ["https://mattmahoney.net/dc/text8.zip", "http://mattmahoney.net/dc/text8.zip"]
SHA256 = "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"
MD5 = "3bea1919949baf155f99411df5fada7e"  # of the file inside, as its author publishes it
ENDS = {"train": 90_000_000, "validation": 95_000_000, "test": 100_000_000}


class Config(text.Cut):
    """How it is cut; the splits are the customary ones."""


def prepare(config: Config, directory: Path) -> None:
    """Download or copy the archive and write the data set into `directory`. Raises UserError."""
    path = fetch(ADDRESSES, "text8/text8.zip", sha256=SHA256)
    try:
        content = zipfile.ZipFile(path).read("text8")
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{path}: not the archive of text8 ({error})") from None
    if (found := hashlib.md5(content).hexdigest()) != MD5:
        raise UserError(f"{path}: text8 has md5 {found}, should be {MD5}")
    size, counts = text.write_splits(split(content.decode("ascii")), config, directory)
    rows = "\n".join(f"| {name} | {counts[name]:,} |" for name in ENDS)
    write_text(
        directory / "card.md",
        f"""# text8

## Origin

`text8.zip` of M. Mahoney, SHA-256 `{SHA256}`, the text in it MD5 `{MD5}` (both checked). From the English Wikipedia of
3 March 2006: GFDL and CC BY-SA.

## Preparation

The first 90 million characters are for training, 5 for validation, the last 5 for test, unchanged, as is customary:
articles lie whole in a split but at its borders, and what is said twice in the encyclopedia stays in both.
A byte-level BPE of {size:,} tokens was learned on the training part alone.

| split | tokens |
| --- | ---: |
{rows}
""",
    )


def split(content: str) -> dict[str, str]:
    """Return the text's three splits, in order."""
    return {name: content[begin:end] for (name, end), begin in zip(ENDS.items(), [0, *ENDS.values()], strict=False)}
