"""The convolutional network on all 1,797 digits, five folds, each recipe in three seeds: python -m bench.folds [development].

Each digit is classified once a seed, by a network trained on the four folds that it is not in; a seed draws the folds, too.
With `development` the digits are those of train and validation alone (`genai prepare digits`): there recipes are chosen.
CPU-seconds are of one training, on one thread.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from genai.cnn.classifier import ConvNet
from genai.core.config import load, validate
from genai.core.dataset import Dataset, Description
from genai.training.gradient_descent.train import Config, descend

SEEDS = (0, 1, 2)
DESCRIPTION = Description(kind="images", shape=[1, 8, 8], classes=[str(digit) for digit in range(10)])
WIDE = {"channels": [32, 64], "n_features": 128}  # and what else `cnn` of params.yaml has
LONG = {"steps": 1000, "bf16": True}


def digits(splits: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 1, 8, 8) in [0, 1] and labels of these splits; of none, all that there are."""
    if not splits:
        data = load_digits()
        return data.images[:, None].astype(np.float32) / 16, data.target
    arrays = [Dataset(Path("data/digits")).arrays(split) for split in splits]
    return np.concatenate([a["x"] for a in arrays]), np.concatenate([a["y"] for a in arrays])


def trained(config: dict[str, Any], training: Config, x: np.ndarray, y: np.ndarray) -> Any:
    """Return a network trained on these by the one loop; it keeps no validation, and stops by steps."""
    torch.manual_seed(training.seed)
    model = ConvNet(validate(ConvNet.Config, config, "config"), DESCRIPTION)
    arrays = {"x": x, "y": y}
    with tempfile.TemporaryDirectory() as work:
        return descend(model, arrays, arrays, training, Path(work), "")


def accuracy(config: dict[str, Any], numbers: dict[str, Any], x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the share of all digits that is classified rightly, and the CPU-seconds of a training."""
    training = validate(Config, numbers | {"validate_every": numbers["steps"]}, "train")
    folds = StratifiedKFold(5, shuffle=True, random_state=training.seed)
    right, start = 0, time.process_time()
    for train, held_out in folds.split(x, y):
        model = trained(config, training, x[train], y[train])
        prediction = model.predict_proba(torch.from_numpy(x[held_out])).argmax(1).numpy()
        right += int(np.count_nonzero(prediction == y[held_out]))
    return right / len(y), (time.process_time() - start) / folds.n_splits


def main() -> None:
    torch.set_num_threads(1)
    cnn = load().experiments["cnn"]
    numbers = cnn.train.model_dump()
    x, y = digits(["train", "validation"] if "development" in sys.argv else [])
    print(f"| recipe ({len(y):,} digits) | seeds, % | mean, % | sd | CPU-seconds |\n| --- | --- | ---: | ---: | ---: |")
    for name, config, training in (("cnn", {}, {}), ("wide and long", WIDE, LONG)):
        found = [accuracy(cnn.config | config, numbers | training | {"seed": seed}, x, y) for seed in SEEDS]
        share, seconds = 100 * np.array(found).T[0], np.median(np.array(found).T[1])
        each = ", ".join(f"{one:.2f}" for one in share)
        print(f"| {name} | {each} | {share.mean():.2f} | {share.std(ddof=1):.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
