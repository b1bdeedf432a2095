"""Fashion-MNIST: 70,000 pieces of clothing of 28 x 28 grey pixels (Xiao, Rasul and Vollgraf, 2017)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import PublishedSplit as Config
from genai.data.images import from_torchvision

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "images"

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

ABOUT = """
Fashion-MNIST, Zalando's article images of 28 x 28 grey pixels: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a
novel image dataset for benchmarking machine learning algorithms", arXiv 1708.07747, 2017. Licence: MIT.
Read with torchvision, each file with the MD5 that torchvision publishes. The test split is the published
one; validation is a stratified share of the published training part.
"""


def prepare(config: Config, directory: Path) -> None:
    """Fetch and write the data set. Raises UserError where a file cannot be had or a byte in it is wrong."""
    from_torchvision("FashionMNIST", CLASSES, config, directory, ABOUT)
