"""params.yaml as frozen, strict pydantic models, and the one line that a mistake in it gets.

Maps: `datasets` (a source and its numbers), `experiments` (a data set, a task, a model and its
numbers), `generators` (how an experiment's model samples and what grades the samples), `learning_curves` (on how many
examples an experiment's model is trained again) and `looks` (what draws an experiment's model).
What belongs to one source, model, task or method of training is validated by the `Config` that stands
beside it, so that this file, which every stage depends on, knows none of them.
"""

import difflib
import functools
import hashlib
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS = Path("params.yaml")
ROOT = Path(__file__).resolve().parents[2]  # of the code


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, exit status 2, no traceback."""


class Strict(BaseModel):
    """The base of every configuration: immutable, typed without coercion, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Open(BaseModel):
    """The base of a section whose other keys belong to the `Config` of the file that it names."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


Rate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=0.5)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class DatasetConfig(Open):
    """A data set: where it comes from; the other keys belong to the `Config` of the source, or of the kind."""

    kind: Literal["table", "images", "text"]
    source: Annotated[str, Field(min_length=1)] = Field(
        description="a file below genai/data that knows the data, or the path of your own: what DVC watches"
    )


class Training(Open):
    """How a model is trained; the other keys belong to the method's own `Config`."""

    method: Name = Field(description="a folder below genai/training")
    seed: Seed
    threads: Count = Field(description="CPU threads; results depend on it, so it is a parameter")


class Experiment(Strict):
    """One model trained on one data set and measured at one task."""

    data: Name = Field(description="a key of datasets")
    task: Name = Field(description="a file below genai/tasks")
    code: Annotated[str, Field(pattern=r"^genai(/[a-z][a-z0-9_]*)+(\.py)?$")] = Field(
        description="the file of the model, or its folder: what DVC watches"
    )
    model: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*\.)*[A-Z]\w*$")] = Field(
        description="the class in that file; in a folder with its file before it: masked.MaskedDiffusion"
    )
    config: dict[str, Any] = Field(description="the model's own Config")
    train: Training


class Generator(Strict):
    """How the model of an experiment samples, what is shown of it and what grades it."""

    task: Name = Field(description="a file below genai/tasks")
    judge: Name = Field(description="the experiment whose model grades the samples")
    real: Name = Field(description="the data set that the samples are held against")
    sampling: dict[str, Any] = Field(description="the model's own Sampling")
    show: dict[str, Any] = Field(description="what is drawn for people: the task's own Show")
    grade: dict[str, Any] = Field(description="what is drawn to be graded: the task's own Grade")


class LearningCurve(Strict):
    """How an experiment's model is trained again, on ever more examples."""

    data: Name = Field(description="the experiment's")
    task: Name = Field(description="the experiment's")
    method: Name = Field(description="the experiment's train.method")
    examples: Annotated[list[Count], Field(min_length=1)] = Field(
        description="of the training split, of each class its share"
    )
    seeds: Count = Field(description="draws of these examples, each with a training of its own")


class Look(Open):
    """What draws the model of an experiment; the other keys belong to the `Config` of that file."""

    code: Annotated[str, Field(pattern=r"^genai(/[a-z][a-z0-9_]*)+\.py$")] = Field(
        description="the file with `Config` and `draw`"
    )
    data: Name = Field(description="the experiment's")


class Params(Strict):
    """params.yaml."""

    datasets: dict[Name, DatasetConfig]
    experiments: dict[Name, Experiment]
    generators: dict[Name, Generator]
    learning_curves: dict[Name, LearningCurve] = Field(default_factory=dict)
    looks: dict[Name, Look] = Field(default_factory=dict)


SECTIONS: dict[str, type[BaseModel]] = {
    "datasets": DatasetConfig,
    "experiments": Experiment,
    "generators": Generator,
    "learning_curves": LearningCurve,
    "looks": Look,
}
Model = TypeVar("Model", bound=BaseModel)


