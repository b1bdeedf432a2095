"""The training loop beside Lightning, Keras (on torch) and a bare loop: python -m bench.training [--turns N] [SIZE ...].

All train the same module from the same weights on the same batches in the same order, with AdamW of the same numbers, clipped
gradients and one thread; Lightning and Keras without their logging, bars and checkpoints, ours with all that it does.
Every measurement is a process of its own, and the four take turns. Throughput is from step to step, in CPU-seconds:
start, imports and end are not in it. `of the best` is the median over the turns of the throughput over that of the best of the
others; `memory` is the peak of the whole process; `loss` how far the last losses are from the bare loop's, relative.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from bench.child import HAS_PEERS, measured, peak
from genai.cnn.classifier import ConvNet
from genai.core.dataset import Description
from genai.diffusion.text.autoregressive import Autoregressive
from genai.neural_networks.mlp import MLP
from genai.training.gradient_descent.batches import Arrays, batches
from genai.training.gradient_descent.train import Config, descend

CPU = torch.device("cpu")
RATE, BETAS, CLIP = 1e-3, (0.9, 0.95), 1.0  # the loop's AdamW has these betas


@dataclass(frozen=True)
class Case:
    """A model, without draws of its own so that all loops compute the same losses, its data and how long it trains."""

    model: Any  # the class
    config: dict[str, Any]
    description: Description
    batch_size: int
    steps: int

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.model(self.model.Config(**self.config), self.description)

    def arrays(self, n: int = 2048) -> Arrays:
        """Return n examples: noise will do, since no loop's cost depends on what is learned."""
        rng = np.random.default_rng(0)
        if self.description.kind == "text":
            return {"tokens": rng.integers(self.description.vocabulary_size, size=(n, *self.description.shape))}
        x = rng.random((n, *self.description.shape), dtype=np.float32)
        return {"x": x, "y": rng.integers(self.description.n_classes, size=n)}

    def training(self) -> Config:
        """Return the numbers of our loop: a constant rate, as the others have."""
        return Config(
            method="gradient_descent", seed=0, threads=1, steps=self.steps, batch_size=self.batch_size,
            learning_rate=RATE, warmup=0.0, decay=0.0, clip=CLIP, validate_every=self.steps,
        )  # fmt: skip

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield what a step sees, in our loop's order, for ever."""
        return batches(self.arrays(), self.training(), 0, 0, 1, CPU)


DIGITS = Description(kind="images", shape=[1, 8, 8], classes=list("0123456789"))
TEXT = Description(kind="text", shape=[128], vocabulary_size=4096)
CASES = {  # the models of params.yaml
    "mlp": Case(MLP, {"widths": [512, 512]}, DIGITS, 64, 1000),
    "cnn": Case(ConvNet, {"channels": [16, 32], "n_features": 64}, DIGITS, 64, 500),
    "transformer": Case(Autoregressive, {"layers": 4, "width": 128, "heads": 4}, TEXT, 16, 30),
}


@dataclass
class Record:
    """What is noted at each step of a training, whoever's loop it is."""

    seconds: list[float] = field(default_factory=list)  # of CPU, when the step's loss is asked for
    losses: list[Tensor] = field(default_factory=list)


class Recorded(nn.Module):
    """A model whose `loss`, which is its forward too, notes when it was asked and what it answered."""

    def __init__(self, model: nn.Module, record: Record):
        super().__init__()
        self.model: Any = model
        self.record = record

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        if not self.training:
            return self.model.loss(batch)
        self.record.seconds.append(time.process_time())
        loss = self.model.loss(batch)
        self.record.losses.append(loss.detach())
        return loss

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.loss(batch)


def ours(model: nn.Module, case: Case) -> None:
    with tempfile.TemporaryDirectory() as work:
        arrays = case.arrays()
        few = {name: array[: case.batch_size] for name, array in arrays.items()}
        descend(model, arrays, few, case.training(), Path(work), "")


def bare(model: nn.Module, case: Case) -> None:
    """Take the steps and nothing else."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0, fused=True)
    for batch in islice(case.batches(), case.steps):
        model(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()


class Stream(IterableDataset):
    """The batches for torch's DataLoader, whole, which is the fastest way to feed it."""

    def __init__(self, case: Case):
        self.case = case

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self.case.batches()


def lightning(model: nn.Module, case: Case) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            return self.model(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0, fused=True)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=case.steps, gradient_clip_val=CLIP, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Stream(case), batch_size=None))


def keras(model: nn.Module, case: Case) -> None:
    import keras

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.layers.TorchModuleWrapper(model)

        def call(self, batch: dict[str, Tensor]) -> Tensor:
            return self.inner(batch)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Tensor:
            return y_pred

    network = Model()
    network.compile(
        optimizer=keras.optimizers.AdamW(
            RATE, weight_decay=0.0, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=1e-8, global_clipnorm=CLIP
        ),
        jit_compile=False,
    )
    loader = ((batch,) for batch in case.batches())
    network.fit(loader, steps_per_epoch=case.steps, epochs=1, verbose=0)


LOOPS = {"ours": ours, "bare": bare, "lightning": lightning, "keras": keras}


def train(loop: str, case: Case) -> tuple[list[float], list[float]]:
    """Train by the loop, one thread; return CPU-seconds from step to step, and the loss at each step."""
    torch.set_num_threads(1)
    record = Record()
    LOOPS[loop](Recorded(case.build(), record), case)
    return np.diff(record.seconds[-case.steps :]).tolist(), torch.stack(record.losses[-case.steps :]).tolist()


def measure(loop: str, case: Case) -> dict[str, float]:
    """Return examples per CPU-second, without the first tenth of the steps; the peak of memory, MiB; the last losses."""
    seconds, losses = train(loop, case)
    steady = seconds[len(seconds) // 10 :]
    return {
        "throughput": case.batch_size * len(steady) / sum(steady),
        "memory": peak(),
        "loss": statistics.mean(losses[-10:]),
    }


def compare(size: str, loops: list[str], turns: int) -> None:
    """Print a line for each loop."""
    runs: dict[str, list[Any]] = {loop: [] for loop in loops}
    for turn in range(turns):
        for loop in loops[turn % len(loops) :] + loops[: turn % len(loops)]:
            found = measured("bench.training", "--child", loop, size)
            if isinstance(found, str):
                raise SystemExit(f"{size}, {loop}: {found}")
            runs[loop].append(found)
    median = {loop: {key: statistics.median(run[key] for run in runs[loop]) for key in runs[loop][0]} for loop in loops}
    for loop in loops:
        best = max((other for other in loops if other != loop), key=lambda other: median[other]["throughput"])
        ratio = statistics.median(
            a["throughput"] / b["throughput"] for a, b in zip(runs[loop], runs[best], strict=True)
        )
        here = median[loop]
        loss = here["loss"] / median["bare"]["loss"] - 1
        print(
            f"{size:12}{loop:12}{here['throughput']:12.0f}{ratio:10.3f} of {best:10}{here['memory']:10.0f}{loss:12.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", choices=[*CASES, []], metavar="SIZE", help=", ".join(CASES))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--child", choices=LOOPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, CASES[arguments.sizes[0]])))
        return
    loops = list(LOOPS)
    if not HAS_PEERS:
        loops = ["ours", "bare"]
        print("without Lightning and Keras: make peers installs them")
    print(f"{'':24}{'examples / s':>12}  of the best other{'MiB':>12}{'loss':>12}")
    for size in arguments.sizes or CASES:
        compare(size, loops, arguments.turns)


if __name__ == "__main__":
    main()
