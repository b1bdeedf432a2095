"""Draw from a generator, keep what was drawn and set it beside real examples: grades/NAME.json, generated/NAME."""

from pathlib import Path

from genai.core.config import load_file, validate
from genai.core.stage import limit_threads, stage, trained_threads


def main(name: str) -> None:
    with stage("grade", name) as this:
        generator = this.section("generators", without=("show",))
        folder = this.reads(Path("models") / name)
        limit_threads(trained_threads(folder))
        from genai import model as models
        from genai.core.dataset import Dataset, replaced, write_json

        loaded = models.load(folder)
        judge = models.load(this.reads(Path("models") / generator.judge))
        real = Dataset(this.reads(Path("data") / generator.real))
        task = load_file("tasks", generator.task, f"generators.{name}.task")
        sampling = validate(loaded.model.Sampling, generator.sampling, f"generators.{name}.sampling")
        with replaced(Path("generated") / name) as out:
            task.draw(loaded, sampling, generator.grade, out)
            grades = task.grade(loaded, judge, real, sampling, out)
        write_json(Path("grades") / f"{name}.json", grades)
