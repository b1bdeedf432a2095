"""`make vision` is the same project on other data: its params.yaml holds together, and with the root's in one MLflow."""

import json
from collections import defaultdict

from genai.commands.check import check
from genai.core.config import ROOT, load

FOLDER = ROOT / "vision"


def test_its_parameters_are_valid_and_it_has_the_graph_and_the_code_of_the_root():
    check(load(FOLDER / "params.yaml"))
    for name in ("dvc.yaml", "genai", "flows"):
        assert (FOLDER / name).resolve() == ROOT / name


def test_no_experiment_has_the_name_of_one_of_the_root():
    assert not load(FOLDER / "params.yaml").experiments.keys() & load(ROOT / "params.yaml").experiments.keys()


def test_each_network_is_trained_from_three_seeds_and_differs_in_nothing_else():
    seeds = defaultdict(list)
    for experiment in load(FOLDER / "params.yaml").experiments.values():
        whole = experiment.model_dump()
        seed = whole["train"].pop("seed")
        if experiment.train.method == "gradient_descent":
            seeds[json.dumps(whole, sort_keys=True)].append(seed)
    assert sorted(seeds.values()) == [[0, 1, 2]] * 3
