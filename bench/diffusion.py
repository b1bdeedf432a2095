"""The tables of genai/diffusion/README.md: python -m bench.diffusion text|images|classifiers|kernels|samples [--seconds N] [--seeds N] [--split SPLIT].

text: the recipe of text_diffusion, what it would be without its parts, block diffusion by blocks of 1 to 16 tokens and the
autoregressive control, each trained for as many steps as take N CPU-seconds on this machine: the bound and the exact
likelihood from left to right, bits per character of the same held-out windows. Kernels are not fused. It wants data/.

images: every recipe of params.yaml whose task is image_diffusion, over the same network, each trained for as many steps as
take N CPU-seconds on this machine, graded as `genai grade` does, and sampled in few and in many evaluations of the network.
It wants data/ and the judge's models/, which `dvc repro` makes.

classifiers: the same recipes and seconds; what a classifier learns from the samples of each of several ways of sampling, two
draws of each, which is how the samplers of params.yaml were chosen: on validation.

kernels: what a step of training takes with fused kernels and without them, on one thread and on two, and what it takes to make
the kernels. It wants data/, a C++ compiler and an idle machine.

samples: what every generator of text writes, twenty texts of 60 words, for a reader to judge, as params.yaml has it; and its
judge, n-grams at temperature 1. It wants models/, of this folder's project (for that of `make text`: cd text && PYTHONPATH=.. python -m ...).

Prints what it writes to reports/diffusion_PART.md.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai import model as models
from genai.commands.likelihood import held_out
from genai.commands.quality import n_gram_texts
from genai.core.config import Experiment, Generator, Params, load, validate
from genai.core.dataset import Dataset, load_tokenizer, write_text
from genai.core.stage import cpu_seconds
from genai.diffusion.text.masked import MaskedDiffusion
from genai.model import Loaded
from genai.tasks import image_generation, text_generation
from genai.training.gradient_descent.train import Config, descend

TRIED = 10, 40  # steps by whose difference the cost of one is known
FUSED = 30, 130  # the same, where half a minute of making kernels is taken off
WINDOWS = 64
TEXTS, WORDS = 20, 60
EVALUATIONS = (4, 8, 16, 32)
FEWER = 500  # images of which the distance is told for each of these
DRAWS = 2  # of samples from each model, of which a classifier learns
WAYS: dict[str, dict[str, Any]] = {
    "heun 6, guidance 1.2": {"sampler": "heun", "steps": 6, "guidance": 1.2},
    "heun 16": {"sampler": "heun", "steps": 16, "guidance": 1.0},
    "euler 12, guidance 1.2": {"sampler": "euler", "steps": 12, "guidance": 1.2},
    "ddim 32, eta 1": {"sampler": "ddim", "steps": 32, "eta": 1.0, "guidance": 1.0},
    "ddim 32, eta 1, guidance 1.2": {"sampler": "ddim", "steps": 32, "eta": 1.0, "guidance": 1.2},
}
METRICS = ("classification_accuracy", "kernel_distance", "frechet", "density", "coverage", "memorization")


class OfTheBound(MaskedDiffusion):
    """Masked diffusion that is trained on the bound itself: uniform mask rates, every window weighing the same."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.eval()  # what the model has there is the bound; it has no dropout in this table
        try:
            return super().loss(batch)
        finally:
            self.train()