def read(path: Path) -> Any:
    """Parse a YAML 1.2 file, as DVC does (so that `1e-3` is a number). Raises UserError."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this in the project's root") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not YAML: {problem}") from None


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the three maps of params.yaml, not yet validated. Raises UserError."""
    values = read(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: should be a map with the keys {', '.join(SECTIONS)}")
    return values


def validate(cls: type[Model], values: Any, where: str) -> Model:
    """Return `cls` made of `values`; raise UserError naming the key path, the value and what is right."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=True)
        first = _one_line(lines[0], cls, where)
        raise UserError(first + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")) from None


def _one_line(error: Any, cls: type[BaseModel], where: str) -> str:
    loc = [str(part) for part in error["loc"] if "-" not in str(part)]  # of a union, "constrained-int" stands for one
    path = ".".join([where, *loc]).strip(".")
    if error["type"] == "extra_forbidden":
        known = list(_model_at(cls, loc[:-1]).model_fields)
        close = difflib.get_close_matches(loc[-1], known, 1)
        return f"{path}: unknown key" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] in ("model_type", "dict_type"):
        return f"{path}: {error['input']!r} should be a map of keys and values"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if error["type"].startswith("value_error"):
        return f"{path}: {message}" if path else message
    return f"{path}: {error['input']!r} {message}"


def _model_at(cls: type[BaseModel], loc: list[str]) -> type[BaseModel]:
    return SECTIONS.get(loc[0], cls) if loc and cls is Params else cls


def load(path: Path = PARAMS) -> Params:
    """Read and validate what can be known without importing a source, a model or a task. Raises UserError."""
    params = validate(Params, read_params(path), "")
    for name, experiment in params.experiments.items():
        _known(experiment.data, params.datasets, f"experiments.{name}.data", "datasets")
    for name, generator in params.generators.items():
        _known(name, params.experiments, f"generators.{name}", "experiments")
        _known(generator.judge, params.experiments, f"generators.{name}.judge", "experiments")
        _known(generator.real, params.datasets, f"generators.{name}.real", "datasets")
    for name, curve in params.learning_curves.items():
        _known(name, params.experiments, f"learning_curves.{name}", "experiments")
        experiment = params.experiments[name]
        of = {"data": experiment.data, "task": experiment.task, "method": experiment.train.method}
        for key, value in of.items():
            if (found := getattr(curve, key)) != value:
                raise UserError(f"learning_curves.{name}.{key}: {found!r} should be {value!r}, the experiment's")
    for name in params.looks:
        _known(name, params.experiments, f"looks.{name}", "experiments")
    return params


def _known(name: str, table: dict[str, Any], where: str, of: str) -> None:
    if name not in table:
        raise UserError(f"{where}: {name!r} is not a key of {of}; known: {', '.join(table)}")


def pick(table: dict[str, Any], name: str, where: str) -> Any:
    """Return `table[name]`. Raises UserError that lists the names there are."""
    if name not in table:
        close = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(table)}"
        raise UserError(f"{name!r} is not in {where}; {hint}")
    return table[name]


def load_file(folder: str, name: str, where: str) -> ModuleType:
    """Import genai/FOLDER/NAME.py, a source or a task. Raises UserError."""
    path = ROOT / "genai" / folder / f"{name}.py"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("[a-z]*.py"))
        raise UserError(f"{where}: {name!r} should be a file of genai/{folder}: {', '.join(known)}")
    return importlib.import_module(f"genai.{folder}.{name}")


def load_source(dataset: DatasetConfig, at: str) -> tuple[ModuleType, Path | None]:
    """Return the module that prepares a data set, and the path of the user's own data where it is of such.

    A source of the package is named by its file, genai/data/SOURCE.py; any other path is read by the file of its kind.
    Raises UserError.
    """
    path = Path(dataset.source)
    if path.is_relative_to("genai"):
        module = load_file("data", path.stem if path == Path("genai/data", path.name) else str(path), f"{at}.source")
        kind = getattr(module, "kind", None)
        if kind != dataset.kind:
            right = f"{kind!r}, what {path} holds" if kind else "of a source"
            raise UserError(f"{at}.kind: {dataset.kind!r} should be {right}")
        return module, None
    if not path.exists() and not path.with_name(f"{path.name}.dvc").exists():
        close = difflib.get_close_matches(path.stem, [p.stem for p in (ROOT / "genai/data").glob("[a-z]*.py")], 1)
        hint = (
            f"did you mean genai/data/{close[0]}.py?" if close else "should be of yours, or like genai/data/digits.py"
        )
        raise UserError(f"{at}.source: {dataset.source!r}: no such file or folder; {hint}")
    return load_file("data", dataset.kind, f"{at}.kind"), path


def load_method(name: str, where: str) -> ModuleType:
    """Import genai/training/NAME/train.py, a method of training with `Config` and `train`. Raises UserError."""
    path = ROOT / "genai" / "training" / name / "train.py"
    if not path.is_file():
        known = sorted(p.parent.name for p in path.parents[1].glob("*/train.py"))
        raise UserError(f"{where}: {name!r} should be one of {', '.join(known)}")
    return importlib.import_module(f"genai.training.{name}.train")


def load_look(code: str, where: str) -> ModuleType:
    """Import a file with `Config` and `draw`. Raises UserError."""
    path = ROOT / code
    if not path.is_file():
        raise UserError(f"{where}: {code!r}: there is no such file")
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if not hasattr(module, "LOOKS_AT"):
        raise UserError(f"{where}: {code!r} should be a file with LOOKS_AT, Config and draw")
    return module


def model_class(name: str, experiment: Experiment) -> Any:
    """Import the class of an experiment's model and check the numbers that belong to it. Raises UserError."""
    at = f"experiments.{name}"
    inner, _, class_name = experiment.model.rpartition(".")
    path = ROOT / experiment.code / (f"{inner.replace('.', '/')}.py" if inner else "")
    if path.is_dir():
        files = " or ".join(f"{p.stem}.{class_name}" for p in sorted(path.glob("[a-z]*.py")))
        raise UserError(f"{at}.model: {class_name!r}: in the folder {experiment.code} it should be like {files}")
    if not path.is_file():
        wrong = "model" if (ROOT / experiment.code).exists() else "code"
        raise UserError(f"{at}.{wrong}: {getattr(experiment, wrong)!r}: there is no file {path.relative_to(ROOT)}")
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    cls = getattr(module, class_name, None)
    if not hasattr(cls, "takes"):
        classes = {n: c for n, c in vars(module).items() if getattr(c, "__module__", "") == module.__name__}
        known = ", ".join(n for n, c in classes.items() if hasattr(c, "takes"))
        raise UserError(f"{at}.model: {class_name!r} is not a model in {path.relative_to(ROOT)}; known: {known}")
    validate(config_class(cls), experiment.config, f"{at}.config")
    return cls


@functools.cache
def keywords(cls: Any) -> type[Strict]:
    """Return the Config that the signature of an estimator is: a field for each keyword, checked as it is annotated."""
    parameters = [*inspect.signature(cls, eval_str=True).parameters.values()]
    fields: Any = {p.name: (p.annotation, ... if p.default is p.empty else p.default) for p in parameters}
    return create_model(f"{cls.__name__}Config", __base__=Strict, **fields)


def config_class(cls: Any) -> type[Strict]:
    """Return what an experiment's `config` may hold: the model's own Config, or an estimator's keywords.

    An estimator's random_state is not among them: it is the experiment's seed.
    """
    if hasattr(cls, "Config"):
        return cls.Config
    fields: Any = {name: (f.annotation, f) for name, f in keywords(cls).model_fields.items() if name != "random_state"}
    return create_model(f"{cls.__name__}Config", __base__=Strict, **fields)


def check_keywords(estimator: Any) -> None:
    """Hold an estimator's keywords to the annotations in its signature, as `fit` does first. Raises ValueError."""
    values = {
        name: value.item() if getattr(value, "shape", None) == () else value  # np.int64(3), as a grid search gives
        for name, value in estimator.get_params(deep=False).items()
    }
    cls: Any = type(estimator)
    try:
        validate(keywords(cls), values, cls.__name__)
    except UserError as error:
        raise ValueError(str(error)) from None


def code_hash(code: str) -> str:
    """Return the hash of an experiment's `code`: of the Python files in a folder, or of the one file."""
    path = ROOT / code
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    digest = hashlib.md5(usedforsecurity=False)
    for file in files:
        digest.update(f"{file.relative_to(ROOT).as_posix()} {hashlib.md5(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
