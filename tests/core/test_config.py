"""params.yaml: what is right loads, and each mistake gets one line that names path, value and what is right."""

import copy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from genai.commands.check import check as check_all
from genai.core import config
from genai.core.config import UserError

GRADIENT = {
    "method": "gradient_descent", "seed": 0, "threads": 1, "steps": 10, "batch_size": 8, "learning_rate": 1e-3,
}  # fmt: skip
GOOD = {
    "datasets": {
        "diabetes": {"kind": "table", "source": "genai/data/diabetes.py", "validation": 0.2, "test": 0.2, "seed": 0},
        "digits": {"kind": "images", "source": "genai/data/digits.py", "validation": 0.2, "test": 0.2, "seed": 0},
    },
    "experiments": {
        "cnn": {
            "data": "digits",
            "task": "classification",
            "code": "genai/cnn/classifier.py",
            "model": "ConvNet",
            "config": {"channels": [8], "n_features": 8},
            "train": GRADIENT,
        },
        "images": {
            "data": "digits",
            "task": "image_diffusion",
            "code": "genai/diffusion/image",
            "model": "model.ImageDiffusion",
            "config": {"process": "flow_matching", "channels": [8], "n_embedding": 8},
            "train": GRADIENT,
        },
        "mean": {
            "data": "diabetes",
            "task": "regression",
            "code": "genai/basics/baselines.py",
            "model": "Mean",
            "config": {},
            "train": {"method": "fit", "seed": 0, "threads": 1},
        },
    },
    "generators": {
        "images": {
            "task": "image_generation",
            "judge": "cnn",
            "real": "digits",
            "sampling": {"steps": 2, "seed": 0},
            "show": {"per_class": 1},
            "grade": {"n": 10},
        },
    },
    "looks": {"cnn": {"code": "genai/cnn/look.py", "data": "digits", "images": 2}},
}


def check(tmp_path, values) -> None:
    path = tmp_path / "params.yaml"
    with open(path, "w") as file:
        YAML().dump(values, file)
    check_all(config.load(path))


def changed(path: str, value) -> dict:
    values = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return values


