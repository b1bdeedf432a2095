"""Prepare a data set: data/NAME."""

from pathlib import Path

from genai.core.config import load_source, validate
from genai.core.stage import limit_threads, stage


def main(name: str) -> None:
    with stage("prepare", name) as this:
        section = this.section("datasets")
        limit_threads(1)
        from genai.core.dataset import replaced
        from genai.data import download

        download.mirror()  # a wrong setting is told whatever the source
        source, own = load_source(section, f"datasets.{name}")
        config = validate(source.Config, section.model_extra, f"datasets.{name}")
        with replaced(Path("data") / name) as folder:
            if own:
                source.prepare(config, folder, this.reads(own))
            else:
                source.prepare(config, folder)
