"""The training loop against a bare loop of the same steps, in turns: python -m bench.training_loop.

The bare loop draws the same batches and takes the same optimiser steps; it keeps no history, clips nothing
it need not, saves and shows nothing. Prints the ratio of their throughputs, median over the turns.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genai.core.config import load, validate
from genai.core.dataset import Dataset
from genai.model import build
from genai.training.gradient_descent.batches import Arrays
from genai.training.gradient_descent.optimizers import make_optimizers, schedule, set_rates
from genai.training.gradient_descent.train import Config, descend, validation_loss

EXPERIMENTS = {"mlp": 1500, "cnn": 200, "text_diffusion": 20}  # steps a turn
TURNS = 7


def bare(model: Any, arrays: Arrays, validation: Arrays, training: Config) -> None:
    """Take the steps and nothing else, but for the one validation at the end that the loop does too."""
    model.train()
    optimizers = make_optimizers(model, training)
    order = np.random.default_rng(0).permutation(len(next(iter(arrays.values()))))
    precision = torch.autocast("cpu", torch.bfloat16, enabled=training.bf16 and torch.cpu._is_avx512_bf16_supported())
    size = training.batch_size
    for step in range(training.steps):
        index = np.take(order, range(step * size, (step + 1) * size), mode="wrap")
        with precision:
            loss = model.loss({name: torch.from_numpy(array[index]) for name, array in arrays.items()})
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        set_rates(optimizers, schedule(step, training))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    validation_loss(model, validation, training, torch.device("cpu"))


def main() -> None:
    torch.set_num_threads(1)
    params = load()
    for name, steps in EXPERIMENTS.items():
        experiment = params.experiments[name]
        dataset = Dataset(Path("data") / experiment.data)
        arrays = dataset.arrays("train")
        numbers = experiment.train.model_dump() | {"steps": steps, "ema": None, "validate_every": steps}
        training = validate(Config, numbers, f"experiments.{name}.train")
        validation = {key: array[: training.batch_size] for key, array in dataset.arrays("validation").items()}
        seconds: dict[str, list[float]] = {"bare": [], "loop": []}
        for turn in range(TURNS):
            for kind in ("bare", "loop") if turn % 2 else ("loop", "bare"):
                torch.manual_seed(0)
                model = build(name, experiment, dataset.description)
                with tempfile.TemporaryDirectory() as work:
                    start = time.process_time()
                    if kind == "bare":
                        bare(model, arrays, validation, training)
                    else:
                        descend(model, arrays, validation, training, Path(work), "")
                    seconds[kind].append(time.process_time() - start)
        ratio = statistics.median(b / t for b, t in zip(seconds["bare"], seconds["loop"], strict=True))
        each = {kind: 1000 * statistics.median(values) / steps for kind, values in seconds.items()}
        print(
            f"{name:16} bare {each['bare']:8.2f} ms a step, loop {each['loop']:8.2f}, throughput loop / bare {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
