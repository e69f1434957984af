"""Fidelity and diversity apart: how outputs and real images lie within each other's neighbourhoods."""

from functools import cached_property

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import SetMetric, enough, in_blocks


def radii(features: Tensor, k: int) -> Tensor:
    """Return each vector's distance to its ``k``-th nearest other one, (N, D) to (N,) float64.

    Raises:
        ValueError: There are no ``k`` others.
    """
    if k < 1:
        raise ValueError(f"k = {k} must be 1 or more")
    enough(features, k + 1, f"a neighbourhood of k = {k}")
    features = features.double()
    # The nearest of all is the vector itself.
    return in_blocks(lambda rows: torch.cdist(rows, features).kthvalue(k + 1, 1).values, features, len(features))


def share_within(points: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Return the share of points (N, D) within ``reach`` (M,) of at least one centre (M, D)."""
    points, centres = points.double(), centres.double()
    return float(
        in_blocks(lambda rows: (torch.cdist(rows, centres) <= reach).any(1), points, len(centres)).double().mean()
    )


def precision_recall(output: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall of features (N, D) against (M, D), each from 0 to 1.

    Precision is the share of outputs within some real image's distance to its ``k``-th nearest other real one; recall
    the same with the sets exchanged. Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, equations 1 and 2.

    Raises:
        ValueError: ``k`` or fewer vectors in one of them.
    """
    return share_within(output, real, radii(real, k)), share_within(real, output, radii(output, k))


def density_coverage(output: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Return density (0 or more, 1 for equal distributions) and coverage (0 to 1) of (N, D) against (M, D).

    Density counts in how many real neighbourhoods of ``k`` an output lies, over ``k``; coverage is the share of real
    images with an output in their neighbourhood. Naeem et al. 2020, https://arxiv.org/abs/2002.09797, section 3.

    Raises:
        ValueError: ``k`` or fewer real vectors.
    """
    reach = radii(real, k)
    return _density(output, real, reach, k), _coverage(output, real, reach)


def _density(output: Tensor, real: Tensor, reach: Tensor, k: int) -> float:
    output, real = output.double(), real.double()
    counts = in_blocks(lambda rows: (torch.cdist(rows, real) <= reach).sum(1), output, len(real))
    return float(counts.double().mean() / k)


def _coverage(output: Tensor, real: Tensor, reach: Tensor) -> float:
    output, real = output.double(), real.double()
    nearest = in_blocks(lambda rows: torch.cdist(rows, output).amin(1), real, len(output))
    return float((nearest <= reach).double().mean())


class _Manifold(SetMetric):
    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0", k: int = 3):
        super().__init__(network)
        if k < 1:
            raise ValueError(f"k = {k} must be 1 or more")
        self.k = k

    @cached_property
    def _reach(self) -> Tensor:
        return radii(self.real, self.k)


class Precision(_Manifold):
    """Share of outputs that look real; higher is better. See `precision_recall`.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
        k: Neighbours that make a neighbourhood.
    """

    def compute(self) -> float:
        """Return the share, 0 to 1.

        Raises:
            ValueError: ``k`` or fewer real images.
        """
        return share_within(self.outputs, self.real, self._reach)


class Recall(_Manifold):
    """Share of real images that could be outputs; higher is better. See `precision_recall`.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
        k: Neighbours that make a neighbourhood.
    """

    def compute(self) -> float:
        """Return the share, 0 to 1.

        Raises:
            ValueError: ``k`` or fewer outputs.
        """
        return share_within(self.real, self.outputs, radii(self.outputs, self.k))


class _Counted(_Manifold):
    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0", k: int = 5):
        super().__init__(network=network, k=k)


class Density(_Counted):
    """How densely real images lie around outputs; higher is better, 1 for equal distributions. See `density_coverage`.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
        k: Neighbours that make a neighbourhood.
    """

    def compute(self) -> float:
        """Return the density, 0 or more.

        Raises:
            ValueError: ``k`` or fewer real images.
        """
        return _density(self.outputs, self.real, self._reach, self.k)


class Coverage(_Counted):
    """Share of real images with an output nearby; higher is better. See `density_coverage`.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
        k: Neighbours that make a neighbourhood.
    """

    def compute(self) -> float:
        """Return the share, 0 to 1.

        Raises:
            ValueError: ``k`` or fewer real images.
        """
        return _coverage(self.outputs, self.real, self._reach)
