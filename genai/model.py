"""What a model is on disk: model.safetensors (weights), config.json (all it takes to build it), no pickle.

A model is a class below `genai`. A gradient model is an `nn.Module` with `loss(batch)`, and a language model has
`nats`; either has a `Config` beside it and is built by `Class(config, description)`. Any other is an estimator as
scikit-learn means it, built by its keywords: `fit(X, y)`, and what was learned stands in attributes that end in an
underscore. This file imports torch only for gradient models.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from genai.core.config import Experiment, UserError, code_hash, config_class, keywords, model_class, validate
from genai.core.dataset import Description, atomic, write_arrays, write_json

FORMAT = 2  # raise it when a file written before cannot be read any more
BATCH, WINDOWS = 256, 16  # examples, windows of text that a network is given at a time; no result depends on it


@dataclass(frozen=True)
class Loaded:
    """A trained model, in evaluation mode, and what is known of it."""

    model: Any
    name: str
    experiment: Experiment
    description: Description
    directory: Path

    def apply(self, method: str, x: np.ndarray) -> np.ndarray:
        """Return `model.method(x)` as an array, an estimator's of flat examples, a network's in batches, no gradients."""
        if not hasattr(self.model, "parameters"):
            return getattr(self.model, method)(x.reshape(len(x), -1))
        import torch

        with torch.no_grad():
            parts = [getattr(self.model, method)(torch.from_numpy(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
            return torch.cat(parts).numpy()

    def nats(self, windows: np.ndarray) -> np.ndarray:
        """Return -log p of each window (N, T) of tokens under a language model, (N,) float64."""
        if not hasattr(self.model, "parameters"):
            return self.model.nats(windows)
        import torch

        generator = torch.Generator().manual_seed(self.experiment.train.seed)
        parts = [torch.from_numpy(windows[i : i + WINDOWS]) for i in range(0, len(windows), WINDOWS)]
        with torch.no_grad():
            return torch.cat([self.model.nats(part, generator) for part in parts]).numpy()


def build(name: str, experiment: Experiment, description: Description) -> Any:
    """Return the untrained model of an experiment. Raises UserError."""
    at = f"experiments.{name}"
    cls = model_class(name, experiment)
    if description.kind not in cls.takes:
        takes = " or ".join(sorted(cls.takes))
        raise UserError(f"{at}.data: {experiment.data!r} holds {description.kind}; {experiment.model} takes {takes}")
    config = validate(config_class(cls), experiment.config, f"{at}.config")
    try:
        if hasattr(cls, "Config"):
            model = cls(config, description)
        else:
            seed = {"random_state": experiment.train.seed} if "random_state" in keywords(cls).model_fields else {}
            model = cls(**dict(config), **seed)
    except ValueError as error:  # a config that is sound by itself but not for this data
        raise UserError(f"{at}.config: {error}") from None
    if model.task != experiment.task:
        raise UserError(f"{at}.task: {experiment.task!r} should be {model.task!r}, what {experiment.model} does here")
    return model


def state(model: Any) -> dict[str, np.ndarray]:
    """Return what the model learned: its state_dict, or its attributes that end in an underscore."""
    if hasattr(model, "state_dict"):
        return {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    return {key: np.asarray(value) for key, value in vars(model).items() if key.endswith("_")}


def save(
    directory: Path,
    name: str,
    experiment: Experiment,
    description: Description,
    model: Any,
    environment: dict[str, Any],
    tokenizer: Path | None = None,
) -> None:
    """Write the model's folder; config.json comes last, so that a folder with one is whole.

    It holds a hash of the model's code: what uses the model then depends on that code by depending on this folder.
    """
    write_arrays(directory / "model.safetensors", state(model))
    if tokenizer is not None:
        with atomic(directory / "tokenizer.json") as temporary:
            temporary.write_bytes(tokenizer.read_bytes())
    config = {
        "format": FORMAT,
        "name": name,
        "experiment": experiment.model_dump(),
        "description": description.model_dump(),
        "code": code_hash(experiment.code),
        "environment": environment,
    }
    write_json(directory / "config.json", config)


def load(directory: Path, same_code: bool = True) -> Loaded:
    """Read a model's folder. With `same_code`, its code must be that which it was trained with.

    Raises UserError where a file is missing, damaged, of another format or not of this model.
    """
    directory = Path(directory)
    again = f"run: dvc repro train@{directory.name}"
    try:
        config = json.loads((directory / "config.json").read_text())
        found = config["format"]
    except FileNotFoundError:
        raise UserError(f"{directory}: no trained model here; {again}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{directory}/config.json: not a model's config; train it again") from None
    if found != FORMAT:
        raise UserError(f"{directory}/config.json: format {found!r}, this version reads {FORMAT}; train it again")
    name = config["name"]
    experiment = validate(Experiment, config["experiment"], f"{directory}/config.json: experiment")
    description = validate(Description, config["description"], f"{directory}/config.json: description")
    model = build(name, experiment, description)
    if same_code and config["code"] != code_hash(experiment.code):
        raise UserError(f"{directory}: {experiment.code} is not as it was in training; {again}")
    path = directory / "model.safetensors"
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); train it again") from None
    if hasattr(model, "load_state_dict"):
        import torch

        try:
            model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
        except RuntimeError as error:
            raise UserError(f"{path}: does not fit {experiment.model}: {str(error).splitlines()[-1].strip()}") from None
        model.eval()
    else:
        for key, array in arrays.items():
            setattr(model, key, array)
    return Loaded(model, name, experiment, description, directory)
