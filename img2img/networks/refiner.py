"""The residual generator of PixelDA and of SimGAN's refiner: images stay at their resolution throughout."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.dcgan import small_normal
from img2img.networks.norms import normalisation


class Refiner(nn.Module):
    """(N, input_channels, H, W) and perhaps noise (N, noise, H, W) -> (N, channels, H, W), both images in [-1, 1].

    Bousmalis et al. 2016 (https://arxiv.org/abs/1612.05424), figure 2, and Shrivastava et al. 2016
    (https://arxiv.org/abs/1612.07828), section 2.1: a convolution, residual blocks of two, a convolution with tanh.
    Noise comes in beside the image, another value for each pixel, so that it can become texture.

    Args:
        width: channels of the blocks.
        blocks: residual blocks.
        channels: of the output.
        input_channels: of the input; 0 for as many as come out.
        noise: channels of the noise; 0 for none.
        norm: "batch", "instance" or "none".

    Attributes:
        margin: receptive-field radius in pixels; norms of a whole image reach farther.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 6,
        channels: int = 3,
        input_channels: int = 0,
        noise: int = 0,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.noise = noise
        self.margin = 2 + 2 * blocks
        inputs = (input_channels or channels) + noise
        self.enter = nn.Sequential(nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU(True))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, 1, 1, bias=norm == "none"),
                *normalisation(norm, width),
                nn.ReLU(True),
                nn.Conv2d(width, width, 3, 1, 1, bias=norm == "none"),
                *normalisation(norm, width),
            )
            for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())
        self.apply(small_normal)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the refined images; without ``z`` the noise is zero."""
        if self.noise:
            x = torch.cat([x, x.new_zeros(len(x), self.noise, *x.shape[2:]) if z is None else z.to(x.dtype)], 1)
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)

    def deploy(self) -> "Refiner":
        """Return the network for use, where the noise is zero: without the weights that read it."""
        plain = copy.deepcopy(self)
        if self.noise:
            first = plain.enter[0]
            first.weight = nn.Parameter(first.weight[:, : -self.noise].clone())
            first.in_channels -= self.noise
            plain.noise = 0
        return plain
