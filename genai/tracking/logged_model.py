"""The model as MLflow keeps it: the folder of its files with the code that trained it, a signature and an example.

What `mlflow.pyfunc.log_model` does, less its trial of the example, which would import torch and run the model for
every one of them. A flavour of MLflow's own (`mlflow.pytorch`, `mlflow.sklearn`) pickles.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from genai.core.config import Experiment, UserError, load_file, model_class, validate
from genai.core.dataset import Dataset, write_json
from genai.tracking.finished import Finished
from genai.tracking.store import Store


def sampling(e: Finished) -> dict[str, Any]:
    """Return the numbers by which a generator was graded, defaults included; empty for other models."""
    if not e.generator:
        return {}
    experiment = validate(Experiment, e.config["experiment"], f"models/{e.name}/config.json")
    cls = model_class(e.name, experiment)
    return cls.Sampling(**e.generator["sampling"]).model_dump(exclude_none=True)


def log_model(store: Store, e: Finished, run_id: str, params: dict[str, str]) -> str:
    """Log the model of a run, and return its id."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    import genai

    signature, example = _signature(e)
    tags = {"task": e.task, "data_hash": e.data[1], "genai.model": e.model_hash}
    logged = store.client.create_logged_model(store.experiment_id, e.name, run_id, tags, params, model_type=e.task)
    with tempfile.TemporaryDirectory() as temporary:
        files, folder = Path(temporary) / "data" / e.name, Path(temporary) / "model"
        shutil.copytree(e.root / "models" / e.name, files)
        if e.generator:
            write_json(files / "generator.json", {"task": e.task, "sampling": sampling(e)})
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module="genai.tracking.pyfunc",
            data_path=str(files),
            code_paths=[str(Path(genai.__file__).parent)],
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
            signature=signature,
            input_example=example,
            pip_requirements=_requirements(e),
        )
        store.client.log_model_artifacts(logged.model_id, str(folder))
    store.client.finalize_logged_model(logged.model_id, "READY")
    store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    store.client.set_tag(run_id, "genai.model_id", logged.model_id)
    return logged.model_id


def _signature(e: Finished) -> tuple[Any, Any]:
    """Return what the task says of a served model in MLflow's types, and an example of a request."""
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    numbers = sampling(e)
    plain = load_file("tasks", e.task, e.name).signature(e.config["description"], numbers)

    def schema(kind: str, *about: Any) -> Schema:
        if kind == "tensor":
            return Schema([TensorSpec(np.dtype(about[0]), about[1])])
        return Schema([ColSpec(of, column) for column, of in about[0].items()])

    types = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}
    specs = [ParamSpec(key, types[type(value)], value) for key, value in numbers.items() if type(value) in types]
    signature = ModelSignature(schema(*plain["inputs"]), schema(*plain["outputs"]), ParamSchema(specs))
    example = plain["example"]
    return signature, _example(e) if example is None else pd.DataFrame(example)


def _example(e: Finished) -> Any:
    """Return one example of the validation split, or zeros where the data are not on this machine."""
    import numpy as np

    with contextlib.suppress(UserError):
        return Dataset(e.root / "data" / e.data[0]).arrays("validation")["x"][:1]
    return np.zeros((1, *e.config["description"]["shape"]), np.float32)


def _requirements(e: Finished) -> list[str]:
    from importlib.metadata import version

    names = ["mlflow", "numpy", "pydantic", "ruamel.yaml", "safetensors"]
    names += ["torch"] if "torch" in e.config["environment"] else []
    names += ["tokenizers"] if e.config["description"]["kind"] == "text" else []
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]