@dataclass(frozen=True)
class Recipe:
    """An experiment of params.yaml, changed: by key, and where `cls` is given, in the class that is built."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    cls: Any = None
    fused: bool = False  # to make the kernels takes half a minute of CPU, as long as a short training

    def trained(self, steps: int, seed: int) -> tuple[Loaded, float]:
        """Return the model after so many steps, and the CPU-seconds that they took."""
        section = load().experiments[self.name].model_dump()
        for key, value in self.changes.items():
            section[key] = section[key] | value if isinstance(value, dict) else value
        experiment = validate(Experiment, section, self.name)
        dataset = Dataset(Path("data") / experiment.data)
        arrays, validation = dataset.arrays("train"), {k: v[:64] for k, v in dataset.arrays("validation").items()}
        numbers = experiment.train.model_dump() | {"seed": seed, "steps": steps, "validate_every": steps}
        numbers |= {"compile": self.fused}
        torch.manual_seed(seed)
        model = models.build(self.name, experiment, dataset.description)
        if self.cls is not None:
            model.__class__ = self.cls
        start = cpu_seconds()
        with tempfile.TemporaryDirectory() as work:
            model = descend(model, arrays, validation, validate(Config, numbers, "train"), Path(work), "")
        took = cpu_seconds() - start
        return Loaded(model, self.name, experiment, dataset.description, Path()), took

    def steps(self, seconds: float) -> int:
        """Return how many steps take so many CPU-seconds, by the difference of a longer and a shorter run."""
        short, long = (self.trained(steps, 0)[1] for steps in TRIED)
        return max(TRIED[1], round(seconds * (TRIED[1] - TRIED[0]) / (long - short)))


def graded(loaded: Loaded, generator: Generator, split: str, **changes: Any) -> dict[str, float]:
    """Return the grades of a model's samples, drawn with changed numbers."""
    judge, real = models.load(Path("models") / generator.judge), Dataset(Path("data") / generator.real)
    numbers = {"seed": loaded.experiment.train.seed} | generator.sampling | changes
    sampling = validate(loaded.model.Sampling, loaded.model.Sampling.of_sampler(numbers), "sampling")
    with tempfile.TemporaryDirectory() as folder:
        image_generation.draw(loaded, sampling, generator.grade, Path(folder))
        return image_generation.grade(loaded, judge, real, sampling, Path(folder))[split]


def kernel_distance(loaded: Loaded, generator: Generator, split: str, **changes: Any) -> float:
    """Return the kernel distance alone of a model's samples, drawn with changed numbers."""
    judge, real = models.load(Path("models") / generator.judge), Dataset(Path("data") / generator.real)
    numbers = loaded.model.Sampling.of_sampler(generator.sampling | changes)
    labels = np.arange(FEWER) % real.description.n_classes
    drawn = image_generation.images(loaded, labels, validate(loaded.model.Sampling, numbers, "sampling"))
    ours, theirs = (judge.apply("features", x) for x in (drawn, real.arrays(split)["x"]))
    return image_generation.kernel_distance(ours[: image_generation.COMPARED], theirs[: image_generation.COMPARED])


def text(seconds: float, seeds: int, split: str) -> Iterator[str]:
    """Yield the lines of the table."""
    recipes = {
        "text_diffusion": Recipe("text_diffusion"),
        "trained on the bound itself": Recipe("text_diffusion", cls=OfTheBound),
        "AdamW alone, no Muon": Recipe("text_diffusion", {"train": {"muon_learning_rate": None}}),
        "no window embedding": Recipe("text_diffusion", {"config": {"window": 0}}),
        "1 layer": Recipe("text_diffusion", {"config": {"layers": 1}}),
        "4 layers": Recipe("text_diffusion", {"config": {"layers": 4}}),
        "batches of 16": Recipe("text_diffusion", {"train": {"batch_size": 16}}),
        **{
            f"blocks of {b}": Recipe("text_diffusion", {"model": "blocks.BlockDiffusion", "config": {"block": b}})
            for b in (1, 4, 16)
        },
        "text_autoregressive": Recipe("text_autoregressive"),
    }
    dataset = Dataset(Path("data") / load().experiments["text_diffusion"].data)
    tokens, characters, _ = held_out(dataset, split, WINDOWS)
    steps = {label: recipe.steps(seconds) for label, recipe in recipes.items()}  # all at once: the load changes
    yield f"{seeds} seeds, {seconds:.0f} CPU-seconds of training each, one thread of {processor()}; {len(tokens)} windows of {split}."
    yield ""
    yield "| recipe | steps | CPU-s | bound | left to right |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for label, recipe in recipes.items():
        runs = [recipe.trained(steps[label], seed) for seed in range(seeds)]
        ways = [[loaded.apply("token_nats", tokens).sum() for loaded, _ in runs]]
        if recipe.name == "text_diffusion":
            ways.insert(0, [loaded.nats(tokens).sum() for loaded, _ in runs])
        cells = [of_seeds([nats / np.log(2) / characters.sum() for nats in way]) for way in ways]
        took = np.mean([took for _, took in runs])
        yield f"| {label} | {steps[label]} | {took:.0f} | {' | '.join([''] * (2 - len(cells)) + cells)} |"


