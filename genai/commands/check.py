"""Validate params.yaml, the sections of sources, models, methods and tasks included."""

from typing import Any

from genai.core.config import (
    Params,
    UserError,
    load,
    load_file,
    load_look,
    load_method,
    load_source,
    model_class,
    validate,
)


def main() -> None:
    check(load())


def check(params: Params) -> None:
    """Validate all of it before anything runs. Raises UserError."""
    for name, dataset in params.datasets.items():
        source, _ = load_source(dataset, f"datasets.{name}")
        validate(source.Config, dataset.model_extra, f"datasets.{name}")
    classes = {name: model_class(name, experiment) for name, experiment in params.experiments.items()}
    for name, experiment in params.experiments.items():
        at, cls = f"experiments.{name}", classes[name]
        load_file("tasks", experiment.task, f"{at}.task")
        method = load_method(experiment.train.method, f"{at}.train.method")
        if (right := "gradient_descent" if hasattr(cls, "loss") else "fit") != experiment.train.method:
            raise UserError(
                f"{at}.train.method: {experiment.train.method!r} should be {right!r}, as {experiment.model} is"
            )
        validate(method.Config, experiment.train.model_dump(), f"{at}.train")
        if experiment.task != getattr(cls, "task", experiment.task):
            raise UserError(f"{at}.task: {experiment.task!r} should be {cls.task!r}, what {experiment.model} does")
        if (kind := params.datasets[experiment.data].kind) not in cls.takes:
            takes = " or ".join(sorted(cls.takes))
            raise UserError(f"{at}.data: {experiment.data!r} holds {kind}; {experiment.model} takes {takes}")
    for name in params.generators:
        _generator(name, params, classes)
    for name, look in params.looks.items():
        code, cls = load_look(look.code, f"looks.{name}.code"), classes[name]
        if not issubclass(cls, code.LOOKS_AT):
            right = code.LOOKS_AT.__name__
            raise UserError(f"looks.{name}.code: {look.code!r} draws a {right}; {name!r} is a {cls.__name__}")
        if look.data != (data := params.experiments[name].data):
            raise UserError(f"looks.{name}.data: {look.data!r} should be {data!r}, the experiment's")
        validate(code.Config, look.model_extra, f"looks.{name}")


def _generator(name: str, params: Params, classes: dict[str, Any]) -> None:
    generator, at = params.generators[name], f"generators.{name}"
    cls, judge = classes[name], classes[generator.judge]
    if not hasattr(cls, "generates"):
        raise UserError(f"{at}: {params.experiments[name].model} generates nothing")
    if generator.task != cls.generates:
        raise UserError(f"{at}.task: {generator.task!r} should be {cls.generates!r}, what {cls.__name__} does")
    task = load_file("tasks", generator.task, f"{at}.task")
    if missing := [method for method in task.JUDGE_NEEDS if not hasattr(judge, method)]:
        raise UserError(f"{at}.judge: {generator.judge!r} has no {missing[0]}, which a judge of this task needs")
    kinds = {params.datasets[e].kind for e in (params.experiments[name].data, generator.real)}
    kinds.add(params.datasets[params.experiments[generator.judge].data].kind)
    if len(kinds) > 1:
        raise UserError(
            f"{at}.real: {generator.real!r}, judge and model should be of one kind, not {', '.join(sorted(kinds))}"
        )
    sampling = validate(cls.Sampling, generator.sampling, f"{at}.sampling")
    show = validate(task.Show, generator.show, f"{at}.show")
    for i, change in enumerate(getattr(show, "replay", [])):
        task.changed(sampling, change, f"{at}.show.replay.{i}")
    validate(task.Grade, generator.grade, f"{at}.grade")
