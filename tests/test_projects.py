"""`make vision`, `make tables` and `make text` share one MLflow with the root, and vision's classifiers are trained from three seeds."""

import json
from collections import defaultdict

import pytest

from genai.core.config import ROOT, load


@pytest.mark.parametrize("project", ["tables", "text", "vision"])
def test_no_experiment_has_the_name_of_one_of_the_root(project):
    assert not load(ROOT / project / "params.yaml").experiments.keys() & load(ROOT / "params.yaml").experiments.keys()


def test_each_classifying_network_is_trained_from_three_seeds_and_differs_in_nothing_else():
    seeds = defaultdict(list)
    for experiment in load(ROOT / "vision" / "params.yaml").experiments.values():
        whole = experiment.model_dump()
        seed = whole["train"].pop("seed")
        if experiment.train.method == "gradient_descent" and experiment.task == "classification":
            seeds[json.dumps(whole, sort_keys=True)].append(seed)
    assert sorted(seeds.values()) == [[0, 1, 2]] * 3