def test_good_parameters_load_frozen(tmp_path):
    check(tmp_path, GOOD)
    params = config.load(tmp_path / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.experiments["cnn"].train.steps = 3


@pytest.mark.parametrize("project", [".", "tables", "vision"])
def test_the_projects_of_this_repository_are_sound(project):
    folder = config.ROOT / project
    check_all(config.load(folder / "params.yaml"))
    for link in ("dvc.yaml", "flows", "genai"):
        assert (folder / link).samefile(config.ROOT / link)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("experiments.cnn.train.learning_rate", -1, r"experiments\.cnn\.train\.learning_rate: -1 should be greater than 0"),
        ("experiments.cnn.train.learning_rate", "fast", r"cnn\.train\.learning_rate: 'fast' should be a valid number"),
        ("experiments.cnn.train.steps", 2.5, r"cnn\.train\.steps: 2\.5 should be a valid integer"),
        ("experiments.cnn.train.steps", True, r"cnn\.train\.steps: True should be a valid integer"),
        ("experiments.cnn.train.learning_rat", 1.0, r"cnn\.train\.learning_rat: unknown key; did you mean learning_rate\?"),
        ("experiments.cnn.train.seed", None, r"experiments\.cnn\.train\.seed: missing"),
        ("experiments.cnn.train.batch_size", None, r"experiments\.cnn\.train\.batch_size: missing"),
        ("experiments.cnn.train", [], r"experiments\.cnn\.train: \[\] should be a map of keys and values"),
        ("experiments.cnn.train", 3, r"experiments\.cnn\.train: 3 should be a map of keys and values"),
        ("experiments.cnn.train", {}, r"experiments\.cnn\.train\.method: missing"),
        ("experiments.cnn.train.method", "magic", r"train\.method: 'magic' should be one of fit, gradient_descent"),
        ("experiments.cnn.train.method", "fit", r"experiments\.cnn\.train\.method: 'fit' should be 'gradient_descent'"),
        ("experiments.mean.train.method", "gradient_descent", r"experiments\.mean\.train\.method: 'gradient_descent' should be 'fit'"),
        ("experiments.cnn.dat", "x", r"experiments\.cnn\.dat: unknown key; did you mean data\?"),
        ("experiments.cnn.data", "digit", r"experiments\.cnn\.data: 'digit' is not a key of datasets; known: diabetes, digits"),
        ("experiments.cnn.data", "diabetes", r"experiments\.cnn\.data: 'diabetes' holds table; .* takes images"),
        ("experiments.cnn.task", "sorting", r"experiments\.cnn\.task: 'sorting' should be a file of genai/tasks: .*classification"),
        ("experiments.cnn.task", "regression", r"experiments\.cnn\.task: 'regression' should be 'classification', what ConvNet does"),
        ("experiments.cnn.code", "x.py", r"experiments\.cnn\.code: 'x\.py' String should match"),
        ("experiments.cnn.code", "genai/cnn/other.py", r"experiments\.cnn\.code: .* there is no file genai/cnn/other\.py"),
        ("experiments.cnn.code", "genai/cnn", r"experiments\.cnn\.model: 'ConvNet': in the folder genai/cnn it should be like classifier\.ConvNet"),
        ("experiments.cnn.model", "ConvNets", r"experiments\.cnn\.model: 'ConvNets' is not a model in .*; known: ConvNet"),
        ("experiments.cnn.config.chanels", [8], r"experiments\.cnn\.config\.chanels: unknown key; did you mean channels\?"),
        ("experiments.cnn.config.channels", [0], r"experiments\.cnn\.config\.channels\.0: 0 should be greater than or equal to 1"),
        ("experiments.cnn.sample", {"n": 1}, r"experiments\.cnn\.sample: unknown key"),
        ("experiments.mean.train.steps", 3, r"experiments\.mean\.train\.steps: unknown key"),
        ("generators.images.judge", "me", r"generators\.images\.judge: 'me' is not a key of experiments"),
        ("generators.images.judge", "mean", r"generators\.images\.judge: 'mean' has no features, which a judge of this task needs"),
        ("generators.images.real", "diabetes", r"generators\.images\.real: 'diabetes', judge and model should be of one kind"),
        ("generators.images.task", "text_generation", r"generators\.images\.task: 'text_generation' should be 'image_generation'"),
        ("generators.images.sampling.steps", 10**7, r"generators\.images\.sampling\.steps: 10000000 should be less than or equal to"),
        ("generators.images.show.per_clas", 1, r"generators\.images\.show\.per_clas: unknown key; did you mean per_class\?"),
        ("generators.images.grade.n", 0, r"generators\.images\.grade\.n: 0 should be greater"),
        ("generators.cnn", {**GOOD["generators"]["images"]}, r"generators\.cnn: ConvNet generates nothing"),
        ("generators.other", {**GOOD["generators"]["images"]}, r"generators\.other: 'other' is not a key of experiments"),
        ("datasets.digits.source", "genai/data/digit.py", r"datasets\.digits\.source: 'digit' should be a file of genai/data: .*digits"),
        ("datasets.digits.source", "digits", r"datasets\.digits\.source: 'digits': no such file .*; did you mean genai/data/digits\.py\?"),
        ("datasets.digits.source", "photos", r"datasets\.digits\.source: 'photos': no such file .*; should be of yours, or like genai/data/digits"),
        ("datasets.digits.source", "genai/data/text.py", r"datasets\.digits\.kind: 'images' should be of a source"),
        ("datasets.digits.source", "genai/cnn/classifier.py", r"datasets\.digits\.source: 'genai/cnn/classifier.py' should be a file of genai/data"),
        ("datasets.digits.kind", "table", r"datasets\.digits\.kind: 'table' should be 'images', what genai/data/digits.py holds"),
        ("datasets.digits.test", 1.5, r"datasets\.digits\.test: 1\.5 should be less than"),
        ("looks.cnn.data", "diabetes", r"looks\.cnn\.data: 'diabetes' should be 'digits', the experiment's"),
        ("looks.other", GOOD["looks"]["cnn"], r"looks\.other: 'other' is not a key of experiments"),
        ("looks.images", GOOD["looks"]["cnn"], r"looks\.images\.code: 'genai/cnn/look.py' draws a ConvNet; 'images' is a ImageDiffusion"),
        ("looks.cnn.code", "genai/cnn/lok.py", r"looks\.cnn\.code: 'genai/cnn/lok.py': there is no such file"),
        ("looks.cnn.code", "genai/cnn/classifier.py", r"looks\.cnn\.code: .* should be a file with LOOKS_AT"),
        ("looks.cnn.mistake", 3, r"looks\.cnn\.mistake: unknown key; did you mean mistakes\?"),
        ("looks.cnn.channels", 0, r"looks\.cnn\.channels: 0 should be greater"),
        ("datasets", None, r"datasets: missing"),
        ("models", {}, r"models: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_with_path_value_and_what_is_right(tmp_path, path, value, line):
    with pytest.raises(UserError, match=line) as caught:
        check(tmp_path, changed(path, value))
    assert "\n" not in str(caught.value)


def test_a_way_of_writing_that_cannot_be_is_told_before_anything_runs(tmp_path):
    values = config.read_params(config.ROOT / "params.yaml")
    values["generators"]["text_diffusion"]["show"]["replay"] = [{"block": 4}, {"sampler": "ddim"}]
    with pytest.raises(UserError, match=r"generators\.text_diffusion\.show\.replay\.1\.sampler: 'ddim' should be"):
        check(tmp_path, values)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1,", r"params\.yaml:2:\d+: not YAML"),
        ("a: 1\na: 2\n", r"params\.yaml:2:1: not YAML: found duplicate key"),
        ("- 1\n", "should be a map"),
        ("", "should be a map"),
    ],
)
def test_a_broken_file_is_placed(tmp_path, text, line):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        config.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        config.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        config.load(tmp_path / "params.yaml")


def test_a_path_of_ones_own_is_read_by_the_file_of_its_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = config.DatasetConfig(kind="table", source="houses.csv")
    with pytest.raises(UserError, match="datasets.mine.source: 'houses.csv': no such file or folder"):
        config.load_source(section, "datasets.mine")
    for name in ("houses.csv.dvc", "houses.csv"):  # what `dvc add` left and `dvc pull` brings, then the file
        (tmp_path / name).touch()
        module, path = config.load_source(section, "datasets.mine")
        assert module.__name__ == "genai.data.table" and path == Path("houses.csv")
        (tmp_path / name).unlink()
