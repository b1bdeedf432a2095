"""The one training loop: steps of gradient descent on `model.loss(batch)`; it knows no topic.

Step k depends on the seed and on k alone: the order of the data, every random draw (the generators
are seeded anew at each step) and the learning rate. So a checkpoint needs only weights, optimisers
and k, and a training that is killed and resumed gives the bits of one that was not.

Several processes: `torchrun --nproc-per-node N -m genai train NAME` shares each batch among them.
"""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch._dynamo  # the first optimiser would import it, and make an import look like training
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from genai.core.config import Count, Fraction, Rate, Seed, Strict, UserError
from genai.core.dataset import atomic, write_json, write_text

from typing import Annotated, Literal, Any
from pydantic import Field
class Config(Strict):
    method: Literal["gradient_descent"]
    seed: Seed
    threads: Count
    steps: Count
    batch_size: Count
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
    bf16: bool = Field(False, description="autocast to bfloat16 where the device has it")
    validate_every: Count = 50
GradientDescent = Config
STEPS = True
def check(cls, where):
    pass
def seed(config):
    torch.manual_seed(config.seed)
def environment(config):
    return {"torch": torch.__version__}

COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate")
VALIDATION_BATCHES = 8  # a curve needs no more; the figures come from evaluate


def train(model, dataset, config, work, fingerprint, previews=None):
    return _train(model, dataset.arrays("train"), dataset.arrays("validation"), config, work, fingerprint)

def _train(
    model: nn.Module,
    arrays: dict[str, np.ndarray],
    validation: dict[str, np.ndarray],
    training: GradientDescent,
    work: Path,
    fingerprint: str,
    checkpoint_seconds: float = 30.0,
) -> nn.Module:
    """Train and return the model to use (its moving average where `training.ema` is set), on the CPU.

    arrays, validation: named arrays whose first axis is the examples.
    work: folder of the live files: history.csv, progress.json and checkpoint.pt.
    fingerprint: of all that the result depends on; a checkpoint with another one is ignored.
    Raises UserError where the gradient is not finite, a checkpoint cannot be read or the batch does
    not fit the data; SystemExit(143) or KeyboardInterrupt after SIGTERM or SIGINT, checkpoint written.
    """
    device, rank, world = _place()
    n = len(next(iter(arrays.values())))
    if training.batch_size > n or training.batch_size % world:
        raise UserError(
            f"train.batch_size: {training.batch_size} should be at most the {n} training examples "
            f"and divisible by the {world} process(es)"
        )
    torch.set_num_threads(training.threads)
    model.to(device).train()
    optimizers = make_optimizers(model, training)
    average = None
    if training.ema is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema), use_buffers=True)
    loss_of = model.loss
    if world > 1:  # gradients are averaged only through the wrapper's forward
        loss_of = nn.parallel.DistributedDataParallel(_Loss(model))
    bf16 = training.bf16 and has_bf16(device)

    history: list[list[float]] = []
    total, since = torch.zeros((), device=device), 0  # loss since the last row of the history
    finite = torch.ones((), dtype=torch.bool, device=device)
    start = 0
    checkpoint = work / "checkpoint.pt"
    if saved := _load(checkpoint, fingerprint, device):
        start, since, history = saved["step"], saved["since"], saved["history"]
        total.copy_(saved["total"])
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if average is not None:
            average.load_state_dict(saved["average"])

    def save(step: int) -> None:
        if rank == 0:
            content = {
                "fingerprint": fingerprint, "step": step, "since": since, "total": total, "history": history,
                "model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "average": average.state_dict() if average is not None else None,
            }  # fmt: skip
            with atomic(checkpoint) as temporary, open(temporary, "wb") as file:
                torch.save(content, file)  # given a path, it hides the error of a full disk

    def check_finite(step: int) -> None:
        if not finite:
            kept = f"; the checkpoint of an earlier step is kept in {work}" if checkpoint.exists() else ""
            raise UserError(f"train: the gradient is not finite before step {step}; lower the learning rates{kept}")

    seeds = _seeds(training.seed, rank, n=training.steps)
    if rank == 0:
        write_text(work / "history.csv", _csv(history))
    saved_at = reported_at = time.monotonic()
    with _Signals() as signals, tqdm(
        total=training.steps, initial=start, disable=rank > 0, mininterval=0.1 if sys.stderr.isatty() else 5,
        desc=work.name, unit="step", dynamic_ncols=sys.stderr.isatty(), ncols=None if sys.stderr.isatty() else 90,
    ) as bar:  # fmt: skip
        batches = _batches(arrays, training, start, rank, world, device)
        for step, batch in zip(range(start, training.steps), batches, strict=False):
            _seed(device, seeds[step])
            factor = schedule(step, training)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(batch)
            loss.backward()
            finite &= nn.utils.clip_grad_norm_(model.parameters(), training.clip).isfinite()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if average is not None:
                average.update_parameters(model)
            total += loss.detach()
            since += 1
            done = step + 1
            bar.update()
            now = time.monotonic()
            if done % training.validate_every == 0 or done == training.steps:
                check_finite(done)
                if rank == 0:
                    judged = validation_loss(
                        average.module if average is not None else model, validation, training, device
                    )
                    history.append([done, total.item() / since, judged, training.learning_rate * factor])
                    with open(work / "history.csv", "a") as file:
                        file.write(_csv(history[-1:], header=False))
                    bar.set_postfix(loss=f"{history[-1][1]:.3f}", validation=f"{judged:.3f}", refresh=False)
                total.zero_()
                since = 0
            if rank == 0 and now - reported_at > 2:
                reported_at = now
                left = (training.steps - done) * bar.format_dict["elapsed"] / (done - start)
                write_json(
                    work / "progress.json", {"step": done, "steps": training.steps, "seconds_left": round(left, 1)}
                )
            if now - saved_at > checkpoint_seconds:
                check_finite(done)
                save(done)
                saved_at = now
            if signals.stop(world):
                check_finite(done)
                save(done)
                signals.leave()
    return (average.module if average is not None else model).cpu().eval()


