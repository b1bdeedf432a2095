"""Any UTF-8 text file of the user's; its checksum is a parameter, so that a changed file is noticed."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from genai.core.config import UserError
from genai.core.dataset import Kind
from genai.data import text
from genai.data.download import checksum

kind: Kind = "text"


class Config(text.TextConfig):
    """Which file."""

    path: str = Field(description="the file, relative to the project's root")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="of its bytes; when it is wrong, the message says which one it has"
    )


def prepare(config: Config, directory: Path) -> None:
    """Write the data set into `directory`. Raises UserError where the file is missing, changed or not UTF-8."""
    at = f"datasets.{Path(directory).name}"
    path = Path(config.path)
    try:
        found = checksum(path)
        if found != config.sha256:
            raise UserError(f"{at}.sha256: {path} is another file than this says; its sha256 is {found}")
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{at}.path: {path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{at}.path: {config.path!r}: {error.strerror}; it should be a text file") from None
    documents = content.split("\f") if "\f" in content else text.sections(content, config)
    text.write(
        documents,
        config,
        directory,
        f"# {path.name}\n\n## Origin\n\nThe user's file `{config.path}`, SHA-256 `{found}`. Licence: the user knows. "
        "Form feeds end its documents; without any, they are consecutive sections.",
    )
