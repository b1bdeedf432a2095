"""Look at what a model learned: looks/NAME."""

from pathlib import Path

from genai.core.config import Look, load_look, validate
from genai.core.stage import limit_threads, stage, trained_threads


def main(name: str) -> None:
    with stage("look", name) as this:
        section: Look = this.section("looks")
        folder = this.reads(Path("models") / name)
        limit_threads(trained_threads(folder))
        from genai import model as models
        from genai.core.dataset import Dataset, replaced

        loaded = models.load(folder)
        code = load_look(section.code, f"looks.{name}.code")
        config = validate(code.Config, section.model_extra, f"looks.{name}")
        dataset = Dataset(this.reads(Path("data") / section.data))
        with replaced(Path("looks") / name) as out:
            code.draw(loaded, dataset, config, out)
