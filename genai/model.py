"""What a model is on disk: model.safetensors (weights), config.json (all it takes to build it), no pickle.

A model is a class below `genai` with a `Config` beside it, built by `Class(config, description)`.
Gradient models are `nn.Module`s with `loss(batch)`. Fitted ones follow scikit-learn: `fit`, and what
was learned stands in attributes that end in an underscore. This file imports torch only for the former.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from genai.core.config import Experiment, UserError, model_class, validate
from genai.core.dataset import Description, atomic, write_arrays, write_json

FORMAT = 1  # raise it when a file written before cannot be read any more


def build(name: str, experiment: Experiment, description: Description) -> Any:
    """Return the untrained model of an experiment. Raises UserError."""
    from genai.core.config import check_takes

    cls = model_class(name, experiment)
    check_takes(name, experiment, cls, description.kind)
    config = validate(cls.Config, experiment.config, f"experiments.{name}.config")
    try:
        return cls(config, description)
    except ValueError as error:  # a config that is sound by itself but not for this data
        raise UserError(f"experiments.{name}.config: {error}") from None


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
    tokenizer: Path | None = None,
) -> None:
    """Write the model's folder; config.json comes last, so that a folder with one is whole."""
    directory = Path(directory)
    write_arrays(directory / "model.safetensors", state(model))
    if tokenizer is not None:
        with atomic(directory / "tokenizer.json") as temporary:
            temporary.write_bytes(tokenizer.read_bytes())
    write_json(
        directory / "config.json",
        {
            "format": FORMAT,
            "name": name,
            "task": model.task,
            "experiment": experiment.model_dump(exclude_none=True),
            "description": description.model_dump(),
        },
    )


def load(directory: Path) -> SimpleNamespace:
    """Read a model's folder: `.model` (trained, in evaluation mode), `.name`, `.experiment`, `.description`.

    Raises UserError where a file is missing, damaged, of another format or not of this model.
    """
    directory = Path(directory)
    try:
        config = json.loads((directory / "config.json").read_text())
        found = config["format"]
    except FileNotFoundError:
        raise UserError(f"{directory}: no trained model here; run: dvc repro train@{directory.name}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{directory}/config.json: not a model's config; train it again") from None
    if found != FORMAT:
        raise UserError(f"{directory}/config.json: format {found!r}, this version reads {FORMAT}; train it again")
    name = config["name"]
    experiment = validate(Experiment, config["experiment"], f"{directory}/config.json: experiment")
    description = validate(Description, config["description"], f"{directory}/config.json: description")
    model = build(name, experiment, description)
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
    return SimpleNamespace(model=model, name=name, experiment=experiment, description=description)
