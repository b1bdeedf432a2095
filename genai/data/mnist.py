"""MNIST: 70,000 handwritten digits of 28 x 28 grey pixels (LeCun, Bottou, Bengio and Haffner, 1998)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import PublishedSplit as Config
from genai.data.images import from_torchvision

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "images"

ABOUT = """
MNIST, handwritten digits of 28 x 28 grey pixels: LeCun, Bottou, Bengio and Haffner, "Gradient-based
learning applied to document recognition", 1998. By Y. LeCun and C. Cortes; commonly given as CC BY-SA 3.0.
Read with torchvision, each file with the MD5 that torchvision publishes. The test split is the published
one; validation is a stratified share of the published training part.
"""


def prepare(config: Config, directory: Path) -> None:
    """Fetch and write the data set. Raises UserError where a file cannot be had or a byte in it is wrong."""
    from_torchvision("MNIST", [str(digit) for digit in range(10)], config, directory, ABOUT)
