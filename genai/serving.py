"""A trained model behind HTTP: what MLflow loads from a registered model's folder and asks for predictions.

`mlflow models serve -m models:/NAME@champion --env-manager local` imports this file from the copy of
this package that lies beside the weights.
"""

from pathlib import Path
from typing import Any

from genai.core.config import UserError


def _load_pyfunc(path: str) -> "Served":  # the name that MLflow looks for
    return Served(Path(path))


class Served:
    """The model of a folder, and the task's way to ask it."""

    def __init__(self, directory: Path):
        from genai import model as models
        from genai.core.dataset import load_tokenizer

        self.loaded = models.load(directory)
        if self.loaded.description.kind == "text":
            self.tokenizer = load_tokenizer(directory)

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Return what the signature promises; `params` change the experiment's Sampling.

        data: text: a data frame with the column `prompt`; image generators: with the column `label`, a
        class; others: an array of examples (N, ...). Raises MlflowException, in HTTP status 400, where a
        value cannot be used.
        """
        from mlflow.exceptions import MlflowException

        try:
            return getattr(self, self.loaded.model.task)(data, params or {})
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error).removeprefix("--")) from None

    def regression(self, x: Any, params: dict[str, Any]) -> Any:
        return self._table({"prediction": self._apply("predict", x)})

    def clustering(self, x: Any, params: dict[str, Any]) -> Any:
        return self._table({"cluster": self._apply("predict", x)})

    def classification(self, x: Any, params: dict[str, Any]) -> Any:
        probabilities = self._apply("predict_proba", x)  # (N, K)
        return self._table(dict(zip(self.loaded.description.classes, probabilities.T, strict=True)))

    def language(self, data: Any, params: dict[str, Any]) -> Any:
        if not hasattr(self.loaded.model, "Sampling"):  # a model that only judges text
            import numpy as np

            tokens = [np.array([self.tokenizer.encode(text).ids]) for text in data["text"]]
            return self._table({"nats": [float(self.loaded.model.nats(row)[0]) for row in tokens]})
        from genai import sample

        if wrong := [prompt for prompt in data["prompt"] if not isinstance(prompt, str)]:
            raise UserError(f"prompt: {wrong[0]!r} should be a string")
        settings = sample.settings(self.loaded, None, params)
        texts = [sample.complete(self.loaded, self.tokenizer, prompt, settings) for prompt in data["prompt"]]
        return self._table({"text": texts})

    def image_generation(self, data: Any, params: dict[str, Any]) -> Any:
        import numpy as np

        from genai import sample

        classes = self.loaded.description.classes
        if unknown := [label for label in data["label"] if label not in classes]:
            raise UserError(f"label: {unknown[0]!r} should be one of {', '.join(classes)}")
        labels = np.array([classes.index(label) for label in data["label"]])
        return sample.images(self.loaded, labels, sample.settings(self.loaded, None, params))

    def _apply(self, method: str, x: Any) -> Any:
        from genai.evaluate import apply

        return apply(self.loaded.model, method, x)

    def _table(self, columns: dict[str, Any]) -> Any:
        import pandas

        return pandas.DataFrame(columns)
