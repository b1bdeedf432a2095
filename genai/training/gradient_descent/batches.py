"""What a step of training depends on: its examples and the seed of its draws, both functions of its number."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from genai.training.gradient_descent.train import Config

Arrays = dict[str, np.ndarray]  # by name; the first axis is the examples


def seeds(*parts: int, n: int) -> list[int]:
    """Return n independent seeds of 32 bits (torch's CPU generator uses no more) from the parts."""
    return np.random.SeedSequence(parts).generate_state(n).tolist()


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed what torch draws by itself on the CPU and on the device."""
    # torch.manual_seed would do, but spends most of a millisecond on the devices that are not there
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def batches(
    arrays: Arrays, config: "Config", start: int, rank: int, world: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield this rank's shares of the batches of steps start, start + 1, ...

    Each epoch is a new permutation; what is left of it at its end is dropped.
    """
    n, size = len(next(iter(arrays.values()))), config.batch_size
    epoch, first = divmod(start, n // size)
    while True:
        order = np.random.default_rng([config.seed, epoch]).permutation(n)
        for i in range(first, n // size):
            yield tensors(arrays, order[i * size : (i + 1) * size][rank::world], device)
        epoch, first = epoch + 1, 0


def tensors(arrays: Arrays, index: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """Return these examples on the device."""
    return {name: torch.from_numpy(array[index]).to(device) for name, array in arrays.items()}


def parts(batch: dict[str, Tensor], n: int) -> Iterator[dict[str, Tensor]]:
    """Yield a batch in n parts of as many examples."""
    chunks = {name: tensor.chunk(n) for name, tensor in batch.items()}
    yield from ({name: chunk[i] for name, chunk in chunks.items()} for i in range(n))
