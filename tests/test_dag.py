"""The DAG says exactly what matters: what a stage reads is what dvc.yaml names, and an edit touches its own stages alone."""

import ast
import contextlib
import json
import re
import shutil
from importlib.util import source_from_cache
from pathlib import Path
from types import SimpleNamespace

import grimp
import numpy as np
import pytest
from dvc.repo import Repo
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
COMMANDS = {"sample": "samples"}  # the stage's command where it has another name


def stages(project) -> dict:
    """Return the stages of dvc.lock: what DVC made of dvc.yaml."""
    return YAML(typ="safe").load(project.folder / "dvc.lock")["stages"]


def named(stage: dict) -> tuple[set[str], set[str]]:
    """Return the files and folders, and the sections of params.yaml, that a stage names."""
    return {d["path"] for d in stage.get("deps", [])}, set(stage.get("params", {}).get("params.yaml", {}))


def covered(path: str, deps: set[str]) -> bool:
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


def read(project, name: str) -> dict:
    """Return what a stage noted of itself when it ran: the code that it imported, the sections and folders it read."""
    command, _, what = name.partition("@")
    return json.loads(
        (project.folder / ".work" / (what or command) / f"{COMMANDS.get(command, command)}.json").read_text()
    )


def code_of_model(project, folder: str) -> str:
    return json.loads((project.folder / folder / "config.json").read_text())["experiment"]["code"]


def test_a_stage_names_all_that_it_reads_and_nothing_else(by_dvc):
    lock = stages(by_dvc)
    assert {name.partition("@")[0] for name in lock} == {
        "prepare",
        "train",
        "evaluate",
        "sample",
        "grade",
        "look",
        "learning_curve",
        "report",
    }
    for name, stage in lock.items():
        deps, params = named(stage)
        record = read(by_dvc, name)
        assert params == set(record["params"]), name
        folders = set(record["folders"])
        assert folders == {dep for dep in deps if not dep.startswith("genai")}, name
        # a model's code reaches what uses the model through the hash in its folder
        through = {code_of_model(by_dvc, folder) for folder in folders if re.fullmatch(r"models/\w+", folder)}
        imported = {file for file in record["code"] if not file.endswith(("__init__.py", "__main__.py"))}
        missing = {file for file in imported if not covered(file, deps | through)}
        assert not missing, f"{name} imports {missing}, which dvc.yaml does not name"
        for dep in deps - folders:
            used = {file for file in imported if covered(file, {dep})}
            assert used, f"{name} names {dep} and imports nothing of it"
            if dep == "genai/core":
                files = {p.relative_to(ROOT).as_posix() for p in (ROOT / dep).glob("*.py") if p.name != "__init__.py"}
                assert used == files, name


def test_nothing_that_a_stage_opens_is_missing(by_dvc):
    """An audit hook saw files that the stages did not note."""
    for name, stage in stages(by_dvc).items():
        deps, _ = named(stage)
        outs = {out["path"] for out in stage["outs"]}
        seen = json.loads((by_dvc.opened / f"{'_'.join(stage['cmd'].split()[3:])}.json").read_text())
        seen = {source_from_cache(path) if path.endswith(".pyc") else path for path in seen}
        opened = {path for path in seen if (by_dvc.folder / path).is_file()}
        code = {p for p in deps if re.fullmatch(r"models/\w+", p)}
        allowed = deps | outs | {code_of_model(by_dvc, p) for p in code} | {"params.yaml", ".work", "genai/__main__.py"}
        other = {p for p in opened if not p.startswith("..") and not covered(p, allowed)}
        unknown = {p for p in other if not p.endswith("__init__.py")}
        assert opened & {"params.yaml"} and not unknown, (name, unknown)


def test_a_source_of_data_imports_what_its_stage_names():
    """Of all sources, those too that the project above has no stage of; lazy imports count."""
    graph = grimp.build_graph("genai", cache_dir=None)
    for path in (ROOT / "genai/data").glob("*.py"):
        if kind := re.search(r'^kind: Kind = "(\w+)"', path.read_text(), re.MULTILINE):
            imported = graph.find_upstream_modules(f"genai.data.{path.stem}")
            named = {"genai", "genai.data", "genai.data.download", f"genai.data.{kind[1]}"}
            assert {m for m in imported if not m.startswith("genai.core")} <= named, path


