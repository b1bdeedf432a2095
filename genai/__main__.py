"""The command line: python -m genai COMMAND [NAME] ...; every stage of dvc.yaml is one such command."""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from genai.core import config
from genai.core.config import UserError, pick


def prepare(name: str) -> None:
    """Prepare a data set: data/NAME."""
    params = config.load()
    section = pick(params.datasets, name, "datasets")
    module, source_config = config.source(name, section)
    from genai.core.dataset import replaced

    with stage("prepare", name, {"datasets": [name]}), replaced(Path("data") / name) as folder:
        module.prepare(source_config, folder)


def train(name: str) -> None:
    """Train an experiment's model: models/NAME."""
    experiment = pick(config.load().experiments, name, "experiments")
    limit_threads(experiment.train.threads)
    from genai import model as models
    from genai.core.dataset import Dataset, replaced

    dataset = Dataset(Path("data") / experiment.data)
    gradient = hasattr(config.model_class(name, experiment), "loss")
    if gradient:
        import torch

        from genai import train as loop

    with stage("train", name, {"experiments": [name]}, dataset.directory) as work:
        text = dataset.description.kind == "text"
        if gradient:
            torch.manual_seed(experiment.train.seed)  # the initial weights
        model = models.build(name, experiment, dataset.description)
        if gradient:
            settings = experiment.model_dump_json(exclude={"sample", "judge"})
            model = loop.train(
                model,
                dataset.arrays("train"),
                dataset.arrays("validation"),
                experiment.train,
                work,
                loop.fingerprint(settings, *contents(dataset.directory)),
            )
            if int(os.environ.get("RANK", "0")) > 0:
                return
        elif text:
            model.fit(dataset.tokens("train"), None, experiment.train.seed)
        else:
            arrays = dataset.arrays("train")
            model.fit(arrays["x"], arrays["y"], experiment.train.seed)
        with replaced(Path("models") / name) as folder:
            tokenizer = dataset.directory / "tokenizer.json" if text else None
            models.save(folder, name, experiment, dataset.description, model, tokenizer)
            if gradient:
                (folder / "history.csv").write_bytes((work / "history.csv").read_bytes())
    for leftover in ("checkpoint.pt", "progress.json"):
        (work / leftover).unlink(missing_ok=True)


def evaluate(name: str) -> None:
    """Measure a trained model on the test split: metrics/NAME.json, scores/NAME.csv."""
    experiment = pick(config.load().experiments, name, "experiments")
    limit_threads(experiment.train.threads)
    from genai import evaluate as evaluation
    from genai import model as models
    from genai import sample as samples
    from genai.core.dataset import Dataset, write_json, write_text

    loaded = models.load(Path("models") / name)
    sampling = samples.settings(loaded, experiment, {}) if hasattr(loaded.model, "Sampling") else None
    dataset = Dataset(Path("data") / experiment.data)
    judge = models.load(Path("models") / experiment.judge) if experiment.judge != name else None
    with stage("evaluate", name, {"experiments": [name]}, dataset.directory, Path("models") / name):
        metrics, scores = evaluation.evaluate(loaded, dataset, judge, sampling)
        rows = "".join(f"{i},{score:.9g}\n" for i, score in enumerate(scores))
        write_text(Path("scores") / f"{name}.csv", "example,score\n" + rows)
        write_json(Path("metrics") / f"{name}.json", metrics)


def sample(arguments: argparse.Namespace) -> None:
    """Generate from a trained model: samples/NAME as a stage, else to standard output or --out."""
    name, changes = arguments.name, sample_changes(arguments)
    with contextlib.ExitStack() as stack:
        if arguments.from_uri:
            import tempfile

            from genai import tracking

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = tracking.local_copy(arguments.from_uri, folder)
            section = None
        else:
            section = pick(config.load().experiments, name, "experiments")
            limit_threads(section.train.threads)
            folder = Path("models") / name
        from genai import model as models
        from genai import sample as sampling

        loaded = models.load(folder)
        settings = sampling.settings(loaded, section, changes)
        if section is not None and not changes and arguments.prompt is None and arguments.out is None:
            from genai.core.dataset import replaced

            with stage("sample", name, {"experiments": [name]}, folder), replaced(Path("samples") / name) as out:
                sampling.write(loaded, folder, settings, out)
        elif loaded.model.task == "language":
            print(sampling.complete(loaded, sampling.load_tokenizer(folder), arguments.prompt, settings))
        else:
            if arguments.prompt is not None:
                raise UserError(
                    "--prompt: an image model takes none; its classes are " + ", ".join(loaded.description.classes)
                )
            out = Path(arguments.out or f"{name}.png")
            sampling.write_grid(loaded, settings, out)
            print(out)


def report() -> None:
    """Set every figure beside its baseline: reports/."""
    params = config.load()
    from genai import report as reporting
    from genai.core.dataset import replaced

    sections = {"experiments": list(params.experiments)}
    with stage("report", "report", sections, Path("metrics"), Path("models")), replaced(Path("reports")) as folder:
        reporting.write(params, folder)


def check() -> None:
    """Validate params.yaml, the models' own sections included."""
    config.check(config.load())


