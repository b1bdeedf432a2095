"""The whole of it, as a user runs it: one DAG by two runners, complete dependencies, samples, pages' contents."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
METRICS = {
    "linear_regression": {"r2", "rmse"},
    "logistic_regression": {"accuracy", "log_loss"},
    "k_means": {"clustering_accuracy", "nmi"},
    "mlp": {"accuracy", "log_loss"},
    "cnn": {"accuracy", "log_loss"},
    "text_diffusion": {"nelbo_bpc", "distinct_2"},
    "text_autoregressive": {"bpc"},
    "image_diffusion": {"label_accuracy", "frechet_cnn", "frechet_floor"},
}


def lock(project) -> dict:
    return YAML(typ="safe").load(project.folder / "dvc.lock")["stages"]


def test_flow_and_dvc_repro_give_the_same_lock_byte_for_byte(by_flow, by_dvc):
    assert (by_flow.folder / "dvc.lock").read_bytes() == (by_dvc.folder / "dvc.lock").read_bytes()


def test_every_stage_names_all_the_code_that_its_command_imported(by_dvc):
    families: dict[str, set[str]] = {}
    for name, stage in lock(by_dvc).items():
        command, _, what = name.partition("@")
        named = {d["path"] for d in stage["deps"] if d["path"].startswith("genai")}
        record = json.loads((by_dvc.folder / ".work" / (what or command) / f"{command}.json").read_text())
        imported = {file for file in record["code"] if not file.endswith("__init__.py")}
        missing = {file for file in imported if file not in named and str(Path(file).parent) not in named}
        assert not missing, f"{name} imports {missing}, which dvc.yaml does not name"
        families.setdefault(command, set()).update(imported)
        assert all((by_dvc.folder / path).exists() for path in named)
    for name, stage in lock(by_dvc).items():  # and names nothing that no stage of its family imports
        for dep in stage["deps"]:
            if dep["path"].endswith(".py"):
                assert dep["path"] in families[name.partition("@")[0]], (name, dep["path"])


def test_packages_hold_a_docstring_and_nothing_that_a_stage_could_depend_on():
    for path in (ROOT / "genai").rglob("__init__.py"):
        assert re.fullmatch(r'""".*"""\n', path.read_text()), path


@pytest.mark.parametrize("name", METRICS)
def test_an_experiment_reports_its_metrics(by_dvc, name):
    shown = json.loads(by_dvc.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    figures = shown[f"metrics/{name}.json"]["data"]
    assert METRICS[name] <= figures.keys()


def test_dvc_shows_plots_and_parameter_changes(by_dvc, tmp_path):
    by_dvc.run("dvc", "plots", "show", "-o", str(tmp_path))
    assert "text_diffusion" in (tmp_path / "index.html").read_text()
    assert by_dvc.run("dvc", "params", "diff").stdout.strip() == ""


def test_a_changed_parameter_touches_its_own_stages_and_the_report(by_dvc):
    text = (by_dvc.folder / "params.yaml").read_text()
    by_dvc.params["experiments"]["mlp"]["train"]["seed"] = 7
    by_dvc.write_params()
    try:
        status = json.loads(by_dvc.run("dvc", "status", "--json").stdout)
        assert set(status) == {"train@mlp", "evaluate@mlp", "report"}
    finally:
        by_dvc.params["experiments"]["mlp"]["train"]["seed"] = 0
        (by_dvc.folder / "params.yaml").write_text(text)


def test_an_experiment_of_dvc_runs_with_a_parameter_set(by_dvc):
    done = by_dvc.run("dvc", "exp", "run", "-S", "experiments.k_means.config.n_init=2", "evaluate@k_means")
    assert "train@k_means" in done.stdout and "train@mlp" not in done.stdout.replace("'train@mlp' didn't change", "")
    by_dvc.run("git", "checkout", "-q", "params.yaml")
    by_dvc.run("dvc", "repro")


def test_a_second_flow_finds_nothing_to_do(by_flow):
    before = (by_flow.folder / "dvc.lock").read_bytes()
    done = by_flow.flow()
    assert (by_flow.folder / "dvc.lock").read_bytes() == before
    assert "Running stage" not in done.stdout + done.stderr


def test_the_end_of_the_flow_shows_leaderboard_text_and_the_way_on(by_flow):
    for part in ("| python_reference", "kneser_ney", "reports/", "make ui"):
        assert part in by_flow.output, part


def test_text_continues_a_prompt_and_fills_a_gap(by_flow):
    said = by_flow.genai(
        "sample", "text_diffusion", "--prompt", "The function returns", "--steps", "2", "--seed", "1"
    ).stdout
    assert said.startswith("The function returns")
    again = by_flow.genai(
        "sample", "text_diffusion", "--prompt", "The function returns", "--steps", "2", "--seed", "1"
    ).stdout
    assert said == again
    filled = by_flow.genai("sample", "text_diffusion", "--prompt", "The [[5]] returns", "--temperature", "0.5").stdout
    assert filled.startswith("The") and filled.rstrip("\n").endswith(" returns")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "cnnn"], "'cnnn' is not in experiments of params.yaml; did you mean cnn?"),
        (["prepare", "nothing"], "'nothing' is not in datasets of params.yaml; known: "),
        (["sample", "text_diffusion", "--prompt", ""], "--prompt: '' is empty"),
        (["sample", "text_diffusion", "--prompt", "word " * 400], "tokens where the model takes"),
        (["sample", "text_diffusion", "--steps", "0"], "sample.steps: 0 should be greater"),
        (["sample", "text_diffusion", "--temperature", "-1"], "sample.temperature: -1.0 should be greater"),
        (["sample", "text_autoregressive", "--prompt", "a [[3]] b"], "--prompt: "),
        (["sample", "cnn"], "generates nothing"),
        (["sample", "image_diffusion", "--prompt", "seven"], "an image model takes none"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_2(by_flow, arguments, line):
    done = by_flow.genai(*arguments, check=False)
    assert done.returncode == 2
    assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_images_are_written_as_a_grid(by_flow, tmp_path):
    by_flow.genai("sample", "image_diffusion", "--steps", "2", "--out", str(tmp_path / "grid.png"))
    from PIL import Image

    assert Image.open(tmp_path / "grid.png").size[0] > 0


def test_a_damaged_data_file_fails_in_one_line_and_the_next_run_mends_it(by_dvc):
    path = by_dvc.folder / "data" / "digits" / "test.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:100])
    done = by_dvc.genai("evaluate", "mlp", check=False)
    assert done.returncode == 2 and "missing or damaged" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    by_dvc.run("dvc", "repro")
    assert path.read_bytes() == whole


EDIT = """
import sys, time
sys.argv = ["genai", "prepare", "diabetes"]
from genai import __main__ as command
import genai.data.diabetes as source
prepare = source.prepare
def slow(config, folder):
    prepare(config, folder)
    with open(source.__file__, "a") as file:
        file.write("# edited\\n")
source.prepare = slow
sys.exit(command.main())
"""


def test_code_edited_while_its_stage_runs_fails_the_stage(by_dvc):
    path = by_dvc.folder / "genai" / "data" / "diabetes.py"
    text = path.read_text()
    try:
        done = subprocess.run(
            [sys.executable, "-c", EDIT], check=False, cwd=by_dvc.folder, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "genai/data/diabetes.py: changed while prepare@diabetes ran; run it again" in done.stderr
    finally:
        path.write_text(text)


def test_imports_run_one_way():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_exported_schema_is_current_and_accepts_the_parameters():
    import jsonschema

    from genai.schema import schema

    exported = json.loads((ROOT / "params.schema.json").read_text())
    assert exported == json.loads(json.dumps(schema())), "run: python -m genai schema"
    jsonschema.validate(PARAMS, exported)
    PARAMS["experiments"]["cnn"]["train"]["learning_rate"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(PARAMS, exported)
