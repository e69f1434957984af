"""What makes an enlargement keep to the image that it was made of: reduced again, it gives that image back."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

ROUNDS = 2
REACH = 4
"""How many small pixels away the inverse filter looks; its values beyond are below a hundredth of the middle one."""


class Projection(nn.Module):
    """Enlargements (N, C, H * scale, W * scale) to the nearest that Pillow's bicubic reduces to images (N, C, H, W).

    Sonderby et al. 2016 (https://arxiv.org/abs/1610.04490), section 3.2: for the reduction A, y becomes
    y + A^T (A A^T)^-1 (x - A y), which has the reduction x whatever y was. A is a convolution with a stride, so
    (A A^T)^-1 is one on the small grid; at the border, where A's weights are scaled to sum to one, it is nearly so, and
    a second round corrects the rest.

    Args:
        scale: whole number, 1 or more.

    Attributes:
        margin: how far the projection looks, in small pixels.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale, self.margin = scale, ROUNDS * (REACH + 4)
        places = np.arange(-2 * scale, 3 * scale)
        x = (places + 0.5 - scale / 2) / scale
        kernel = _cubic(x[abs(x) < 2]) / scale
        self.pad = int(-places[abs(x) < 2][0])
        # The kernel's correlation with itself on the small grid, and its inverse by the Fourier transform.
        ring = np.zeros(64)
        for lag, value in enumerate(np.correlate(kernel, kernel, "full")[len(kernel) - 1 :: scale]):
            ring[[lag, -lag]] = value
        inverse = np.roll(np.fft.ifft(1 / np.fft.fft(ring).real).real, REACH)[: 2 * REACH + 1]
        for name, values in (("kernel", kernel), ("inverse", inverse)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def reduce(self, y: Tensor) -> Tensor:
        """Return (N, C, H * scale, W * scale) images reduced to (N, C, H, W)."""
        return self._sums(y) / self._sums(torch.ones_like(y[:1, :1]))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the enlargements ``y``, changed as little as makes their reductions ``x``; in float32."""
        with torch.autocast(y.device.type, enabled=False):
            y = y.float()
            wanted = x.float() * self._sums(torch.ones_like(y[:1, :1]))
            for _ in range(ROUNDS):
                error = _along(wanted - self._sums(y), self.inverse, REACH)
                y = y + _along(error, self.kernel, self.pad, self.scale, functional.conv_transpose2d)
            return y

    def _sums(self, y: Tensor) -> Tensor:
        return _along(y, self.kernel, self.pad, self.scale)


def _along(images: Tensor, taps: Tensor, pad: int, stride: int = 1, way: Callable = functional.conv2d) -> Tensor:
    """Return images after a filter along rows and one along columns, each channel by itself."""
    count = images.shape[1]
    taps = taps.float().repeat(count, 1, 1, 1)
    images = way(images, taps, stride=(1, stride), padding=(0, pad), groups=count)
    return way(images, taps.transpose(2, 3), stride=(stride, 1), padding=(pad, 0), groups=count)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Return Keys' cubic kernel with a = -0.5, as Pillow has it."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
