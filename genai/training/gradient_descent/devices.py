"""Where a training runs: the device, the processes of torchrun that share it, the signals that end it."""

import atexit
import importlib.util
import os
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn


def device() -> torch.device:
    """Return the best device there is; under torchrun, this process's own."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    alone = "WORLD_SIZE" not in os.environ  # Apple's devices do not work together
    return torch.device("mps" if alone and torch.backends.mps.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Say whether the device computes faster in bfloat16 than in float32.

    Of the processors that know it by AVX-512 alone, AMD's multiply twice as fast in it and Intel's half as fast; with
    AMX Intel's are the faster ones, too. Not measured here: the answer is to be the same at each start.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    amd = has.get("avx512_bf16", False) and has["cpu_name"].startswith("AMD")
    return amd or has.get("amx_bf16", False)


def has_compiler(device: torch.device) -> bool:
    """Say whether there is what torch.compile needs: Triton, or for a processor a C++ compiler and Python's headers."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return device.type == "cpu" and headers and shutil.which(os.environ.get("CXX", "g++")) is not None


def compiled(loss: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the same loss of the same random draws, its kernels fused; they are made at the first call.

    A number of hidden tokens is a symbol from the start, so that the kernels, and with them the last bits, are the same
    wherever a training is taken up. They lie in a folder of this process: torch keeps pickles beside them, and would read
    those of an earlier one.
    """
    import torch._inductor.config

    folder = tempfile.mkdtemp(prefix="genai-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    torch._inductor.config.compile_threads = 1
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    return torch.compile(loss, options={"fallback_random": True})


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> tuple[int, int]:
    """Return this process's rank and the number of processes; under torchrun, join them first."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


class Loss(nn.Module):
    """A model whose forward is its loss: DistributedDataParallel averages only the gradients of a forward."""

    def __init__(self, model: nn.Module, loss: Callable[[dict[str, Tensor]], Tensor]):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.loss(batch)


class Signals:
    """Turns SIGTERM and SIGINT into a flag, so that a step ends and is saved before the process leaves."""

    def __enter__(self) -> Self:
        self.received = self.agreed = 0
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame) -> None:
        self.received = number

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def stop(self, world: int) -> bool:
        """Say whether a signal has come, to any of the processes; all get the same answer."""
        self.agreed = self.received
        if world > 1:  # all leave at the same step, or the others wait in a collective for ever
            flag = torch.tensor(self.received)
            if dist.get_backend() == "nccl":
                flag = flag.cuda()
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.agreed = int(flag)  # not `received`: a signal that came meanwhile is for the next step
        return self.agreed > 0

    def leave(self) -> None:
        """Raise KeyboardInterrupt after SIGINT, else SystemExit with the status that a shell gives the signal."""
        if self.agreed == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.agreed)
