"""Layers of progressive growing and StyleGAN: equalised learning rates, pixel norm, blur.

Karras et al. 2017 (https://arxiv.org/abs/1710.10196), section 4: weights start as N(0, 1) and are scaled at run time by
He's constant, so that Adam moves all of them at the same relative speed.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class EqualConv2d(nn.Conv2d):
    """A convolution with an equalised learning rate; same padding.

    Args:
        inputs: channels in. outputs: channels out. kernel: its side, odd or with ``padding`` given.
        gain: of the start, sqrt(2) before a rectifier.
        padding: pixels of zeros around the input.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, gain: float = math.sqrt(2), padding: int | None = None
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2 if padding is None else padding)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = gain / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualLinear(nn.Linear):
    """A linear layer with an equalised learning rate.

    Args:
        inputs: values in. outputs: values out. bias: whether there is one.
        gain: of the start, sqrt(2) before a rectifier.
        rate: learning rate relative to that of other layers (StyleGAN's mapping: 0.01).
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: float = 1.0, rate: float = 1.0) -> None:
        super().__init__(inputs, outputs, bias)
        nn.init.normal_(self.weight, 0, 1 / rate)
        if bias:
            nn.init.zeros_(self.bias)
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.scale, None if self.bias is None else self.bias * self.rate)


class PixelNorm(nn.Module):
    """Scale the vector of channels at each place to a mean square of 1; shapes (N, C) and (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Blur(nn.Module):
    """Smooth each channel by the binomial filter [1, 2, 1] / 4 in both directions: (N, C, H, W) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])