def status(folder: Path) -> set[str]:
    """Return what `dvc status` names, asked in this process."""
    with contextlib.chdir(folder), Repo() as repo:
        return set(repo.status())


def test_packages_hold_a_docstring_and_nothing_that_a_stage_could_depend_on():
    for path in (ROOT / "genai").rglob("__init__.py"):
        # no stage imports tracking's; genai's tells the version; that of basics hands out names, and a stage asks for none
        if path.parent.name not in ("tracking", "genai", "basics"):
            assert [type(node) for node in ast.parse(path.read_text()).body] == [ast.Expr], path


EDITS = {
    "genai/__main__.py": "",
    "genai/commands/sample.py": "",
    "genai/commands/track.py": "",
    "genai/commands/evaluate.py": r"evaluate@.*",
    "genai/commands/grade.py": r"grade@.*",
    "genai/commands/report.py": r"report",
    "genai/commands/learning_curve.py": r"learning_curve@.*",
    "genai/commands/look.py": r"look@.*",
    "genai/figures.py": r"(evaluate|learning_curve|look)@.*|report",
    "genai/leaderboard.py": r"report",
    "genai/page.py": r"report",
    "genai/replay/page.py": r"sample@.*|report",
    "genai/commands/leaderboard.py": "",
    "genai/data/diabetes.py": r"prepare@diabetes",
    "genai/data/images.py": r"prepare@digits",
    "genai/data/text.py": r"prepare@scripture",
    "genai/basics/k_means.py": r"train@k_means",
    "genai/cnn/classifier.py": r"train@cnn",
    "genai/cnn/look.py": r"look@cnn",
    "genai/cnn/layers.py": "",
    "genai/diffusion/text/masked.py": r"train@text_(diffusion|autoregressive)",
    "genai/tasks/clustering.py": r"evaluate@(k_means|neighbor_clustering)|report",
    "genai/tasks/image_generation.py": r"(sample|grade)@image_diffusion|report",
    "genai/training/fit/train.py": r"train@(mean|ridge|svc|k_means|kneser_ney)",
}


def test_an_edit_touches_its_own_stages_alone(by_dvc, tmp_path):
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    assert status(folder) == set()
    names = set(stages(by_dvc))
    for path, expected in EDITS.items():
        text = (folder / path).read_text()
        (folder / path).write_text(text + "# edited\n")
        changed = status(folder)
        (folder / path).write_text(text)
        assert changed == {name for name in names if re.fullmatch(expected, name)}, path


def test_an_edit_of_an_algorithm_reaches_what_uses_its_model_and_nothing_else(by_dvc, tmp_path):
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    path = folder / "genai/cnn/classifier.py"
    path.write_text(path.read_text() + "# edited\n")
    done = by_dvc.run("dvc", "repro", cwd=folder)
    ran = set(re.findall(r"Running stage '(.*)'", done.stdout))
    assert ran == {"train@cnn", "evaluate@cnn", "grade@image_diffusion", "learning_curve@cnn", "look@cnn", "report"}


def test_what_training_writes_depends_on_no_sampling_number_and_no_judge(by_dvc, tmp_path):
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    params = YAML().load(folder / "params.yaml")
    params["generators"]["image_diffusion"]["sampling"]["guidance"] = 2.0
    params["generators"]["image_diffusion"]["judge"] = "mlp"
    YAML().dump(params, folder / "params.yaml")
    by_dvc.run("dvc", "repro", "--single-item", "--force", "train@image_diffusion", cwd=folder)
    after = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    assert after["train@image_diffusion"] == stages(by_dvc)["train@image_diffusion"]
    assert status(folder) == {
        "sample@image_diffusion", "grade@image_diffusion", "report",
    }  # fmt: skip
    by_dvc.run("dvc", "repro", "grade@image_diffusion", cwd=folder)
    grades = [json.loads((f / "grades/image_diffusion.json").read_text()) for f in (folder, by_dvc.folder)]
    assert grades[0]["test"]["kernel_distance"] != grades[1]["test"]["kernel_distance"]


