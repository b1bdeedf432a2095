"""Write params.schema.json, which editors read to complete and check params.yaml."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import genai
from genai.core.config import SECTIONS, Params, config_class
from genai.core.dataset import write_json


def main() -> None:
    write_json(Path("params.schema.json"), schema())


def schema() -> dict[str, Any]:
    """Return the schema, put together from the Configs that stand beside sources, models, methods and tasks."""
    modules = [importlib.import_module(i.name) for i in pkgutil.walk_packages(genai.__path__, "genai.") if not i.ispkg]
    loops = [m for m in modules if m.__name__.startswith("genai.training.") and m.__name__.endswith(".train")]
    methods = {m.__name__.split(".")[2]: m.Config.model_json_schema() for m in loops}
    models = [
        (m, c) for m in modules for c in vars(m).values() if getattr(c, "takes", None) and c.__module__ == m.__name__
    ]
    choices = {
        "datasets": [
            _section("datasets", m.Config, kind={"const": getattr(m, "kind", _name(m))}, source=_source(m))
            for m in modules
            if hasattr(m, "prepare") and m.__name__.startswith("genai.data.")
        ],
        "experiments": [_experiment(module, cls, methods) for module, cls in models],
        "generators": [_generator(cls) for _, cls in models if hasattr(cls, "generates")],
        "learning_curves": [_section("learning_curves", method={"enum": sorted(methods)})],
        "looks": [
            _section("looks", m.Config, code={"const": f"{m.__name__.replace('.', '/')}.py"})
            for m in modules
            if hasattr(m, "LOOKS_AT")
        ],
    }
    result: dict[str, Any] = Params.model_json_schema()
    result.pop("$defs")
    for table, sections in choices.items():
        (pattern,) = result["properties"][table]["patternProperties"]
        result["properties"][table]["patternProperties"][pattern] = {"anyOf": sections}
        result["properties"][table]["additionalProperties"] = False
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return result


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _source(module: ModuleType) -> dict[str, Any]:
    own = {"type": "string", "not": {"pattern": "^genai/"}, "description": "the path of your own data"}
    return {"const": f"genai/data/{_name(module)}.py"} if hasattr(module, "kind") else own


def _section(table: str, own: Any = None, **properties: Any) -> dict[str, Any]:
    section: dict[str, Any] = SECTIONS[table].model_json_schema()
    section.pop("$defs", None)
    config = own.model_json_schema() if own else {}
    section["properties"] = section["properties"] | config.get("properties", {}) | properties
    section["required"] = [*section["required"], *config.get("required", [])]
    section["additionalProperties"] = False
    return section


def _experiment(module: ModuleType, cls: Any, methods: dict[str, Any]) -> dict[str, Any]:
    path = module.__name__.replace(".", "/")
    file, folder = f"{path}.py", path.rpartition("/")[0]
    address = {"code": {"enum": [file, folder]}, "model": {"enum": [cls.__name__, f"{_name(module)}.{cls.__name__}"]}}
    task = {"task": {"const": cls.task}} if hasattr(cls, "task") else {}
    train = methods["gradient_descent" if hasattr(cls, "loss") else "fit"]
    section = _section(
        "experiments", None, config=config_class(cls).model_json_schema(), train=train, **address, **task
    )
    return section | {"title": f"{path}.{cls.__name__}"}


def _generator(cls: Any) -> dict[str, Any]:
    task = importlib.import_module(f"genai.tasks.{cls.generates}")
    own = {
        key: c.model_json_schema()
        for key, c in (("sampling", cls.Sampling), ("show", task.Show), ("grade", task.Grade))
    }
    return _section("generators", None, task={"const": cls.generates}, **own) | {"title": cls.__name__}
