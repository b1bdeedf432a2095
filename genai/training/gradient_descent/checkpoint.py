"""A training as it stands at a step, in one file of tensors and plain values."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

from genai.core.config import UserError
from genai.core.dataset import atomic


def fingerprint(*parts: str) -> str:
    """Return one hash of the given texts, torch's version and all code of this package that is loaded."""
    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.split(".")[0] == "genai"]
    code = [Path(file).read_text() for file in sorted(file for file in files if file)]
    digest = hashlib.sha256()
    for part in [*parts, torch.__version__, *code]:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def save(path: Path, content: dict[str, Any]) -> None:
    """Write it atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)  # given a path, it hides the error of a full disk


def load(path: Path, fingerprint: str, device: torch.device) -> dict[str, Any] | None:
    """Return what was saved under this fingerprint, else None.

    Raises UserError where the file is damaged, or holds objects: nothing in it is run.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        return saved if saved["fingerprint"] == fingerprint else None
    except Exception as error:  # noqa: BLE001 (what torch raises for a file not its own is not documented)
        reason = str(error).splitlines()[0][:100]
        raise UserError(
            f"{path}: refused, not a checkpoint of tensors alone ({reason}); delete it to train anew"
        ) from None
