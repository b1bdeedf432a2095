"""params.yaml as frozen, strict pydantic models, and the one line that a mistake in it gets.

Two maps: `datasets` (a source below `genai.data` and its numbers) and `experiments` (a data set, a
model and its numbers). What belongs to one source or one model is validated by the `Config` that
stands beside it, so that this file, which every stage depends on, knows none of them.
"""

import difflib
import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS = Path("params.yaml")


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, exit status 2, no traceback."""


class Strict(BaseModel):
    """The base of every configuration: immutable, typed without coercion, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Rate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Fit(Strict):
    """How a model with `fit` is trained: nothing but its seed and its share of the machine."""

    seed: Seed
    threads: Count = Field(description="CPU threads; results depend on it, so it is a parameter")


class GradientDescent(Fit):
    """How the training loop trains an `nn.Module`. Rates are peaks; every schedule counts steps."""

    steps: Count
    batch_size: Count
    learning_rate: Rate = Field(description="AdamW's")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    muon_learning_rate: Rate | None = Field(None, description="Muon's, for hidden matrices; null: AdamW trains them")
    embedding_learning_rate: Rate | None = Field(
        None, description="AdamW's for embeddings and the head; null: learning_rate"
    )
    warmup: Fraction = Field(0.05, description="share of the steps in which the rate rises linearly")
    decay: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of the steps, at the end, in which it falls linearly to zero"
    )
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient")
    ema: Fraction | None = Field(None, description="decay of the weights' moving average; null: none")
    bf16: bool = Field(False, description="autocast to bfloat16 where the device has it")
    validate_every: Count = 50


Training = Annotated[
    Annotated[Fit, Tag("fit")] | Annotated[GradientDescent, Tag("gradient_descent")],
    Discriminator(lambda v: "gradient_descent" if len(v if isinstance(v, dict) else v.model_fields_set) > 2 else "fit"),
]


