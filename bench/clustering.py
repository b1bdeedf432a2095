"""Clusters found without a label, beside the classes that they never saw: python -m bench.clustering.

Every method is given the same images, all of them, and is judged on them: the setting of t-SNE and Ward, which have no
`predict`. `genai train` gives the network the training split alone. Mean and deviation are over the seeds; CPU-seconds
of one fit, on one thread.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from genai.basics.k_means import KMeans
from genai.core.dataset import Description
from genai.neural_networks.autoencoder import Autoencoder
from genai.neural_networks.clustering import NeighborClustering
from genai.tasks.clustering import measure
from genai.training.gradient_descent.train import Config, descend

SEEDS = (0, 1, 2)
LARGE = 10_000  # the published test part of Fashion-MNIST
NEIGHBORS = {"n_clusters": 10, "widths": [256, 256], "n_neighbors": 3, "balance": 2.0}
MOVED = {"rotation": 15.0, "shift": 1.0, "zoom": 0.1}


def network(cls: Any, config: dict[str, Any], x: np.ndarray, seed: int, rate: float) -> Any:
    """Return a network trained on x (N, C, H, W) by the one loop."""
    torch.manual_seed(seed)
    model = cls(cls.Config(**config), Description(kind="images", shape=list(x.shape[1:])))
    numbers: dict[str, Any] = {"steps": 1000, "batch_size": 512, "learning_rate": rate, "validate_every": 1000}
    training = Config(method="gradient_descent", seed=seed, threads=1, **numbers)
    with tempfile.TemporaryDirectory() as work:
        return descend(model, {"x": x}, {"x": x[:512]}, training, Path(work), "")


def k_means(x: np.ndarray, seed: int) -> np.ndarray:
    return KMeans(n_clusters=10, n_init=10, random_state=seed).fit(x.reshape(len(x), -1)).labels_


def ward(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(10).fit_predict(x.reshape(len(x), -1))


def t_sne_k_means(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    return k_means(TSNE(random_state=seed).fit_transform(x.reshape(len(x), -1)).astype(np.float64), seed)


@torch.no_grad()
def autoencoder_k_means(x: np.ndarray, seed: int) -> np.ndarray:
    with torch.enable_grad():
        model = network(Autoencoder, {"widths": [256, 128], "embedding": 10}, x, seed, 2e-3)
    return k_means(model.features(torch.from_numpy(x)).double().numpy(), seed)


def neighbors_at_rest(x: np.ndarray, seed: int) -> np.ndarray:
    return network(NeighborClustering, NEIGHBORS, x, seed, 0.01).predict(torch.from_numpy(x)).numpy()


def neighbors_moved(x: np.ndarray, seed: int) -> np.ndarray:
    return network(NeighborClustering, NEIGHBORS | MOVED, x, seed, 0.01).predict(torch.from_numpy(x)).numpy()


METHODS: list[Callable[[np.ndarray, int], np.ndarray]] = [
    k_means, ward, t_sne_k_means, autoencoder_k_means, neighbors_at_rest, neighbors_moved,
]  # fmt: skip


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images[:, None].astype(np.float32) / 16, data.target


def fashion_mnist() -> tuple[np.ndarray, np.ndarray] | None:
    """Return the images of the data set that `genai prepare` wrote, or None."""
    from genai.core.dataset import Dataset

    if not (folder := Path("data/fashion_mnist")).exists():
        return None
    arrays = Dataset(folder).arrays("test")
    return arrays["x"][:LARGE], arrays["y"][:LARGE]


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| data | method | clustering accuracy | nmi | CPU-seconds |\n| --- | --- | ---: | ---: | ---: |")
    for name, load in (("digits", digits), ("fashion_mnist", fashion_mnist)):
        if (data := load()) is None:
            continue
        x, y = data
        for method in METHODS:
            metrics, seconds = [], []
            for seed in SEEDS[: 1 if method is ward else None]:  # which draws nothing
                start = time.process_time()
                with threadpool_limits(1):
                    clusters = method(x, seed)
                seconds.append(time.process_time() - start)
                metrics.append(measure(clusters, y)[0])
            figures = [
                f"{np.mean([m[key] for m in metrics]):.3f} ± {np.std([m[key] for m in metrics]):.3f}"
                for key in ("clustering_accuracy", "nmi")
            ]
            row = [f"{name} ({len(x):,})", method.__name__, *figures, f"{np.median(seconds):.1f}"]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
