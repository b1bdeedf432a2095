"""A trained model behind HTTP: what MLflow loads from a registered model's folder and asks for predictions.

`mlflow models serve -m models:/NAME@champion --env-manager local` imports this file from the copy of
this package that lies beside the weights.
"""

import json
from pathlib import Path
from typing import Any

from genai.core.config import UserError, load_file

# Bounds of one request, so that none takes a server's memory or its day: of its rows here, of its numbers in the
# Sampling of the model, by which the task's `answer` validates them.
MAX_ROWS = {"prompt": 64, "text": 1024, "label": 256}  # of a data frame with that column
MAX_EXAMPLES = 10_000  # of an array or a table


def _load_pyfunc(path: str) -> "Served":  # the name that MLflow looks for
    return Served(Path(path))


class Served:
    """The model of a folder, and its task's way to answer."""

    def __init__(self, directory: Path):
        from genai import model

        self.directory = directory
        self.loaded = model.load(directory)
        generator = directory / "generator.json"
        self.generator = json.loads(generator.read_text()) if generator.exists() else {}
        task = self.generator.get("task") or self.loaded.experiment.task
        self.task = load_file("tasks", task, str(directory))

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Return what the signature promises; `params` change the numbers by which a generator samples.

        Raises MlflowException, in HTTP status 400, where a value cannot be used.
        """
        from mlflow.exceptions import MlflowException

        try:
            _check(data, bool(self.loaded.description.columns))
            sampling = self.generator.get("sampling", {}) | (params or {})
            return self.task.answer(self.loaded, self.directory, data, sampling)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _check(data: Any, table: bool) -> None:
    """Raise UserError where a request has too many rows."""
    column = "inputs" if table else next(iter(getattr(data, "columns", [])), "inputs")
    limit = MAX_ROWS.get(column, MAX_EXAMPLES)
    if len(data) > limit:
        raise UserError(f"{column}: {len(data)} rows in one request, should be at most {limit}")
