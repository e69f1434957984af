"""Nearest training images of samples: has a generator only learnt them by heart?"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import SetMetric, embedding, in_blocks


class Neighbours(NamedTuple):
    """For N queries the ``k`` nearest of a set, nearest first: Euclidean distances and indices, (N, k) each."""

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, features: Tensor, k: int = 1) -> Neighbours:
    """Return the ``k`` nearest of features (M, D) to each query (N, D).

    Raises:
        ValueError: There are fewer than ``k``.
    """
    if not 1 <= k <= len(features):
        raise ValueError(f"k = {k} must be 1 to the number of images to search, {len(features)}")
    wide = features.double()

    def block(rows: Tensor) -> Tensor:
        return torch.stack(torch.cdist(rows, wide).topk(k, largest=False), 1)  # indices are exact in float64

    found = in_blocks(block, queries.double(), len(features))
    return Neighbours(found[:, 0], found[:, 1].long())


def nearest_images(
    samples: Tensor, training: Tensor, k: int = 1, network: str | nn.Module = "efficientnet_lite0"
) -> Neighbours:
    """Return the ``k`` nearest training images of each sample, as a network sees them or by "pixels".

    Args:
        samples: (N, C, H, W) in [0, 1].
        training: (M, C, H, W) in [0, 1].
        k: How many.
        network: A name for `img2img.metrics.distribution.Embedding`.

    Raises:
        ValueError: Unknown network, or fewer than ``k`` training images.
    """
    net = embedding(network)
    queries, features = (torch.cat([net.features(part) for part in each.split(64)]) for each in (samples, training))
    return nearest(queries, features, k)


class NeighbourDistance(SetMetric):
    """Mean distance of outputs to the nearest real image, over that of real images to the nearest other one.

    About 1 for new images of the same kind, 0 for copies. Neither more nor less is better: well under 1 against the
    training images tells of memorisation, well over 1 of outputs that look like none.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
    """

    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0"):
        super().__init__(network)

    def compute(self) -> float:
        """Return the ratio.

        Raises:
            ValueError: No outputs, or fewer than two real images.
        """
        own = nearest(self.real, self.real, 2).distances[:, 1].mean()
        return float(nearest(self.outputs, self.real).distances.mean() / own.clamp(min=1e-12))
