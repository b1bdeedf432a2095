"""Three language models of one small text, masked diffusion, autoregressive, n-grams; a joint that can be enumerated."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from genai import model as models
from genai.commands import likelihood
from tests import project

AUTOREGRESSIVE = project.OF_TEXT | {
    "code": "genai/diffusion/text", "model": "autoregressive.Autoregressive", "steps": 3,
    "settings": {"layers": 1, "width": 8, "heads": 2},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "diffusion": {key: value for key, value in project.DIFFUSION.items() if key != "generator"},
    "control": AUTOREGRESSIVE,
    "n_gram": project.N_GRAM,
}


# texts of T tokens of V with any joint distribution P, and a denoiser that knows its conditionals
V, T = 3, 4
STATES = np.array(list(itertools.product(range(V), repeat=T)))
P = np.random.default_rng(0).dirichlet(np.full(len(STATES), 0.3))


def denoise(tokens, where):
    """Return log p(token of a position | the tokens that are not V, the mask) for the positions `where`."""
    rows, positions = where.nonzero().T.numpy()
    logits = []
    for row, position in zip(tokens.numpy()[rows], positions, strict=True):
        fits = ((row == V) | (row == STATES)).all(1)
        logits.append(np.log(np.bincount(STATES[fits, position], P[fits], minlength=V) / P[fits].sum()))
    return torch.tensor(np.array(logits))


def finish(root, **changes):
    """Write MODELS; the networks' weights are not zero anywhere, but they are not trained."""
    for name, numbers in MODELS.items():
        project.finish(root, name, **numbers | changes, scores=np.zeros(3))
        if "steps" in numbers:
            loaded = models.load(root / "models" / name)
            torch.manual_seed(0)
            for parameter in loaded.model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            models.write_arrays(root / "models" / name / "model.safetensors", models.state(loaded.model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    finish(root)
    return root


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(likelihood, "limit_threads", lambda threads: None)
    return folder
