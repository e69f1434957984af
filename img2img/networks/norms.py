"""Normalisation between convolutions; instance normalisation that is fast and that the tiles of an image can share."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Moments(NamedTuple):
    """What one call of an instance norm saw: values of a channel, and mean and variance (N, C) over them."""

    count: int
    mean: Tensor
    variance: Tensor

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values together (Chan et al. 1979: nothing cancels)."""
        count = self.count + other.count
        apart, share = other.mean - self.mean, other.count / count
        variance = self.variance + (other.variance - self.variance) * share + apart.square() * share * (1 - share)
        return Moments(count, self.mean + apart * share, variance)


class Statistics:
    """The moments of every call of an instance norm in one run of a network, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[Moments] = []

    def add(self, other: "Statistics") -> None:
        """Count those of other parts of the image in."""
        pairs = zip(self.calls, other.calls, strict=True)
        self.calls = [mine.merged(its) for mine, its in pairs] if self.calls else list(other.calls)


class NotGathered(Exception):  # noqa: N818 (a name that reads well at the raise)
    """A part of an image came to an instance norm, and nothing is known of the whole."""


class _Run:
    """What instance norms do within a block."""

    def __init__(self, statistics: Statistics | None, patches: int = 0) -> None:
        self.statistics, self.patches, self.calls = statistics, patches, 0

    def moments(self, x: Tensor) -> Moments:
        """Return by what ``x`` is to be normalised."""
        if self.statistics is None:
            raise NotGathered
        if self.patches:
            exact = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(0, (self.patches, -1))
            variance, mean = torch.var_mean(exact, (0, 3, 4), correction=0)
            self.statistics.calls.append(Moments(exact[:, 0, 0].numel(), mean, variance))
        self.calls += 1
        return self.statistics.calls[self.calls - 1]


_run: ContextVar[_Run | None] = ContextVar("instance_norms", default=None)


@contextlib.contextmanager
def gathering(statistics: Statistics, patches: int) -> Iterator[None]:
    """Within, a run of a network takes its batch for patches of one image (or of several), normalised together.

    Args:
        statistics: empty; gets the moments of every call of an `InstanceNorm`.
        patches: how many there are of each image; the first patch of every image comes first, then the second.
    """
    token = _run.set(_Run(statistics, patches))
    try:
        yield
    finally:
        _run.reset(token)


@contextlib.contextmanager
def frozen(statistics: Statistics | None) -> Iterator[None]:
    """Within, every `InstanceNorm` of a run of a network normalises by what was gathered before.

    Raises:
        NotGathered: by an `InstanceNorm`, where ``statistics`` is None.
    """
    token = _run.set(_Run(statistics))
    try:
        yield
    finally:
        _run.reset(token)


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1: (N, C, H, W), H * W > 1, to the same.

    Ulyanov et al. 2016 (https://arxiv.org/abs/1607.08022), without scale, shift and running statistics. It runs
    through the batch norm's kernel, which keeps channels-last images as they are: PyTorch's own instance norm copies
    them to another order, and takes four to five times as long forward and backward.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        # Compilers and exporters have an operator for it, and no samples to loop over.
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return functional.instance_norm(x, eps=self.epsilon)
        run = _run.get()
        if run is not None:
            return self._by(run.moments(x), x)
        if len(x) > 1 and x.is_contiguous():
            # Every channel of every sample as a channel of a single one.
            flat = x.view(1, -1, *x.shape[2:])
            return functional.batch_norm(flat, None, None, training=True, eps=self.epsilon).view_as(x)
        parts = [functional.batch_norm(each, None, None, training=True, eps=self.epsilon) for each in x.split(1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by(self, known: Moments, x: Tensor) -> Tensor:
        images = len(known.mean)
        parts = [
            functional.batch_norm(x[place::images], mean, variance, eps=self.epsilon)
            for place, (mean, variance) in enumerate(zip(known.mean, known.variance, strict=True))
        ]
        return parts[0] if images == 1 else torch.stack(parts, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        """Return what stands in brackets when the layer is printed."""
        return f"epsilon={self.epsilon:g}"


def normalisation(kind: str, width: int) -> list[nn.Module]:
    """Return the layer called "batch" or "instance" for ``width`` channels, or nothing for any other name."""
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [InstanceNorm()] if kind == "instance" else []