def schema() -> None:
    """Write params.schema.json, which editors read to complete and check params.yaml."""
    from genai import schema as schemas
    from genai.core.dataset import write_json

    write_json(Path("params.schema.json"), schemas.schema())


def limit_threads(threads: int) -> None:
    """Hold NumPy and torch to so many threads; to be called before either is imported."""
    assert "numpy" not in sys.modules and "torch" not in sys.modules
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[variable] = str(threads)


@contextlib.contextmanager
def stage(command: str, name: str, sections: dict[str, list[str]], *folders: Path):
    """Yield .work/NAME; record CPU-seconds there, and fail where an input changed meanwhile.

    DVC hashes a stage's inputs after its command: without this check, an edit of code, parameters or
    data while the stage ran would be recorded as if the result had been made from it.
    """
    work = Path(".work") / name
    work.mkdir(parents=True, exist_ok=True)
    before, cpu, wall = inputs(sections, folders), time.process_time(), time.monotonic()
    yield work
    after = inputs(sections, folders)
    used = code()
    for path in before | after:
        if before.get(path) != after.get(path) and (path in used or not path.endswith(".py")):
            raise UserError(f"{path}: changed while {command}@{name} ran; run it again")
    from genai.core.dataset import write_json

    figures = {
        "cpu_seconds": round(time.process_time(), 2),
        "work_cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.monotonic() - wall, 2),
        "code": used,
    }
    write_json(work / f"{command}.json", figures)


def inputs(sections: dict[str, list[str]], folders: tuple[Path, ...]) -> dict[str, object]:
    """Return what tells an input's state: own sections of params.yaml, size and time of the files."""
    params = config.read(config.PARAMS)
    state: dict[str, object] = {
        f"params.yaml: {table}.{name}": json.dumps(params.get(table, {}).get(name), default=str)
        for table, names in sections.items()
        for name in names
    }
    for path in [*Path("genai").rglob("*.py"), *(p for folder in folders for p in sorted(folder.rglob("*")))]:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            state[str(path)] = (status.st_size, status.st_mtime_ns) if path.is_file() else None
    return state


def code() -> list[str]:
    """Return the files of this repository that the process has imported, as paths from the root."""
    loaded = [vars(m).get("__file__") for n, m in sys.modules.items() if n == "__main__" or n.split(".")[0] == "genai"]
    root = Path(__file__).parents[1]
    return sorted(
        str(Path(file).resolve().relative_to(root)) for file in loaded if file and "genai" in Path(file).parts
    )


def contents(folder: Path) -> list[str]:
    """Return a hash of each file of a folder."""
    import hashlib

    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


def sample_changes(arguments: argparse.Namespace) -> dict[str, object]:
    given = {"steps": arguments.steps, "temperature": arguments.temperature, "seed": arguments.seed}
    return {key: value for key, value in given.items() if value is not None}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m genai", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function in (prepare, train, evaluate):
        commands.add_parser(function.__name__, help=function.__doc__).add_argument("name", metavar="NAME")
    one = commands.add_parser("sample", help=sample.__doc__)
    one.add_argument("name", metavar="NAME")
    one.add_argument("--prompt", help="text to continue; [[N]] in it marks a gap of N tokens to fill")
    one.add_argument("--steps", type=int, help="network evaluations from noise to sample")
    one.add_argument("--temperature", type=float, help="below 1: likelier, less varied text")
    one.add_argument("--seed", type=int)
    one.add_argument("--out", help="file for the image grid (default NAME.png)")
    one.add_argument("--from", dest="from_uri", metavar="models:/NAME@ALIAS", help="a model of the registry")
    for function in (report, check, schema):
        commands.add_parser(function.__name__, help=function.__doc__)
    mirror = commands.add_parser("track", help="mirror the files of all stages into MLflow")
    mirror.add_argument("--follow", action="store_true", help="until standard input ends, while stages run")
    mirror.add_argument("--release", action="store_true", help="then release")
    release = commands.add_parser("release", help="register the models; a better one becomes champion")
    release.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("ui", help="serve the MLflow and Prefect pages on 127.0.0.1")
    return top


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    root = Path.cwd()
    match arguments.command:
        case "prepare" | "train" | "evaluate" as command:
            {"prepare": prepare, "train": train, "evaluate": evaluate}[command](arguments.name)
        case "sample":
            sample(arguments)
        case "report" | "check" | "schema" as command:
            {"report": report, "check": check, "schema": schema}[command]()
        case "track" | "release" as command:
            from genai import tracking

            if command == "release":
                tracking.release(root, arguments.names or None)
            elif arguments.follow:
                tracking.follow(root, arguments.release)
            else:
                tracking.track(root)
                if arguments.release:
                    tracking.release(root, None)
            from genai.core.dataset import write_json

            write_json(Path(".work/track.json"), {"cpu_seconds": round(time.process_time(), 2)})
        case "ui":
            from genai import ui

            ui.ui(root)


def main() -> int:
    """Run one command; a user's mistake becomes one line and exit status 2."""
    try:
        run(parser().parse_args())
    except UserError as error:
        print(f"genai: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"genai: {error.filename or 'write'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
