"""A project whose stages have run, made by hand: what the tests of tracking, serving and the pages stand on."""

import json
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from genai import model, tracking
from genai.core import config
from genai.core.config import Experiment
from genai.core.dataset import Description, write_arrays

TABLE = Description(kind="table", shape=[3])
IMAGES = Description(kind="images", shape=[1, 8, 8], classes=list("0123456789"))


def finish(
    root: Path,
    name: str,
    address: str = "basics.baselines.Mean",
    settings: dict | None = None,
    description: Description = TABLE,
    scores: np.ndarray | None = None,
    seed: int = 0,
    steps: int | None = None,
    sample: dict | None = None,
    data: str = "measured",
    tokenizer: Path | None = None,
) -> None:
    """Write the files of a trained and evaluated experiment, and dvc.lock as DVC would."""
    code = f"genai/{address.rpartition('.')[0].replace('.', '/')}.py"
    train = {"seed": seed, "threads": 1} | ({"steps": steps, "batch_size": 4, "learning_rate": 1e-3} if steps else {})
    section = {"data": data, "model": address, "code": code, "judge": name, "config": settings or {}, "train": train}
    section |= {"sample": sample} if sample else {}
    experiment = config.validate(Experiment, section, name)
    rng = np.random.default_rng(0)
    folder = root / "data" / data
    folder.mkdir(parents=True, exist_ok=True)
    if steps:
        import torch

        torch.manual_seed(seed)
    built = model.build(name, experiment, description)
    if description.kind != "text":
        y = rng.integers(10, size=40) if description.kind == "images" else rng.random(40)
        arrays = {"x": rng.random((40, *description.shape), dtype=np.float32), "y": y}
        (folder / "description.json").write_text(description.model_dump_json())
        write_arrays(folder / "validation.safetensors", arrays)
        if not steps:
            built.fit(arrays["x"], arrays["y"], seed)
    models = root / "models" / name
    model.save(models, name, experiment, description, built, tokenizer)
    if steps:
        (models / "history.csv").write_text(history(range(1, steps + 1)))
    scores = np.random.default_rng(seed).random(50) if scores is None else scores
    for folder_name in ("metrics", "scores"):
        (root / folder_name).mkdir(exist_ok=True)
    metric = "accuracy" if description.kind == "images" else "r2"
    (root / "metrics" / f"{name}.json").write_text(
        json.dumps({metric: float(1 - scores.mean()), "examples": len(scores)})
    )
    rows = "".join(f"{i},{score:.9g}\n" for i, score in enumerate(scores))
    (root / "scores" / f"{name}.csv").write_text("example,score\n" + rows)
    params = {"params.yaml": {f"experiments.{name}": section}}
    entries = {
        f"train@{name}": _entry(root, "train", name, params, [f"data/{data}"], [f"models/{name}"]),
        f"evaluate@{name}": _entry(
            root,
            "evaluate",
            name,
            params,
            [f"data/{data}", f"models/{name}"],
            [f"metrics/{name}.json", f"scores/{name}.csv"],
        ),
    }
    if (root / "samples" / name).exists():
        entries[f"sample@{name}"] = _entry(root, "sample", name, params, [f"models/{name}"], [f"samples/{name}"])
    lock(root, entries)


def lock(root: Path, entries: dict) -> None:
    path = root / "dvc.lock"
    content = YAML(typ="safe").load(path.read_text()) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"] |= entries
    YAML().dump(content, path)


def history(steps: range, shift: float = 0.0) -> str:
    rows = "".join(f"{step},{1 / step + shift:.6g},{2 / step + shift:.6g},0.001\n" for step in steps)
    return "step,train_loss,validation_loss,learning_rate\n" + rows


def _entry(root: Path, command: str, name: str, params: dict, deps: list[str], outs: list[str]) -> dict:
    def hashed(paths: list[str]) -> list[dict]:
        return [{"path": path, "hash": "md5", "md5": tracking._md5(root / path)} for path in paths]

    return {"cmd": f"python -m genai {command} {name}", "deps": hashed(deps), "params": params, "outs": hashed(outs)}
