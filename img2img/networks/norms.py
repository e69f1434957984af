"""Normalisation between convolutions; instance normalisation that is fast and that the tiles of an image can share."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Moments(NamedTuple):
    """What one call of an instance norm saw: pixels, and mean and variance (N, C) over them, in float32."""

    pixels: int
    mean: Tensor
    variance: Tensor

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of pixels together (Chan et al. 1979: nothing cancels)."""
        pixels = self.pixels + other.pixels
        apart, share = other.mean - self.mean, other.pixels / pixels
        variance = self.variance + (other.variance - self.variance) * share + apart.square() * share * (1 - share)
        return Moments(pixels, self.mean + apart * share, variance)


def moments(x: Tensor) -> Moments:
    """Return the moments of feature maps (N, C, H, W)."""
    variance, mean = torch.var_mean(x.float(), (2, 3), correction=0)
    return Moments(x.shape[2] * x.shape[3], mean, variance)


class Statistics:
    """The moments of every call of an instance norm in one run of a network, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[Moments] = []

    def __bool__(self) -> bool:
        return bool(self.calls)

    def add(self, other: "Statistics") -> None:
        """Count another part of the image in."""
        if not self.calls:
            self.calls = list(other.calls)
        else:
            self.calls = [mine.merged(its) for mine, its in zip(self.calls, other.calls, strict=True)]


class Window(NamedTuple):
    """The part of a tile that counts, context aside: rows and columns from, to (exclusive), of so many."""

    top: int
    bottom: int
    height: int
    left: int
    right: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Return that part of a feature map (N, C, h, w) of the tile, at whatever resolution."""
        high, wide = x.shape[2:]
        rows = slice(self.top * high // self.height, -(-self.bottom * high // self.height))
        columns = slice(self.left * wide // self.width, -(-self.right * wide // self.width))
        return x[:, :, rows, columns]


class _Run:
    """What instance norms do during a run: gather into ``gathered``, normalise by ``known``."""

    def __init__(self, gathered: Statistics | None, window: Window | None, known: Statistics | None) -> None:
        self.gathered, self.window, self.known, self.place = gathered, window, known, 0

    def next(self) -> Moments:
        """Return the moments of the call whose turn it is."""
        self.place += 1
        return self.known.calls[self.place - 1]


_run: ContextVar[_Run | None] = ContextVar("instance_norms", default=None)


@contextlib.contextmanager
def sharing(
    *, gather: Statistics | None = None, window: Window | None = None, known: Statistics | None = None
) -> Iterator[None]:
    """Within, every `InstanceNorm` of one run of a network works for, or by, the statistics of a larger image.

    Args:
        gather: empty; gets the moments of every call.
        window: what of the tile they are taken over; None: all of it.
        known: moments by which the calls normalise, in the same order; None or empty: each tile's own.
    """
    token = _run.set(_Run(gather, window, known if known else None))
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
            if run.gathered is not None:
                run.gathered.calls.append(moments(run.window.of(x) if run.window else x))
            if run.known is not None:
                return self._by(run.next(), x)
        if len(x) > 1 and x.is_contiguous():
            # Every channel of every sample as a channel of a single one.
            flat = x.view(1, -1, *x.shape[2:])
            return functional.batch_norm(flat, None, None, training=True, eps=self.epsilon).view_as(x)
        parts = [functional.batch_norm(each, None, None, training=True, eps=self.epsilon) for each in x.split(1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by(self, known: Moments, x: Tensor) -> Tensor:
        parts = [
            functional.batch_norm(each, mean, variance, eps=self.epsilon)
            for each, mean, variance in zip(x.split(1), known.mean, known.variance, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def extra_repr(self) -> str:
        """Return what stands in brackets when the layer is printed."""
        return f"epsilon={self.epsilon:g}"


def normalisation(kind: str, width: int) -> list[nn.Module]:
    """Return the layer called "batch" or "instance" for ``width`` channels, or nothing for any other name."""
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [InstanceNorm()] if kind == "instance" else []
