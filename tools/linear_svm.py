"""Judge what a network has learnt of images: a linear support vector machine on its features, and on raw pixels.

For example: python tools/linear_svm.py runs/dcgan --data data/fashion
An encoder: python tools/linear_svm.py runs/bigan --role encoder --data data/digits
Needs scikit-learn: pip install 'img2img[test]'
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img import checkpoint
from img2img.data.images import signed
from img2img.data.labelled import Labelled
from img2img.recipe import locate, read
from img2img.systems.system import build, weights_of

COSTS = (1e-5, 1e-4, 1e-3, 1e-2)
"""Weights of the errors to choose from."""


def trained(source: Path, role: str) -> tuple[nn.Module, int, int]:
    """Return a network of a checkpoint or run folder, frozen, and the side and channels of its images.

    Raises:
        ValueError: there is no such network in it.
    """
    path = source / "last.safetensors" if source.is_dir() else locate(source, weights=True)
    recipe = read(path)
    tensors = weights_of(path, role)
    if not tensors:
        raise ValueError(f"{path}: holds no {role}; a run's last.safetensors holds all of {', '.join(recipe.networks)}")
    network = getattr(build(recipe), role)
    checkpoint.fit(network, tensors, str(path))
    return network.eval().requires_grad_(False), recipe.data.size, recipe.data.channels


@torch.inference_mode()
def features(network: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Return the values after all activations of a network, feature maps as the maxima of a 4 x 4 grid, (N, F).

    Radford et al. 2015 (https://arxiv.org/abs/1511.06434), section 5.1. A network whose activations are no layers of
    their own gives what its method ``features`` does.

    Args:
        network: takes images.
        images: (N, C, H, W) in [-1, 1].
        batch: how many at once.
    """
    found: list[Tensor] = []

    def keep(layer: nn.Module, given: tuple, values: Tensor) -> None:
        found.append((functional.adaptive_max_pool2d(values, 4) if values.dim() == 4 else values).flatten(1).clone())

    hooks = [
        layer.register_forward_hook(keep) for layer in network.modules() if isinstance(layer, nn.ReLU | nn.LeakyReLU)
    ]
    rows = []
    for part in images.split(batch):
        found.clear()
        network(part)
        rows.append(torch.cat(found, 1) if found else network.features(part))
    for hook in hooks:
        hook.remove()
    return torch.cat(rows)


def accuracy(learnt: np.ndarray, labels: np.ndarray, judged: np.ndarray, truth: np.ndarray, seed: int = 0) -> float:
    """Return the share of rows that one-against-all linear SVMs with squared hinge read right, 0 to 1.

    Columns are brought to mean 0 and deviation 1; the weight of the errors is what reads a fifth of the training rows
    best, which is then learnt from too.

    Args:
        learnt: training rows (N, F).
        labels: their classes (N,).
        judged: other rows (M, F).
        truth: their classes (M,).
        seed: of the fifth.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ValueError("linear SVMs need scikit-learn: pip install 'img2img[test]'") from error
    machine = make_pipeline(StandardScaler(), LinearSVC(dual=False, tol=1e-3))
    split = StratifiedShuffleSplit(1, test_size=0.2, random_state=seed)
    search = GridSearchCV(machine, {"linearsvc__C": COSTS}, cv=split)
    return float(search.fit(learnt, labels).score(judged, truth))


def drawn(folder: Path, size: int, channels: int, count: int) -> tuple[Tensor, np.ndarray]:
    """Return ``count`` images of a labelled folder, evenly spread, in [-1, 1], and their classes."""
    data = Labelled(folder, size, channels)
    places = np.unique(np.linspace(0, len(data) - 1, min(count or len(data), len(data))).round().astype(int))
    return torch.stack([signed(data.images[int(place)]) for place in places]), data.labels[places].numpy()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("--data", required=True, type=Path, help="labelled folder with train/ and validation/")
    parser.add_argument("--role", default="discriminator", help="the network to judge (default discriminator)")
    parser.add_argument("--images", type=int, default=10_000, help="of each folder, evenly spread; 0 for all")
    a = parser.parse_args()
    try:
        network, size, channels = trained(a.run, a.role)
        sets = [drawn(a.data / part, size, channels, a.images) for part in ("train", "validation")]
        (learnt, labels), (judged, truth) = sets
        table = {"images": len(learnt), "judged": len(judged)}
        for name, rows in (("pixels", lambda x: x.flatten(1)), (a.role, lambda x: features(network, x))):
            ours, theirs = rows(learnt), rows(judged)
            table[name] = round(accuracy(ours.numpy(), labels, theirs.numpy(), truth), 4)
            table[f"{name}_values"] = ours.shape[1]
    except (ValueError, OSError) as error:
        parser.exit(1, f"linear_svm: {error}\n")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
