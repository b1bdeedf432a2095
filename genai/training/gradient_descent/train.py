"""The one training loop: steps of gradient descent on `model.loss(batch)`; it knows no topic.

Step k depends on the seed and on k alone: the order of the data, every random draw (the generators
are seeded anew at each step) and the learning rate. So a checkpoint needs only weights, optimisers
and k, and a training that is killed and resumed gives the bits of one that was not.

Several processes: `torchrun --nproc-per-node N -m genai train NAME` shares each batch among them.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch._dynamo  # the first optimiser would import it, and make an import look like training
from pydantic import Field
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from genai.core.config import Count, Fraction, Rate, Seed, Strict, UserError
from genai.core.dataset import Dataset, write_text
from genai.training.gradient_descent import checkpoint, devices
from genai.training.gradient_descent.batches import Arrays, batches, parts, seed_draws, seeds, tensors
from genai.training.gradient_descent.optimizers import make_optimizers, schedule, set_rates

COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate")
VALIDATION_BATCHES = 8  # a curve needs no more; the figures come from evaluate
PREVIEWS = 8  # at most

OnPreview = Callable[[int, np.ndarray], None]


class Config(Strict):
    """How the loop trains an `nn.Module`. Rates are peaks; every schedule counts steps."""

    method: Literal["gradient_descent"]
    seed: Seed
    threads: Count = Field(description="CPU threads; results depend on it, so it is a parameter")
    steps: Count
    batch_size: Count
    accumulate: Count = Field(1, description="parts that a batch is computed in, one after the other, to save memory")
    learning_rate: Rate = Field(description="AdamW's")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    muon_learning_rate: Rate | None = Field(None, description="Muon's, for hidden matrices; null: AdamW trains them")
    embedding_learning_rate: Rate | None = Field(
        None, description="AdamW's for embeddings and the head; null: learning_rate"
    )
    warmup: Fraction = Field(0.05, description="share of the steps in which the rate rises linearly")
    decay: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of the steps, at the end, in which it falls linearly to zero"
    )
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient")
    ema: Fraction | None = Field(None, description="decay of the weights' moving average; null: none")
    bf16: bool = Field(False, description="autocast to bfloat16 where the device is faster in it")
    compile: bool = Field(
        False, description="fuse the kernels of the loss where there is a compiler: half a minute, once"
    )
    validate_every: Count = 50


def train(
    build: Callable[[], nn.Module],
    dataset: Dataset,
    config: Config,
    work: Path,
    fingerprint: str,
    on_preview: OnPreview | None = None,
) -> nn.Module:
    """Return the model that `build` makes, trained; see `descend`.

    build: called once the seed is set, since a network draws its first weights as it is built.
    fingerprint: of the experiment and its data; code, torch and this configuration are added here.
    """
    torch.manual_seed(config.seed)
    model = build()
    fingerprint = checkpoint.fingerprint(fingerprint, config.model_dump_json())
    arrays, validation = dataset.arrays("train"), dataset.arrays("validation")
    return descend(model, arrays, validation, config, work, fingerprint, on_preview=on_preview)


def descend(
    model: nn.Module,
    arrays: Arrays,
    validation: Arrays,
    config: Config,
    work: Path,
    fingerprint: str,
    checkpoint_seconds: float = 30.0,
    on_preview: OnPreview | None = None,
) -> nn.Module:
    """Train and return the model to use (its moving average where `config.ema` is set), on the CPU.

    work: folder of the live files: history.csv and checkpoint.pt; its folder previews is
    emptied where a training begins anew.
    fingerprint: of all that the result depends on; a checkpoint with another one is ignored.
    on_preview: given the step and what `model.preview` drew, a few times, where the model has that method.
    Raises UserError where the gradient is not finite, a checkpoint cannot be read or the batch does
    not fit the data; SystemExit(143) or KeyboardInterrupt after SIGTERM or SIGINT, checkpoint written.
    """
    torch.set_num_threads(config.threads)
    # momentum of units that have died decays for ever, and a product of denormal numbers takes a hundred times as long
    torch.set_flush_denormal(True)
    device = devices.device()
    rank, world = devices.join(device)
    n = len(next(iter(arrays.values())))
    if config.batch_size > n or config.batch_size % (world * config.accumulate):
        raise UserError(
            f"train.batch_size: {config.batch_size} should be at most the {n} training examples "
            f"and divisible by the {world} process(es) times train.accumulate, {config.accumulate}"
        )
    compiled = config.compile and devices.has_compiler(device)
    # the batch norm and the draws of each share are its own, and so is the rounding of fused kernels
    fingerprint = f"{fingerprint} {world} {compiled}"
    model.to(device).train()
    bf16 = config.bf16 and devices.has_bf16(device)
    optimizers = make_optimizers(model, config, bf16)
    average = None
    if config.ema is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    result = average.module if average is not None else model
    loss_of: Any = model.loss
    if compiled:
        loss_of = devices.compiled(loss_of)
    if world > 1:
        loss_of = nn.parallel.DistributedDataParallel(devices.Loss(model, loss_of))
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    parameters = list(model.parameters())  # once: it takes as long as all that is watched at each step

    history: list[list[float]] = []
    total, since = torch.zeros((), device=device), 0  # loss since the last row of the history
    norms = torch.zeros((), device=device)  # the sum of the gradients' since then: finite as long as they are
    start = 0
    path = work / "checkpoint.pt"
    if saved := checkpoint.load(path, fingerprint, device):
        start, since, history = saved["step"], saved["since"], saved["history"]
        total.copy_(saved["total"])
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if average is not None:
            average.load_state_dict(saved["average"])

    def check_finite(step: int) -> None:
        if not norms.isfinite():
            kept = f"; the checkpoint of an earlier step is kept in {work}" if path.exists() else ""
            raise UserError(f"train: the gradient is not finite before step {step}; lower the learning rates{kept}")

    def save(step: int) -> None:
        check_finite(step)
        if rank == 0:
            content = {
                "fingerprint": fingerprint, "step": step, "since": since, "total": total, "history": history,
                "model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "average": average.state_dict() if average is not None else None,
            }  # fmt: skip
            checkpoint.save(path, content)

    step_seeds = seeds(config.seed, rank, n=config.steps)
    previews = preview_steps(config) if on_preview and rank == 0 and hasattr(model, "preview") else set()
    if rank == 0:
        write_text(work / "history.csv", _csv(history))
        if not start:
            shutil.rmtree(work / "previews", ignore_errors=True)
    saved_at = time.monotonic()
    with devices.Signals() as signals, tqdm(
        total=config.steps, initial=start, disable=rank > 0, mininterval=0.1 if sys.stderr.isatty() else 5,
        desc=work.name, unit="step", dynamic_ncols=sys.stderr.isatty(), ncols=None if sys.stderr.isatty() else 90,
    ) as bar:  # fmt: skip
        shares = batches(arrays, config, start, rank, world, device)
        for step, batch in zip(range(start, config.steps), shares, strict=False):
            seed_draws(device, step_seeds[step])
            factor = schedule(step, config)
            set_rates(optimizers, factor)
            for part in parts(batch, config.accumulate):
                with precision:
                    loss = loss_of(part) / config.accumulate
                loss.backward()
                total += loss.detach()
            norms += nn.utils.clip_grad_norm_(parameters, config.clip)
            for optimizer in optimizers:
                optimizer.step()
            for parameter in parameters:
                parameter.grad = None
            if average is not None:
                average.update_parameters(model)
            since += 1
            done = step + 1
            bar.update()
            now = time.monotonic()
            if done % config.validate_every == 0 or done == config.steps:
                check_finite(done)
                if rank == 0:
                    judged = validation_loss(result, validation, config, device)
                    history.append([done, total.item() / since, judged, config.learning_rate * factor])
                    with open(work / "history.csv", "a") as file:
                        file.write(_csv(history[-1:], header=False))
                    bar.set_postfix(loss=f"{history[-1][1]:.3f}", validation=f"{judged:.3f}", refresh=False)
                if on_preview and done in previews:
                    on_preview(done, _preview(result, config.seed))
                total.zero_()
                norms.zero_()
                since = 0
            if now - saved_at > checkpoint_seconds:
                save(done)
                saved_at = now
            if signals.stop(world):
                save(done)
                signals.leave()
    return result.cpu().eval()


def preview_steps(config: Config) -> set[int]:
    """Return the steps after which a generator shows what it draws: rows of the history, even, the last included."""
    rows = [*range(config.validate_every, config.steps, config.validate_every), config.steps]
    return set(rows[:: -len(rows) // PREVIEWS])


@torch.no_grad()
def _preview(model: Any, seed: int) -> np.ndarray:
    # always from the same noise, so that what changes is the model; its own generator, so that no draw of the
    # training changes (others are seeded anew at the next step)
    was_training = model.training
    model.eval()
    samples = model.preview(torch.Generator().manual_seed(seed)).cpu().numpy()
    model.train(was_training)
    return samples


@torch.no_grad()
def validation_loss(model: Any, arrays: Arrays, config: Config, device: torch.device) -> float:
    """Return the mean loss over the first batches of the split, with the same draws every time."""
    was_training = model.training
    model.eval()
    n, size = len(next(iter(arrays.values()))), config.batch_size
    total = count = 0
    own_seeds = seeds(config.seed, 2**32 - 1, n=VALIDATION_BATCHES)
    for i, seed in zip(range(0, n, size), own_seeds, strict=False):
        seed_draws(device, seed)
        batch = tensors(arrays, np.arange(i, min(i + size, n)), device)
        examples = min(i + size, n) - i
        total += model.loss(batch).item() * examples
        count += examples
    model.train(was_training)
    return total / count


def _csv(rows: list[list[float]], header: bool = True) -> str:
    lines = [",".join(COLUMNS)] if header else []
    return "\n".join(lines + [f"{row[0]}," + ",".join(f"{value:.6g}" for value in row[1:]) for row in rows]) + "\n"
