"""Mode collapse in numbers: how many of the things that there are do outputs show, and how evenly?"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import ClassMetric


def class_modes(labels: Tensor, classes: int) -> tuple[int, float]:
    """Return how many of ``classes`` occur in labels (N,), and KL(labels || uniform) in nats, 0 to log(classes).

    As Metz et al. 2016 count them in stacked digits, https://arxiv.org/abs/1611.02163, section 3.3. Even labels of a
    uniform source have a divergence over 0, about (classes - 1) / 2N while N is well over ``classes``.

    Raises:
        ValueError: No labels, or one that is no class.
    """
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"expected labels from 0 to {classes - 1}, at least one")
    counts = torch.bincount(labels.flatten(), minlength=classes)
    shares = counts.double() / counts.sum()
    return int((counts > 0).sum()), float(torch.xlogy(shares, shares * classes).sum())


def mixture_modes(points: Tensor, centres: Tensor, sigma: float, reach: float = 3.0) -> tuple[int, float]:
    """Return how many modes of a Gaussian mixture points show, and the share of points near one (high quality).

    A point is near the mode of the nearest centre when it is within ``reach`` standard deviations of it, and a mode
    counts when a point is near it: Srivastava et al. 2017 (VEEGAN), https://arxiv.org/abs/1705.07761, section 4.

    Args:
        points: (N, D).
        centres: (K, D); see `ring` and `grid`.
        sigma: Standard deviation of each mode along each axis.
        reach: In standard deviations.

    Raises:
        ValueError: No points, or of another dimension.
    """
    if not len(points) or points.shape[1:] != centres.shape[1:]:
        raise ValueError(f"points {tuple(points.shape)} must be (N, {centres.shape[1]}), N over 0, as the centres are")
    distances, nearest = torch.cdist(points.double(), centres.to(points.device).double()).min(1)
    near = distances <= reach * sigma
    return len(nearest[near].unique()), float(near.double().mean())


def ring(count: int = 8, radius: float = 2.0) -> Tensor:
    """Return the centres (count, 2) of a ring of modes; Metz et al. 2016 have 8, radius 2, sigma 0.02."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    return radius * torch.stack([angles.cos(), angles.sin()], 1)


def grid(side: int = 5, spacing: float = 2.0) -> Tensor:
    """Return the centres (side^2, 2) of a square grid about 0; VEEGAN has 5 x 5, spacing 2, sigma 0.05."""
    line = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
    return torch.cartesian_prod(line, line)


class Mixture(NamedTuple):
    """A mixture of Gaussians of equal weights in the plane.

    Attributes:
        centres: (K, 2).
        sigma: standard deviation of each along each axis.
        extent: points lie in [-extent, extent].
    """

    centres: Tensor
    sigma: float
    extent: float

    def points(self, images: Tensor) -> Tensor:
        """Return the points (N, 2) that images (N, 2, 1, 1) in [0, 1] stand for."""
        return (2 * images.flatten(1).double() - 1) * self.extent


MIXTURES = {"ring-8": Mixture(ring(), 0.02, 3.0), "grid-25": Mixture(grid(), 0.05, 6.0)}
"""The toys that papers count modes on: Metz et al. 2016's ring, VEEGAN's grid."""


class ModeMetric(ClassMetric):
    """What shows of the classes of a network, or of the modes of a mixture: `modes[ring-8]`.

    Args:
        network: digits, stacked_digits, efficientnet_lite0 or inception; or ring-8 or grid-25, for points as images
            (N, 2, 1, 1) in [0, 1].
    """

    def __init__(self, network: str | nn.Module):
        self.mixture = MIXTURES.get(network) if isinstance(network, str) else None
        super().__init__("digits" if self.mixture else network)

    def update(self, output: Tensor, reference: Tensor | None = None) -> None:
        """Add outputs in [0, 1]."""
        if self.mixture is None:
            super().update(output, reference)
        else:
            self._outputs.append(self.mixture.points(output).cpu())

    def near(self) -> tuple[int, float]:
        """Return what `mixture_modes` says of the outputs."""
        return mixture_modes(self.outputs, self.mixture.centres, self.mixture.sigma)


class Modes(ModeMetric):
    """Number of classes that a network sees in outputs: of 10 by `modes[digits]`, of 1,000 by `modes[stacked_digits]`.

    Of points the number of modes: of 8 by `modes[ring-8]`, of 25 by `modes[grid-25]`. Higher is better. See
    `class_modes`, `mixture_modes`.

    Args:
        network: digits, stacked_digits, efficientnet_lite0, inception, ring-8 or grid-25.
    """

    def __init__(self, *, network: str | nn.Module = "digits"):
        super().__init__(network)

    def compute(self) -> float:
        """Return the number of classes."""
        if self.mixture:
            return float(self.near()[0])
        return float(class_modes(self.probabilities.argmax(1), self.probabilities.shape[1])[0])


class ModeDivergence(ClassMetric):
    """Kullback-Leibler divergence, in nats, of the classes of outputs from even ones; lower is better.

    Right where the real classes are even, as in digits and stacked digits. See `class_modes`.

    Args:
        network: digits, stacked_digits, efficientnet_lite0 or inception.
    """

    def __init__(self, *, network: str | nn.Module = "digits"):
        super().__init__(network)

    def compute(self) -> float:
        """Return the divergence, 0 to log(classes)."""
        return class_modes(self.probabilities.argmax(1), self.probabilities.shape[1])[1]


class Confident(ModeMetric):
    """Share of outputs that a network takes for one class with confidence; higher is better.

    Of points the share within three standard deviations of a mode ("high quality"): `confident[ring-8]`.

    Args:
        network: digits, stacked_digits, efficientnet_lite0, inception, ring-8 or grid-25.
        threshold: Probability of the likeliest class that counts as confidence.
    """

    def __init__(self, *, network: str | nn.Module = "digits", threshold: float = 0.9):
        super().__init__(network)
        self.threshold = threshold

    def compute(self) -> float:
        """Return the share, 0 to 1."""
        if self.mixture:
            return self.near()[1]
        return float((self.probabilities.amax(1) >= self.threshold).double().mean())
