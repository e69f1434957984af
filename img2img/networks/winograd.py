"""Wide 3x3 convolutions with a quarter of the multiplications (Lavin & Gray 2015), for a CPU in fp32."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS, TILES = 192, 128
"""From so many channels in and out, and so many 4 x 4 tiles of output, it was measured to be faster than the plain."""

# The 36 products of matrices are the groups of a 1x1 convolution: on an AMD processor oneDNN takes half of the time of
# `torch.bmm` or less. The stride, of which a single row takes no notice, has PyTorch use oneDNN on one thread, too.
_GROUPED = (2, 1), (0, 0), (1, 1), False, (0, 0), 36
_PLAIN = (1, 1), (0, 0), (1, 1), False, (0, 0), 1


def _both(*rows: list[int]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)  # along both sides of a tile at once


_INPUT = _both(
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
)
_KERNEL = _both([6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]) / 24**2
_OUTPUT = _both([1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1])


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of an image padded by 1: (N, inputs, H, W) to (N, outputs, H, W), as `nn.Conv2d` makes it.

    It is computed by `convolution` where that pays: in fp32 and channels-last order on a CPU, with many channels and
    pixels, without autocast; not for compilers and exporters, which have an operator for it.
    """

    def __init__(self, inputs: int, outputs: int, padding_mode: str = "zeros", bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, padding_mode=padding_mode, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if (
            torch.compiler.is_compiling()
            or torch.compiler.is_exporting()
            or torch.jit.is_tracing()
            or torch.is_autocast_enabled("cpu")
            or not x.dtype == self.weight.dtype == torch.float32
            or x.device.type != "cpu"
            or min(self.in_channels, self.out_channels) < CHANNELS
            or x[:, 0].numel() < 16 * TILES
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(x)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        y = convolution(functional.pad(x, (1, 1, 1, 1), mode), self.weight)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (N, C, H, W) with (K, C, 3, 3) as `torch.nn.functional.conv2d` does: (N, K, H - 2, W - 2).

    Winograd's F(4x4, 3x3) of Lavin & Gray 2015 (https://arxiv.org/abs/1509.09308): 36 products make 4 x 4 results in
    place of 144. In float32 the relative error is 3e-6, three times that of the plain sum.
    """
    height, width = x.shape[2] - 2, x.shape[3] - 2
    if height % 4 or width % 4:
        x = functional.pad(x, (0, -width % 4, 0, -height % 4))
    return _Winograd.apply(x, weight)[..., :height, :width]


class _Winograd(torch.autograd.Function):
    """The same for whole tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        products = torch.convolution(_image(_input(x)), _kernel(weight), None, *_GROUPED)
        y = _times(_OUTPUT, _tiles(products)).view(len(x), x.shape[2] // 4, x.shape[3] // 4, 4, 4, -1)
        return y.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), backward = ctx.saved_tensors, torch.ops.aten.convolution_backward
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            return backward(gradient, x, weight, None, *_PLAIN, (*ctx.needs_input_grad, False))[:2]
        rows, columns = (side // 4 for side in x.shape[2:])
        y = gradient.permute(0, 2, 3, 1).unflatten(2, (columns, 4)).unflatten(1, (rows, 4)).transpose(2, 3)
        products, tiles = _times(_OUTPUT.t(), y.reshape(-1, 16, len(weight))), _input(x)
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            given = _image(products), _image(tiles), _kernel(weight)
            parts = _times(_INPUT.t(), _tiles(backward(*given, None, *_GROUPED, (True, False, False))[0]))
            parts = parts.view(len(x), rows, columns, 6, 6, -1).transpose(2, 3)
            # Each tile is 2 pixels longer than the way to the next.
            sums = parts.new_zeros(len(x), rows + 1, 4, columns + 1, 4, x.shape[1])
            for down in (0, 1):
                for right in (0, 1):
                    part = parts[:, :, 4 * down :, :, 4 * right :][:, :, :4, :, :4]
                    sums[:, down : down + rows, : part.shape[2], right : right + columns, : part.shape[4]] += part
            to_x = sums.flatten(3, 4).flatten(1, 2)[:, : x.shape[2], : x.shape[3]].permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            sums = torch.bmm(products.permute(1, 2, 0), tiles.transpose(0, 1)).flatten(1)
            to_weight = (_KERNEL.t().to(sums) @ sums).view(3, 3, *weight.shape[:2]).permute(2, 3, 0, 1)
        return to_x, to_weight


def _times(matrix: Tensor, tiles: Tensor) -> Tensor:
    return torch.bmm(matrix.to(tiles).expand(len(tiles), *matrix.shape), tiles)


def _input(x: Tensor) -> Tensor:
    """Return the transformed tiles of an input, (tiles, 36, C)."""
    tiles = x.unfold(2, 6, 4).unfold(3, 6, 4).permute(0, 2, 3, 4, 5, 1)
    return _times(_INPUT, tiles.reshape(-1, 36, x.shape[1]))


def _kernel(weight: Tensor) -> Tensor:
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_KERNEL.to(taps) @ taps).view(-1, weight.shape[1], 1, 1)


def _image(tiles: Tensor) -> Tensor:
    """Return (tiles, 36, C) as an image of one row, (1, 36 * C, 1, tiles)."""
    return tiles.view(1, 1, len(tiles), -1).permute(0, 3, 1, 2)


def _tiles(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).reshape(image.shape[3], 36, -1)