class DatasetConfig(BaseModel):
    """A data set: where it comes from; the other keys belong to the source's own `Config`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    source: Name = Field(description="a file below genai/data")


class Experiment(Strict):
    """One model trained on one data set."""

    data: Name = Field(description="a key of datasets")
    model: str = Field(pattern=r"^[a-z_]+(\.[a-z0-9_]+)+\.[A-Z]\w*$", description="address of a class below genai")
    code: str = Field(description="the file of that class: DVC cannot read it out of the address")
    judge: Name = Field(description="the experiment whose model grades the samples; itself where the labels grade")
    config: dict[str, Any] = Field(description="the model's own Config")
    train: Training
    sample: dict[str, Any] | None = Field(None, description="how a generator samples: its own Sampling")


class Params(Strict):
    """params.yaml."""

    datasets: dict[Name, DatasetConfig]
    experiments: dict[Name, Experiment]


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


def validate(cls: Any, values: Any, where: str) -> Any:
    """Return `cls` made of `values`; raise UserError naming the key path, the value and what is right."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=True)
        first = _one_line(lines[0], cls, where)
        raise UserError(first + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")) from None


def _one_line(error: Any, cls: type[BaseModel], where: str) -> str:
    loc = [str(part) for part in error["loc"] if part not in ("fit", "gradient_descent")]
    path = ".".join([where, *loc]).strip(".")
    if error["type"] == "extra_forbidden":
        known = _fields_at(cls, error["loc"][:-1])
        close = difflib.get_close_matches(loc[-1], known, 1)
        return f"{path}: unknown key" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{path}: missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if error["type"].startswith("value_error"):
        return f"{path}: {message}" if path else message
    return f"{path}: {error['input']!r} {message}"


def _fields_at(cls: Any, loc: tuple) -> list[str]:
    if "gradient_descent" in loc:
        return list(GradientDescent.model_fields)
    if "fit" in loc:
        return list(GradientDescent.model_fields)
    for part in loc:
        if cls is Params:
            cls = Experiment if part == "experiments" else DatasetConfig
    return list(cls.model_fields)


def load(path: Path = PARAMS) -> Params:
    """Read and validate what every stage can know without importing a model. Raises UserError."""
    values = read(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: should be a map with the keys datasets and experiments")
    params = validate(Params, values, "")
    for name, experiment in params.experiments.items():
        at = f"experiments.{name}"
        if experiment.data not in params.datasets:
            raise UserError(
                f"{at}.data: {experiment.data!r} is not a key of datasets; known: {', '.join(params.datasets)}"
            )
        if experiment.judge not in params.experiments:
            raise UserError(
                f"{at}.judge: {experiment.judge!r} is not a key of experiments; {name!r} means the labels grade"
            )
        module = experiment.model.rpartition(".")[0]
        if experiment.code != (right := f"genai/{module.replace('.', '/')}.py"):
            raise UserError(f"{at}.code: {experiment.code!r} should be {right!r}, the file of {experiment.model}")
    return params


def pick(table: dict[str, Any], name: str, where: str) -> Any:
    """Return `table[name]`. Raises UserError that lists the names there are."""
    if name not in table:
        close = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(table)}"
        raise UserError(f"{name!r} is not in {where} of {PARAMS}; {hint}")
    return table[name]


def source(name: str, config: DatasetConfig) -> tuple[Any, Any]:
    """Return the module of a data set's source and its validated Config. Raises UserError."""
    at = f"datasets.{name}"
    try:
        module = importlib.import_module(f"genai.data.{config.source}")
    except ModuleNotFoundError as error:
        if error.name != f"genai.data.{config.source}":
            raise
        module = None
    if not hasattr(module, "prepare"):
        known = sorted(p.stem for p in Path(__file__).with_name("data").glob("*.py") if "def prepare(" in p.read_text())
        raise UserError(f"{at}.source: {config.source!r} should be one of {', '.join(known)}")
    return module, validate(module.Config, config.model_extra, at)


def model_class(name: str, experiment: Experiment) -> Any:
    """Import the class at `experiment.model` and check the numbers that belong to it. Raises UserError."""
    at = f"experiments.{name}"
    module_name, _, class_name = experiment.model.rpartition(".")
    try:
        module = importlib.import_module(f"genai.{module_name}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("genai."):
            raise
        raise UserError(f"{at}.model: {experiment.model!r}: there is no file {experiment.code}") from None
    cls = getattr(module, class_name, None)
    if cls is None or not hasattr(cls, "Config"):
        known = [
            n
            for n, c in vars(module).items()
            if getattr(c, "__module__", "") == module.__name__ and hasattr(c, "Config")
        ]
        raise UserError(f"{at}.model: {class_name!r} is not a model in {experiment.code}; known: {', '.join(known)}")
    validate(cls.Config, experiment.config, f"{at}.config")
    if hasattr(cls, "loss") and not isinstance(experiment.train, GradientDescent):
        raise UserError(f"{at}.train.steps: missing; {class_name} is trained by gradient descent")
    if hasattr(cls, "fit") and isinstance(experiment.train, GradientDescent):
        raise UserError(f"{at}.train.steps: unknown key; {class_name} is fitted, not trained in steps")
    if hasattr(cls, "Sampling"):
        validate(cls.Sampling, experiment.sample or {}, f"{at}.sample")
    elif experiment.sample is not None:
        raise UserError(f"{at}.sample: unknown key; {class_name} generates nothing")
    return cls


def check_takes(name: str, experiment: Experiment, cls: Any, kind: Literal["regression", "images", "text"]) -> None:
    """Raise UserError where the model cannot take a data set of this kind."""
    if kind not in cls.takes:
        raise UserError(
            f"experiments.{name}.data: {experiment.data!r} holds {kind}; {experiment.model} takes {' or '.join(sorted(cls.takes))}"
        )


def check(params: Params) -> None:
    """Validate all of it, models included, before anything runs. Raises UserError."""
    kinds = {name: source(name, config)[0].kind for name, config in params.datasets.items()}
    classes = {name: model_class(name, experiment) for name, experiment in params.experiments.items()}
    for name, experiment in params.experiments.items():
        check_takes(name, experiment, classes[name], kinds[experiment.data])
        judge = params.experiments[experiment.judge]
        if getattr(classes[name], "task", None) == "image_generation" and not hasattr(classes[experiment.judge], "features"):
            raise UserError(
                f"experiments.{name}.judge: {experiment.judge!r} should be a network that classifies images"
            )
        if judge.data != experiment.data:
            raise UserError(
                f"experiments.{name}.judge: {experiment.judge!r} is of {judge.data}, should be of {experiment.data}"
            )
