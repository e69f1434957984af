"""The U-Net generator of pix2pix (Isola et al. 2016, https://arxiv.org/abs/1611.07004)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.norms import normalisation


class Level(nn.Module):
    """One halving, what lies below it, one doubling; the input is joined to the output."""

    def __init__(
        self, outer: int, inner: int, below: nn.Module | None, norm: str, dropout: float, upsample: str
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        self.down = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(outer, inner, 4, 2, 1, bias=bias),
            # A single position has no variance to normalise by, so the innermost level has no norm.
            *(normalisation(norm, inner) if below else []),
        )
        self.below = below
        self.up = nn.Sequential(
            nn.ReLU(),
            *_doubling(inner * 2 if below else inner, outer, upsample, bias),
            *normalisation(norm, outer),
            *([nn.Dropout(dropout)] if dropout else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.down(x)
        return torch.cat([x, self.up(self.below(inner) if self.below else inner)], 1)


def _doubling(before: int, after: int, upsample: str, bias: bool = True) -> list[nn.Module]:
    if upsample == "resize":
        return [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1, bias=bias)]
    return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias)]


class UNet(nn.Module):
    """(N, input_channels, H, W) -> (N, channels, H, W), both in [-1, 1]; H and W multiples of ``2 ** depth``.

    Args:
        width: channels of the first level; they double up to eight times that.
        depth: halvings; 0 for as many as ``size`` allows, down to one pixel, as in the paper.
        size: side of the training images.
        channels: output channels.
        input_channels: 0 for as many as come out.
        norm: "batch", "instance" or "none".
        dropout: share of values dropped in the innermost levels: the paper's noise.
        upsample: how doublings are done: "transposed" convolutions as in the paper, or "resize": each pixel four times,
            then a convolution, which leaves no pattern of dots (Odena et al. 2016,
            https://doi.org/10.23915/distill.00003).

    Attributes:
        multiple: what H and W must be a multiple of.
        margin: how far in pixels, in such multiples, an input pixel reaches while the norms' statistics stand still.
        contiguous_on_cpu: see `img2img.engine.training_layout`.
    """

    contiguous_on_cpu = True

    def __init__(
        self,
        width: int = 64,
        depth: int = 0,
        size: int = 256,
        channels: int = 3,
        input_channels: int = 0,
        norm: Literal["batch", "instance", "none"] = "batch",
        dropout: float = 0.5,
        upsample: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        if not depth:
            depth = max(1, (size & -size).bit_length() - 1)
            if size >= 32 and depth < 4:
                raise ValueError(
                    f"network unet: size {size} can be halved {depth} times only, which makes a shallow U-Net; choose "
                    f"another size, e.g. {round(size / 32) * 32}, or set depth"
                )
        if not 1 <= depth <= 16 or size % 2**depth:
            raise ValueError(
                f"network unet: size {size} cannot be halved {depth} times; choose another depth, 1 or more"
            )
        self.multiple = 2**depth
        # Either doubling reaches one position. From pixel to pixel the deepest level reaches 3 of its positions, each
        # level above 2 * that + 1: 2^(d+1) - 1.
        self.margin = 2 * self.multiple
        widths = [width * min(8, 2**place) for place in range(depth)]
        inner: nn.Module | None = None
        for place in reversed(range(1, depth)):
            deep = inner is not None and widths[place] == widths[place - 1]
            inner = Level(widths[place - 1], widths[place], inner, norm, dropout if deep else 0.0, upsample)
        self.first = nn.Conv2d(input_channels or channels, width, 4, 2, 1)
        self.inner = inner or nn.Identity()
        joined = width * 2 if inner else width
        self.last = nn.Sequential(nn.ReLU(), *_doubling(joined, channels, upsample), nn.Tanh())
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))


def _start(layer: nn.Module) -> None:
    """Start a layer at He et al.'s scale (https://arxiv.org/abs/1502.01852, equation 10), whatever it is made of.

    The paper's N(0, 0.02) leaves what comes through the outermost joint, which has no norm, a tenth as strong as what
    comes from below.
    """
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        seen = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):  # of a kernel, one place in stride x stride meets an output
            seen = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] / (layer.stride[0] * layer.stride[1])
        nn.init.normal_(layer.weight, 0, (2 / seen) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
