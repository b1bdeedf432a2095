"""The whole of it, as a user runs it: one DAG by two runners, its figures, what it shows, and mistakes in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
METRICS = {
    "metrics/ridge.json": {"r2", "r2_se", "rmse", "examples"},
    "metrics/cnn.json": {"accuracy", "accuracy_se", "log_loss", "examples"},
    "metrics/k_means.json": {"clustering_accuracy", "clustering_accuracy_se", "nmi", "examples"},
    "metrics/kneser_ney.json": {"bpc", "bpc_se", "characters"},
    "metrics/text_diffusion.json": {"nelbo_bpc", "nelbo_bpc_se", "characters"},
    "metrics/image_diffusion.json": {"denoising_error", "denoising_error_se", "denoising_error_constant", "examples"},
    "grades/text_diffusion.json": {"judge_gap", "judge_bpc", "judge_bpc_real", "distinct_2", "distinct_2_real"},
    "grades/image_diffusion.json": {
        "label_accuracy",
        "classification_accuracy",
        "kernel_distance",
        "kernel_floor",
        "frechet",
        "density",
        "coverage",
        "memorization",
    },
}


def test_flow_and_dvc_repro_give_the_same_lock_and_figures_byte_for_byte(by_flow, by_dvc):
    assert (by_flow.folder / "dvc.lock").read_bytes() == (by_dvc.folder / "dvc.lock").read_bytes()
    for path in METRICS:
        assert (by_flow.folder / path).read_bytes() == (by_dvc.folder / path).read_bytes()


def test_every_experiment_has_its_figures_on_validation_and_on_test(by_dvc):
    shown = json.loads(by_dvc.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {f"metrics/{name}.json" for name in by_dvc.params["experiments"]} | {
        f"grades/{name}.json" for name in by_dvc.params["generators"]
    }
    for file, expected in METRICS.items():
        for split in ("validation", "test"):
            assert expected <= shown[file]["data"][split].keys(), file


def test_a_fresh_clone_knows_the_figures_that_were_committed(by_dvc, tmp_path):
    by_dvc.run("git", "add", "-A")
    by_dvc.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "figures")
    by_dvc.run("git", "clone", "-q", str(by_dvc.folder), str(tmp_path / "clone"))
    path = tmp_path / "clone" / "metrics" / "mean.json"
    assert json.loads(by_dvc.run("dvc", "metrics", "diff", "--json", cwd=tmp_path / "clone").stdout) == {}
    path.write_text(path.read_text().replace("rmse", "other"))
    changed = json.loads(by_dvc.run("dvc", "metrics", "diff", "--json", cwd=tmp_path / "clone").stdout)
    assert "test.rmse" in changed["metrics/mean.json"]


def test_dvc_shows_a_plot_for_each_curve_confusion_matrix_and_figure(by_dvc, tmp_path):
    shown = json.loads(by_dvc.run("dvc", "plots", "show", "--json", "-o", str(tmp_path)).stdout)
    assert not shown.get("errors")
    trained = {name for name, e in by_dvc.params["experiments"].items() if e["train"]["method"] == "gradient_descent"}
    classifiers = {name for name, e in by_dvc.params["experiments"].items() if e["task"] == "classification"}
    plots = set(shown["data"])
    regressions = {name for name, e in by_dvc.params["experiments"].items() if e["task"] == "regression"}
    tables = {plot.partition("::")[2] or plot for plot in plots}
    for kind, names in {"curves": trained, "confusion": classifiers, "residuals": regressions}.items():
        assert {f"reports/plots/{kind}/{name}.csv" for name in names} <= tables, plots
    assert "reports/plots/calibration/cnn.csv" in tables
    assert {f"figures/{name}/confusion.png" for name in classifiers} | {"reports/figures/curves.png"} <= plots
    assert by_dvc.run("dvc", "params", "diff").stdout.strip() == ""


def test_an_experiment_of_dvc_runs_with_a_parameter_set(by_dvc):
    done = by_dvc.run("dvc", "exp", "run", "-S", "experiments.k_means.config.n_init=2", "evaluate@k_means")
    assert "Running stage 'train@k_means'" in done.stdout and "Running stage 'train@mlp'" not in done.stdout
    by_dvc.run("git", "checkout", "-q", "params.yaml")
    by_dvc.run("dvc", "repro")


def test_a_second_flow_finds_nothing_to_do(by_flow):
    before = (by_flow.folder / "dvc.lock").read_bytes()
    done = by_flow.flow()
    assert (by_flow.folder / "dvc.lock").read_bytes() == before
    assert "Running stage" not in done.stdout + done.stderr


def test_the_end_of_the_flow_shows_leaderboard_text_and_the_way_on(by_flow):
    for part in (
        "scripture: language model",
        "kneser_ney",
        "text_diffusion writes:",
        "reports/index.html",
        "make ui",
    ):
        assert part in by_flow.output, part
    (cnn,) = (line.split() for line in by_flow.output.splitlines() if line.split()[:1] == ["cnn"])
    assert float(cnn[-1]) > 0  # CPU-seconds
    page = (by_flow.folder / "reports" / "index.html").read_text(encoding="utf-8")
    assert f"{cnn[-1]} CPU-s" in page and 'alt="cnn: confusion.' in page and len(page) < 5e6


def test_text_continues_a_prompt_and_fills_a_gap(by_flow, tmp_path):
    ask = ["sample", "text_diffusion", "--sampler", "ancestral", "--steps", "2", "--seed", "1"]
    ask += ["--prompt", "The function returns"]
    said = by_flow.genai(*ask).stdout
    assert said.startswith("The function returns") and len(said) > 40
    assert by_flow.genai(*ask).stdout == said
    filled = by_flow.genai("sample", "text_diffusion", "--prompt", "The [[5]] returns", "--temperature", "0.5").stdout
    assert filled.startswith("The") and filled.rstrip("\n").endswith(" returns")
    printed = by_flow.genai(*ask, "--out", str(tmp_path / "text")).stdout
    assert printed == f"{tmp_path / 'text'}\n" and (tmp_path / "text").read_text() == said


def test_sampling_by_hand_leaves_the_stages_outputs_alone(by_flow):
    before = {path: path.read_bytes() for path in (by_flow.folder / "samples").rglob("*") if path.is_file()}
    assert by_flow.genai("sample", "text_diffusion").stdout.strip()
    assert {path: path.read_bytes() for path in (by_flow.folder / "samples").rglob("*") if path.is_file()} == before


def test_how_texts_were_written_stands_with_the_samples_and_on_the_page(by_flow):
    page = (by_flow.folder / "reports" / "index.html").read_text(encoding="utf-8")
    for name in ("text_diffusion", "text_autoregressive"):
        left = {path.name for path in (by_flow.folder / "samples" / name).iterdir()}
        assert {"replay.json", "replay.html", "denoising.gif"} <= left and f'{{"name":"{name}","traces":' in page


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "cnnn"], "'cnnn' is not in experiments of params.yaml; did you mean cnn?"),
        (["prepare", "nothing"], "'nothing' is not in datasets of params.yaml; known: "),
        (["sample", "text_diffusion", "--prompt", ""], "prompt: '' is empty"),
        (["sample", "text_diffusion", "--prompt", "word " * 400], "tokens where the model takes"),
        (["sample", "text_diffusion", "--steps", "0"], "sampling.steps: 0 should be greater"),
        (["sample", "text_diffusion", "--steps", "10000000"], "sampling.steps: 10000000 should be less"),
        (["sample", "text_diffusion", "--temperature", "-1"], "sampling.temperature: -1.0 should be greater"),
        (["sample", "text_autoregressive", "--guidance", "2"], "--guidance: text_autoregressive has no such number"),
        (["sample", "text_autoregressive", "--prompt", "a [[3]] b"], "prompt: "),
        (["sample", "cnn"], "'cnn' is not in generators of params.yaml"),
        (["sample", "image_diffusion", "--prompt", "seven"], "an image model takes none"),
        (["sample", "models:/nothing@champion"], "models:/nothing@champion"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_2(by_flow, arguments, line):
    done = by_flow.genai(*arguments, check=False)
    assert done.returncode == 2
    assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_images_are_written_as_a_grid_of_ten_a_class(by_flow, tmp_path):
    out = tmp_path / "grid.png"
    assert by_flow.genai("sample", "image_diffusion", "--steps", "1", "--out", str(out)).stdout == f"{out}\n"
    assert Image.open(out).size == (400, 400)


def test_a_model_whose_code_was_edited_is_not_used(by_dvc):
    path = by_dvc.folder / "genai/neural_networks/mlp.py"
    text = path.read_text()
    path.write_text(text + "# edited\n")
    done = by_dvc.genai("evaluate", "mlp", check=False)
    path.write_text(text)
    assert done.returncode == 2 and "is not as it was in training; run: dvc repro train@mlp" in done.stderr


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
import sys
sys.argv = ["genai", "prepare", "diabetes"]
from genai import __main__ as command
from genai.commands import prepare
load_source = prepare.load_source
def edited_later(*names):
    source, own = load_source(*names)
    write = source.prepare
    def slow(config, folder):
        write(config, folder)
        with open(source.__file__, "a") as file:
            file.write("# edited\\n")
    source.prepare = slow
    return source, own
prepare.load_source = edited_later
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

    from genai.commands.schema import schema

    exported = json.loads((ROOT / "params.schema.json").read_text())
    assert exported == json.loads(json.dumps(schema())), "run: python -m genai schema"
    jsonschema.validate(PARAMS, exported)
    wrong = json.loads(json.dumps(PARAMS))
    wrong["experiments"]["cnn"]["train"]["learning_rate"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, exported)