def test_a_changed_number_touches_its_own_stages_and_the_report(by_dvc, tmp_path):
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    changes = {
        ("experiments", "mlp", "train", "seed"): {"train@mlp", "report"},
        ("datasets", "diabetes", "seed"): {"prepare@diabetes", "report"},
        ("generators", "text_diffusion", "show", "n"): {"sample@text_diffusion", "report"},
        ("generators", "text_diffusion", "grade", "n"): {"grade@text_diffusion", "report"},
        ("looks", "cnn", "mistakes"): {"look@cnn", "report"},
    }
    text = (folder / "params.yaml").read_text()
    for keys, expected in changes.items():
        params = YAML().load(text)
        *parents, last = keys
        section = params
        for key in parents:
            section = section[key]
        section[last] = 7
        YAML().dump(params, folder / "params.yaml")
        assert status(folder) == expected, keys


SOURCE = '''"""Two clouds of points."""
from pathlib import Path
import numpy as np
from genai.core.config import Seed, Strict
from genai.core.dataset import SPLITS, Description, write_arrays, write_json
kind = "table"
class Config(Strict):
    seed: Seed
def prepare(config: Config, directory: Path) -> None:
    from genai.data import table  # the shared code of its kind
    rng = np.random.default_rng(config.seed)
    for split in SPLITS:
        y = rng.integers(2, size=30)
        write_arrays(directory / f"{split}.safetensors", {"x": (y[:, None] + rng.normal(size=(30, 2))).astype("f4"), "y": y})
    write_json(directory / "description.json", Description(kind="table", shape=[2], classes=["a", "b"]).model_dump())
'''
MODEL = '''"""Guesses by the sign of the first feature."""
import numpy as np
from genai.core.config import Strict
class Sign:
    takes = frozenset({"table"})
    task = "detection"
    class Config(Strict):
        threshold: float
    def __init__(self, config, description):
        self.config = config
    def fit(self, x, y):
        self.threshold_ = np.float64(self.config.threshold)
        return self
    def predict(self, x):
        return (x[:, 0] > self.threshold_).astype(int)
'''
TASK = '''"""Detection: the share of hits."""
import numpy as np
RANKED_BY, HIGHER_IS_BETTER = ("hits",), True
def evaluate(loaded, dataset, split):
    arrays = dataset.arrays(split)
    right = loaded.apply("predict", arrays["x"]) == arrays["y"]
    return {"hits": float(right.mean()), "examples": len(right)}, {"score": 1.0 - right}
def figures(loaded, dataset, columns, folder):
    (folder / "score.txt").write_text(str(columns["score"].mean()))
    return {}
def signature(description, sampling):
    return {"inputs": ("tensor", "float32", (-1, *description["shape"])), "outputs": ("columns", {"hit": "long"}), "example": None}
def answer(loaded, directory, data, sampling):
    import pandas as pd
    return pd.DataFrame({"hit": loaded.apply("predict", data)})
'''


def test_a_data_set_a_model_a_task_and_a_generator_are_one_file_and_one_section_each(by_dvc, tmp_path):
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    before = (folder / "dvc.yaml").read_text()
    for path, text in {"data/clouds": SOURCE, "basics/sign": MODEL, "tasks/detection": TASK}.items():
        (folder / "genai" / f"{path}.py").write_text(text)
    params = YAML().load(folder / "params.yaml")
    params["datasets"]["clouds"] = {"kind": "table", "source": "genai/data/clouds.py", "seed": 0}
    params["experiments"]["sign"] = {
        "data": "clouds", "task": "detection", "code": "genai/basics/sign.py", "model": "Sign",
        "config": {"threshold": 0.5}, "train": {"method": "fit", "seed": 0, "threads": 1},
    }  # fmt: skip
    params["experiments"]["tiny_diffusion"] = params["experiments"]["image_diffusion"] | {"train": {
        "method": "gradient_descent", "seed": 1, "threads": 1, "steps": 2, "batch_size": 4, "learning_rate": 1e-3,
    }}  # fmt: skip
    params["generators"]["tiny_diffusion"] = dict(params["generators"]["image_diffusion"])
    YAML().dump(params, folder / "params.yaml")
    by_dvc.genai("check", cwd=folder)
    done = by_dvc.run("dvc", "repro", cwd=folder)
    # `report` and what depends on genai/tasks run again; no other stage does
    ran = set(re.findall(r"Running stage '(.*)'", done.stdout))
    new = {"prepare@clouds", "train@sign", "evaluate@sign", "train@tiny_diffusion", "evaluate@tiny_diffusion"}
    assert ran == new | {"sample@tiny_diffusion", "grade@tiny_diffusion", "report"}
    rows = json.loads((folder / "reports/leaderboard.json").read_text())
    (row,) = [row for row in rows if row["experiment"] == "sign"]
    assert (
        row["metric"] == "hits"
        and row["test"] == json.loads((folder / "metrics/sign.json").read_text())["test"]["hits"]
    )
    assert (folder / "samples/tiny_diffusion/grid.png").exists()
    assert (folder / "dvc.yaml").read_text() == before