def schedule(step: int, training: GradientDescent) -> float:
    """Return the factor of the peak learning rates at a step: linear rise, constant, linear fall to zero."""
    warmup, decay = training.warmup * training.steps, training.decay * training.steps
    rise = (step + 1) / warmup if warmup else 1.0
    fall = (training.steps - step) / decay if decay else 1.0
    return min(rise, fall, 1.0)


def make_optimizers(model: nn.Module, training: GradientDescent) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon (Jordan et al., 2024) for the hidden matrices where its rate is set.

    Embeddings and the `head` learn at `embedding_learning_rate`. Decay of weights is for matrices only.
    """
    muon, embedding, matrices, others = [], [], [], []
    for module_name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) or module_name.rpartition(".")[2] == "head":
                embedding.append(parameter)
            elif training.muon_learning_rate is not None and isinstance(module, nn.Linear) and parameter.ndim == 2:
                muon.append(parameter)
            else:
                (matrices if parameter.ndim > 1 else others).append(parameter)
    rate, decay = training.learning_rate, training.weight_decay
    groups = [
        {"params": embedding, "lr": training.embedding_learning_rate or rate, "weight_decay": 0.0},
        {"params": matrices, "lr": rate, "weight_decay": decay},
        {"params": others, "lr": rate, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if groups := [group for group in groups if group["params"]]:
        optimizers.append(torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True))
    if muon:
        optimizers.append(torch.optim.Muon(muon, lr=training.muon_learning_rate, weight_decay=decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


@torch.no_grad()
def validation_loss(
    model: nn.Module, arrays: dict[str, np.ndarray], training: GradientDescent, device: torch.device
) -> float:
    """Return the mean loss over the first batches of the split, with the same draws every time."""
    was_training = model.training
    model.eval()
    n, size = len(next(iter(arrays.values()))), training.batch_size
    total = count = 0
    seeds = _seeds(training.seed, 2**32 - 1, n=VALIDATION_BATCHES)
    for i, seed in zip(range(0, n, size), seeds, strict=False):
        _seed(device, seed)
        batch = _tensors(arrays, np.arange(i, min(i + size, n)), device)
        examples = min(i + size, n) - i
        total += model.loss(batch).item() * examples
        count += examples
    model.train(was_training)
    return total / count


def fingerprint(*parts: str) -> str:
    """Return one hash of all that a training depends on: the given texts and the code loaded for it."""
    digest = hashlib.sha256()
    code = sorted(m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "genai" and m.__file__)
    for part in [*parts, torch.__version__, *(Path(file).read_text() for file in code)]:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def has_bf16(device: torch.device) -> bool:
    """Say whether the device computes in bfloat16 (emulated, it would be slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _place() -> tuple[torch.device, int, int]:
    """Return device, rank and number of processes; join the process group under torchrun."""
    kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if "WORLD_SIZE" not in os.environ:
        return torch.device(kind), 0, 1
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return torch.device("cpu" if kind == "mps" else kind), dist.get_rank(), dist.get_world_size()


class _Loss(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model.loss(batch)


def _seeds(*parts: int, n: int) -> list[int]:
    # 32 bits each: torch's CPU generator uses no more
    return np.random.SeedSequence(parts).generate_state(n).tolist()


def _seed(device: torch.device, seed: int) -> None:
    # torch.manual_seed would do, but spends most of a millisecond on the devices that are not there
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _batches(
    arrays: dict[str, np.ndarray], training: GradientDescent, start: int, rank: int, world: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of steps start, start + 1, ...: each epoch a new permutation, its rest dropped."""
    n, size = len(next(iter(arrays.values()))), training.batch_size
    epoch, first = divmod(start, n // size)
    while True:
        order = np.random.default_rng([training.seed, epoch]).permutation(n)
        for i in range(first, n // size):
            yield _tensors(arrays, order[i * size : (i + 1) * size][rank::world], device)
        epoch, first = epoch + 1, 0


def _tensors(arrays: dict[str, np.ndarray], index: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array[index]).to(device) for name, array in arrays.items()}


def _csv(rows: list[list[float]], header: bool = True) -> str:
    lines = [",".join(COLUMNS)] if header else []
    return "\n".join(lines + [f"{row[0]}," + ",".join(f"{value:.6g}" for value in row[1:]) for row in rows]) + "\n"


def _load(path: Path, fingerprint: str, device: torch.device) -> dict | None:
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


class _Signals:
    """Turns SIGTERM and SIGINT into a flag, so that a step ends and is saved before the process leaves."""

    def __enter__(self) -> Self:
        self.received = 0
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame) -> None:
        self.received = number

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def stop(self, world: int) -> bool:
        if world > 1:  # all leave at the same step, or the others wait in a collective for ever
            flag = torch.tensor(self.received)
            if dist.get_backend() == "nccl":
                flag = flag.cuda()
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.received = int(flag)
        return self.received > 0

    def leave(self) -> None:
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.received)
