"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes (Krizhevsky, 2009), from its binary version.

torchvision's reader unpickles the Python version, which would run whatever is in it; in the binary one a record is a
byte of class and 3,072 bytes of pixels, and nothing else.
"""

import tarfile
from pathlib import Path

import numpy as np

from genai.core.config import UserError
from genai.core.dataset import Kind, split_indices
from genai.data.download import fetch
from genai.data.images import Config, write

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "images"

ARCHIVE = "cifar-10-binary.tar.gz"
ADDRESS = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # published at the address's page
FOLDER = "cifar-10-batches-bin"
PARTS = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RECORD = 1 + 3 * 32 * 32  # bytes

ABOUT = """
CIFAR-10, photographs of 32 x 32 pixels in red, green and blue: A. Krizhevsky, "Learning Multiple Layers of Features
from Tiny Images", 2009. Its licence is not stated; research use with citation is customary. Read from the published
binary archive, which has the MD5 that its page states. The test split is the published one; validation is a
stratified share of the published training part.
"""


def prepare(config: Config, directory: Path) -> None:
    """Fetch and write the data set. Raises UserError where the file cannot be had or a byte in it is wrong."""
    parts = read(fetch([ADDRESS], f"CIFAR-10/{ARCHIVE}", md5=MD5))
    x, y = parts["train"]
    indices = split_indices(len(y), {"validation": config.validation}, config.seed, y)
    splits = {split: (x[index], y[index]) for split, index in indices.items()}
    write(directory, "CIFAR-10", splits | {"test": parts["test"]}, CLASSES, ABOUT)


def read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return x (N, 3, 32, 32) float32 in [0, 1] and y (N,) int64 of both published parts. Raises UserError."""
    try:
        with tarfile.open(path) as archive:
            parts = {part: b"".join(member(archive, name) for name in names) for part, names in PARTS.items()}
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise UserError(f"{path}: not the binary version of CIFAR-10 ({error})") from None
    return {part: records(content, f"{path}: {part}") for part, content in parts.items()}


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the bytes of one file of the archive. Raises KeyError where it is not a file in it."""
    file = archive.extractfile(f"{FOLDER}/{name}")
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def records(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and classes of records, one after the other. Raises UserError where one is cut off."""
    if len(content) % RECORD or not content:
        raise UserError(f"{where}: {len(content)} bytes, should be a multiple of {RECORD}, one image's")
    rows = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return rows[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255), rows[:, 0].astype(np.int64)
