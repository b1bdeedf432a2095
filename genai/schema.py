"""The JSON Schema of params.yaml, put together from the Configs that stand beside sources and models."""

import importlib
import pkgutil
from typing import Any

import genai
from genai.core.config import Params


def schema() -> dict[str, Any]:
    """Return the schema: a data set is one of the sources, an experiment one of the models."""
    sources, models = [], []
    for info in pkgutil.walk_packages(genai.__path__, "genai."):
        parts = info.name.split(".")
        if info.ispkg or len(parts) < 3:
            continue
        module = importlib.import_module(info.name)
        if hasattr(module, "prepare"):
            own = module.Config.model_json_schema()
            own["properties"] = {"source": {"const": parts[-1]}} | own.get("properties", {})
            own["required"] = ["source", *own.get("required", [])]
            sources.append(own)
        for name, cls in vars(module).items():
            if getattr(cls, "__module__", None) == info.name and hasattr(cls, "Config") and hasattr(cls, "takes"):
                models.append((".".join([*parts[1:], name]), cls))
    result = Params.model_json_schema()
    experiment = result["$defs"].pop("Experiment")
    result["$defs"].pop("DatasetConfig")
    kinds = {"datasets": sources, "experiments": [_experiment(experiment, address, cls) for address, cls in models]}
    for table, choices in kinds.items():
        (pattern,) = result["properties"][table]["patternProperties"]
        result["properties"][table]["patternProperties"][pattern] = {"oneOf": choices}
        result["properties"][table]["additionalProperties"] = False
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return result


def _experiment(experiment: dict[str, Any], address: str, cls: Any) -> dict[str, Any]:
    own = dict(experiment["properties"])
    own["model"] = {"const": address}
    own["code"] = {"const": f"genai/{address.rpartition('.')[0].replace('.', '/')}.py"}
    own["config"] = cls.Config.model_json_schema()
    own["train"] = {"$ref": "#/$defs/" + ("GradientDescent" if hasattr(cls, "loss") else "Fit")}
    own.pop("sample")
    if hasattr(cls, "Sampling"):
        own["sample"] = cls.Sampling.model_json_schema()
    return {**experiment, "title": address, "properties": own}
