"""Draw what a generator shows people: samples/NAME."""

from pathlib import Path

from genai.core.config import load_file, validate
from genai.core.stage import limit_threads, stage, trained_threads


def main(name: str) -> None:
    with stage("samples", name) as this:
        generator = this.section("generators", without=("judge", "real", "grade"))
        folder = this.reads(Path("models") / name)
        limit_threads(trained_threads(folder))
        from genai import model as models
        from genai.core.dataset import replaced
        from genai.replay import page

        loaded = models.load(folder)
        task = load_file("tasks", generator.task, f"generators.{name}.task")
        sampling = validate(loaded.model.Sampling, generator.sampling, f"generators.{name}.sampling")
        with replaced(Path("samples") / name) as out:
            task.show(loaded, sampling, generator.show, out)
            if replay := page.read(out):
                from genai.replay import animation

                page.write([replay], out / "replay.html")
                first = replay["traces"][0]
                animation.write(first, f"{name}, {first['way']}", out / "denoising.gif")