def images(seconds: float, seeds: int, split: str) -> Iterator[str]:
    """Yield the lines of the tables."""
    params = load()
    yield f"{seeds} seeds, {seconds:.0f} CPU-seconds of training each, one thread of {processor()}; figures of {split}."
    yield ""
    yield f"| recipe | steps | CPU-s | {' | '.join(METRICS)} |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(METRICS)
    by_evaluations, controls = [], {}
    for name in generated(params):
        generator, recipe = params.generators[name], Recipe(name)
        steps = recipe.steps(seconds)
        runs = [recipe.trained(steps, seed) for seed in range(seeds)]
        grades = [graded(loaded, generator, split, seed=seed) for seed, (loaded, _) in enumerate(runs)]
        columns = [of_seeds([g[metric] for g in grades]) for metric in METRICS]
        yield f"| {name} | {steps} | {np.mean([took for _, took in runs]):.0f} | {' | '.join(columns)} |"
        controls = grades[0]
        for sampler, each in (("euler", 1), ("heun", 2), ("ddim", 1), ("ddim, eta 1", 1)):
            numbers = {"sampler": sampler.partition(",")[0], "guidance": 1.0, "eta": 1.0 if "," in sampler else 0.0}
            cells = [
                f"{kernel_distance(runs[0][0], generator, split, steps=n // each, **numbers):.4f}" for n in EVALUATIONS
            ]
            by_evaluations.append(f"| {name} | {sampler} | {' | '.join(cells)} |")
    for end, what in (("_floor", "real training images"), ("_real", "of real images"), ("_ceiling", "the worst")):
        cells = [f"{controls[key]:.4f}" if (key := control(m) + end) in controls else "" for m in METRICS]
        yield f"| {what} | | | {' | '.join(cells)} |"
    yield ""
    yield f"Kernel distance by evaluations of the network: no guidance, first seed, {FEWER} images."
    yield f"\n| recipe | sampler | {' | '.join(map(str, EVALUATIONS))} |"
    yield "| --- | --- |" + " ---: |" * len(EVALUATIONS)
    yield from by_evaluations


def classifiers(seconds: float, seeds: int, split: str) -> Iterator[str]:
    """Yield the lines of the table: the classification accuracy score by sampler."""
    params = load()
    yield f"{seeds} seeds, {seconds:.0f} CPU-seconds of training each, {DRAWS} draws of samples, one thread of {processor()}; accuracy on {split}."
    yield ""
    yield f"| recipe | steps | {' | '.join(WAYS)} | real images |"
    yield "| --- |" + " ---: |" * (len(WAYS) + 2)
    for name in generated(params):
        generator, recipe = params.generators[name], Recipe(name)
        judge, real = models.load(Path("models") / generator.judge), Dataset(Path("data") / generator.real)
        train, held = real.arrays("train"), real.arrays(split)
        labels = np.arange(validate(image_generation.Grade, generator.grade, "grade").n) % real.description.n_classes
        steps = recipe.steps(seconds)
        trained = [recipe.trained(steps, seed)[0] for seed in range(seeds)]
        cells = []
        for way in WAYS.values():
            scores = []
            for loaded in trained:
                for seed in range(DRAWS):
                    numbers = loaded.model.Sampling.of_sampler(way | {"seed": seed})
                    sampling = validate(loaded.model.Sampling, numbers, "sampling")
                    scores.append(learned(judge, image_generation.images(loaded, labels, sampling), labels, held))
            cells.append(of_seeds(scores))
        of_real = learned(judge, train["x"][: len(labels)], train["y"][: len(labels)], held)
        yield f"| {name} | {steps} | {' | '.join(cells)} | {of_real:.4f} |"