@pytest.mark.parametrize("tracked", [False, True])
def test_a_file_and_a_folder_of_ones_own_are_what_their_stages_read(by_dvc, tmp_path, tracked):
    """Each is a dependency by its path, kept by `dvc add` or not; an edit runs again what depends on it alone."""
    folder = shutil.copytree(by_dvc.folder, tmp_path / "project", symlinks=True)
    (folder / "mine").mkdir()
    rows = [f"{i},{'ab'[i % 2]},{2 * i}" for i in range(40)]
    (folder / "mine" / "rows.csv").write_text("\n".join(["number,letter,y", *rows]) + "\n")
    for i in range(40):
        path = folder / "mine" / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 3), i, np.uint8)).save(path)
    params, split = YAML().load(folder / "params.yaml"), {"validation": 0.2, "test": 0.2, "seed": 0}
    of_rows = {"kind": "table", "source": "mine/rows.csv", "target": "y", "task": "regression"}
    params["datasets"]["rows"] = of_rows | split
    params["datasets"]["pictures"] = {"kind": "images", "source": "mine/pictures"} | split
    params["experiments"]["of_rows"] = params["experiments"]["ridge"] | {"data": "rows"}
    YAML().dump(params, folder / "params.yaml")
    if tracked:
        by_dvc.run("dvc", "add", "mine/rows.csv", "mine/pictures", cwd=folder)
    by_dvc.genai("check", cwd=folder)
    done = by_dvc.run("dvc", "repro", "evaluate@of_rows", "prepare@pictures", cwd=folder)
    assert set(re.findall(r"Running stage '(.*@.*)'", done.stdout)) == {
        "prepare@rows", "prepare@pictures", "train@of_rows", "evaluate@of_rows",
    }  # fmt: skip
    copy = SimpleNamespace(folder=folder)
    for name, source in {"rows": "mine/rows.csv", "pictures": "mine/pictures"}.items():
        deps, _ = named(stages(copy)[f"prepare@{name}"])
        assert read(copy, f"prepare@{name}")["folders"] == [source] == [d for d in deps if not d.startswith("genai")]
    path = folder / "mine" / "rows.csv"
    text = path.read_text()
    path.unlink()  # a link into DVC's cache is not to be written through
    path.write_text(text + "40,a,80\n")
    done = by_dvc.run("dvc", "repro", "evaluate@of_rows", "prepare@pictures", cwd=folder)
    assert set(re.findall(r"Running stage '(.*@.*)'", done.stdout)) == {
        "prepare@rows",
        "train@of_rows",
        "evaluate@of_rows",
    }
    path.write_text(text + "40,a\n")
    done = by_dvc.run("dvc", "repro", "prepare@rows", cwd=folder, check=False)
    assert "genai: datasets.rows: mine/rows.csv, line 42: 2 fields, should be 3 as in line 1" in done.stderr


def test_no_two_keys_of_the_parameters_are_bound_to_the_same_value_by_a_check():
    """What is derived is not written: an experiment names neither itself nor what its class tells."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    for name, generator in params["generators"].items():
        assert generator["judge"] != name
    for name, experiment in params["experiments"].items():
        assert (
            name not in {key: value for key, value in experiment.items() if key != "task"}.values()
        )  # a task is a file


@pytest.mark.parametrize("line", [line for line in (ROOT / "dvc.yaml").read_text().splitlines() if "- genai/" in line])
def test_every_dependency_on_code_exists(line):
    path = line.strip().removeprefix("- ")
    folder = path.partition("${")[0]
    assert (ROOT / folder).exists()
