"""The U-Net generator of pix2pix (Isola et al. 2016, https://arxiv.org/abs/1611.07004)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.dcgan import small_normal


def normalisation(kind: str, width: int) -> list[nn.Module]:
    """Return the layer called "batch" or "instance", or nothing for "none"."""
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.InstanceNorm2d(width)] if kind == "instance" else []


class Level(nn.Module):
    """One halving, what lies below it, one doubling; the input is joined to the output."""

    def __init__(self, outer: int, inner: int, below: nn.Module | None, norm: str, dropout: float) -> None:
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
            nn.ConvTranspose2d(inner * 2 if below else inner, outer, 4, 2, 1, bias=bias),
            *normalisation(norm, outer),
            *([nn.Dropout(dropout)] if dropout else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.down(x)
        return torch.cat([x, self.up(self.below(inner) if self.below else inner)], 1)


class UNet(nn.Module):
    """(N, C, H, W) -> (N, outputs, H, W), both in [-1, 1]; H and W multiples of ``2 ** depth``.

    Args:
        width: channels of the first level; they double up to eight times that.
        depth: halvings; 0 for as many as ``size`` allows, down to one pixel, as in the paper.
        size: side of the training images.
        channels: input channels. outputs: output channels; 0 for as many as go in.
        norm: "batch", "instance" or "none".
        dropout: share of values dropped in the innermost levels: the paper's noise.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 0,
        size: int = 256,
        channels: int = 3,
        outputs: int = 0,
        norm: Literal["batch", "instance", "none"] = "batch",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        depth = depth or max(2, (size & -size).bit_length() - 1)
        if not 2 <= depth <= 16 or size % 2**depth:
            raise ValueError(
                f"network unet: size {size} cannot be halved {depth} times; choose another depth, 2 or more"
            )
        self.multiple = 2**depth
        widths = [width * min(8, 2**place) for place in range(depth)]
        inner: nn.Module | None = None
        for place in reversed(range(1, depth)):
            deep = inner is not None and widths[place] == widths[place - 1]
            inner = Level(widths[place - 1], widths[place], inner, norm, dropout if deep else 0.0)
        self.first = nn.Conv2d(channels, width, 4, 2, 1)
        self.inner = inner
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(width * 2, outputs or channels, 4, 2, 1), nn.Tanh())
        self.apply(small_normal)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))
