"""What a training ran in: the last bits of a result depend on it, so it is recorded with the model."""

import platform
from typing import Any

import numpy as np

from genai import __version__


def environment(config: Any) -> dict[str, Any]:
    """Return versions, device and threads of a training with this configuration (a method's `Config`).

    device: the processor's vector instructions, which choose the numerical kernels, or the accelerator's name.
    bf16: whether bfloat16 is used, not only asked for; so compiled, where it was. processes: how many torchrun started.
    """
    found = {"genai": __version__, "python": platform.python_version(), "numpy": np.__version__}
    if config.method == "gradient_descent":
        return found | _torch(config) | {"threads": config.threads}
    vectors = np.show_config(mode="dicts")["SIMD Extensions"]
    best = [*vectors.get("baseline", []), *vectors.get("found", [])][-1:]
    return found | {"device": " ".join(["cpu", *best]), "threads": config.threads}


def _torch(config: Any) -> dict[str, Any]:
    import torch  # not for models that are fitted: it takes seconds

    from genai.training.gradient_descent import devices

    device = devices.device()
    name = {
        "cuda": lambda: torch.cuda.get_device_name(device),
        "mps": lambda: "mps",
        "cpu": lambda: f"cpu {torch.backends.cpu.get_cpu_capability()}",
    }[device.type]()
    return {
        "torch": torch.__version__,
        "device": name,
        "bf16": config.bf16 and devices.has_bf16(device),
        "processes": devices.world_size(),
        **({"compiled": devices.has_compiler(device)} if config.compile else {}),
    }
