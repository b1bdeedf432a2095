"""Each method of training, asked as the command does: with the same call, by the name that params.yaml gives."""

import importlib
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import genai
from genai.core.config import UserError, validate
from genai.core.dataset import Dataset, Description, write_arrays, write_json
from genai.training.environment import environment
from genai.training.gradient_descent import devices
from genai.training.gradient_descent.train import descend

ROOT = Path(__file__).parents[2]
NUMBERS = {
    "fit": {"method": "fit", "seed": 3, "threads": 1},
    "gradient_descent": {
        "method": "gradient_descent", "seed": 3, "threads": 1, "steps": 20, "batch_size": 4, "learning_rate": 0.1,
    },
}  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    description = Description(kind="images", shape=[1, 2, 2], classes=["0", "1"])
    write_json(tmp_path / "data" / "description.json", description.model_dump())
    rng = np.random.default_rng(0)
    for split, n in {"train": 20, "validation": 8, "test": 8}.items():
        y = rng.integers(2, size=n)
        write_arrays(
            tmp_path / "data" / f"{split}.safetensors", {"x": rng.random((n, 1, 2, 2), dtype=np.float32), "y": y}
        )
    return Dataset(tmp_path / "data")


class Linear(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch["x"].flatten(1)), batch["y"])


class Fitted:
    def fit(self, *given):
        self.given = given
        return self


def train(method, build, dataset, work, **changes):
    module = importlib.import_module(f"genai.training.{method}.train")
    config = validate(module.Config, NUMBERS[method] | changes, "train")
    work.mkdir(exist_ok=True)
    return module.train(build, dataset, config, work, "of the inputs")


def test_a_fitted_model_is_given_the_training_split_examples_flat(dataset, tmp_path):
    x, y = train("fit", Fitted, dataset, tmp_path).given
    expected = dataset.arrays("train")
    np.testing.assert_array_equal(x, expected["x"].reshape(20, 4))
    np.testing.assert_array_equal(y, expected["y"])


def test_a_fitted_text_model_is_given_the_tokens(tmp_path):
    class Text:
        description = Description(kind="text", shape=[4], vocabulary_size=9)

        def tokens(self, split):
            return {"train": np.arange(9)}[split]

    (tokens,) = train("fit", Fitted, Text(), tmp_path).given
    assert tokens.tolist() == list(range(9))


def test_a_network_is_built_under_the_seed_and_trained_on_the_training_split(dataset, tmp_path):
    torch.manual_seed(99)
    found = train("gradient_descent", Linear, dataset, tmp_path / "a")
    torch.manual_seed(3)
    from genai.training.gradient_descent.train import Config

    expected = descend(
        Linear(), dataset.arrays("train"), dataset.arrays("validation"),
        Config(**NUMBERS["gradient_descent"]), tmp_path / "a", "another",
    )  # fmt: skip
    assert torch.equal(found.weight, expected.weight)
    other = train("gradient_descent", Linear, dataset, tmp_path / "b", seed=4)
    assert not torch.equal(found.weight, other.weight)


@pytest.mark.parametrize("method", NUMBERS)
def test_a_misspelt_number_is_one_line(method, dataset, tmp_path):
    with pytest.raises(UserError, match="train.thread: unknown key; did you mean threads"):
        train(method, None, dataset, tmp_path, thread=1)


def test_the_environment_says_what_the_last_bits_depend_on():
    from genai.training.fit import train as fit
    from genai.training.gradient_descent import train as gradient_descent

    fitted = environment(fit.Config(**NUMBERS["fit"]))
    assert fitted["python"] == platform.python_version() and fitted["numpy"] == np.__version__
    assert fitted["genai"] == genai.__version__ and fitted["threads"] == 1
    assert fitted["device"].startswith("cpu ") and "torch" not in fitted
    numbers = NUMBERS["gradient_descent"]
    trained = [environment(gradient_descent.Config(**numbers, bf16=asked, compile=asked)) for asked in (True, False)]
    assert trained[0]["torch"] == torch.__version__ and trained[0]["processes"] == 1
    assert trained[0]["bf16"] is devices.has_bf16(devices.device())
    assert trained[0]["compiled"] is devices.has_compiler(devices.device())
    assert trained[1]["bf16"] is False and "compiled" not in trained[1]


def test_the_version_is_the_packages():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == genai.__version__


def test_fitting_does_not_wait_for_torch():
    code = "import sys, genai.training.fit.train as fit\nfrom genai.training.environment import environment\n"
    code += f"environment(fit.Config(**{NUMBERS['fit']}))\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