def learned(judge: Loaded, x: np.ndarray, y: np.ndarray, held: dict[str, np.ndarray]) -> float:
    """Return the accuracy on held-out images of a classifier that learned from images x of the classes y alone."""
    classifier = image_generation.classifier(judge, x, y)
    return float((classifier.apply("predict_proba", held["x"]).argmax(1) == held["y"]).mean())


def kernels() -> Iterator[str]:
    """Yield the lines of the table: what a step costs, and how long it takes."""
    recipes = {
        "text_diffusion": Recipe("text_diffusion"),
        "text_autoregressive": Recipe("text_autoregressive"),
        "blocks of 4": Recipe("text_diffusion", {"model": "blocks.BlockDiffusion", "config": {"block": 4}}),
    }
    yield f"{processor()}; by the difference of {FUSED[0]} and {FUSED[1]} steps, one run of each."
    yield ""
    yield "| recipe | kernels | threads | CPU-ms a step | ms a step | CPU-s of the first |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for label, recipe in recipes.items():
        for fused, threads in ((False, 1), (True, 1), (False, 2), (True, 2)):
            changed = replace(recipe, changes=recipe.changes | {"train": {"threads": threads}}, fused=fused)
            first, short, long = (timed(changed, steps) for steps in (1, *FUSED))  # made once, kernels are kept
            cpu, wall = ((b - a) / (FUSED[1] - FUSED[0]) for a, b in zip(short, long, strict=True))
            cells = f"{1000 * cpu:.0f} | {1000 * wall:.0f} | {first[0]:.0f}"
            yield f"| {label} | {'fused' if fused else 'plain'} | {threads} | {cells} |"


def timed(recipe: Recipe, steps: int) -> tuple[float, float]:
    """Return the CPU-seconds and the seconds that so many steps take."""
    torch.compiler.reset()
    start = time.perf_counter()
    took = recipe.trained(steps, 0)[1]
    return took, time.perf_counter() - start


def samples() -> Iterator[str]:
    """Yield the texts of each generator of text and of its judge, a numbered list each."""
    params = load()
    generators = {name: g for name, g in params.generators.items() if g.task == "text_generation"}
    for name in dict.fromkeys([*generators, *(generator.judge for generator in generators.values())]):
        loaded = models.load(Path("models") / name)
        if name in generators:
            numbers = generators[name].sampling
            sampling = validate(loaded.model.Sampling, numbers, "sampling")
            written = text_generation.texts(loaded, loaded.directory, None, TEXTS, sampling)
        else:
            numbers = {"temperature": 1.0}
            tokens = n_gram_texts(loaded.model, TEXTS, loaded.description.shape[0], **numbers)
            written = [load_tokenizer(loaded.directory).decode(row) for row in tokens.tolist()]
        yield f"**{name}** ({', '.join(f'{key} {value}' for key, value in numbers.items())})\n"
        yield from (f"{i}. {' '.join(one.split()[:WORDS])}" for i, one in enumerate(written, 1))
        yield ""


def generated(params: Params) -> list[str]:
    """Return the experiments whose models draw images."""
    return [name for name, e in params.experiments.items() if e.task == "image_diffusion" and name in params.generators]


def control(metric: str) -> str:
    """Return by what name the controls of a metric go."""
    return metric.removesuffix("_distance") if metric == "kernel_distance" else metric


def of_seeds(values: list[float]) -> str:
    """Return mean and standard deviation."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    budgeted = {"text": text, "images": images, "classifiers": classifiers}
    fixed = {"kernels": kernels, "samples": samples}
    parser.add_argument("part", choices=(*budgeted, *fixed))
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU-seconds of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers = arguments.seconds, arguments.seeds, arguments.split
    lines = []
    for line in budgeted[arguments.part](*numbers) if arguments.part in budgeted else fixed[arguments.part]():
        print(line, flush=True)
        lines.append(line)
    write_text(Path(f"reports/diffusion_{arguments.part}.md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
