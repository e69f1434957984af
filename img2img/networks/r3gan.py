"""R3GAN's networks (Huang et al. 2024, https://arxiv.org/abs/2501.05441): residual, grouped, and without any norm.

To be trained with the ``relativistic`` loss and the penalties ``r1`` and ``r2``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.networks.conditional import Head, one_hot
from img2img.networks.dcgan import stages
from img2img.networks.progressive import channels_at

GAIN = math.sqrt(2 / (1 + 0.2**2))


def start_as(layer: nn.Module, gain: float) -> nn.Module:
    """Return the layer with weights N(0, gain^2 / fan-in) and biases at 0."""
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + 1x1(3x3 grouped(1x1 to more channels)), leaky ReLUs between, started by Fix-up (Zhang et al. 2019).

    The last convolution starts at 0, so that the block starts as the identity, and the others with a gain of
    blocks^(-1/4), which keeps the size of an update independent of the depth (https://arxiv.org/abs/1901.09321).

    Args:
        width: channels. expand: factor of the channels inside. group: channels of a group. blocks: of the network.
    """

    def __init__(self, width: int, expand: int, group: int, blocks: int) -> None:
        super().__init__()
        inner, gain = width * expand, GAIN * blocks**-0.25
        groups = inner // math.gcd(inner, group)
        self.layers = nn.Sequential(
            start_as(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(0.2),
            start_as(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain),
            nn.LeakyReLU(0.2),
            start_as(nn.Conv2d(inner, width, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Resample(nn.Module):
    """Double or halve the side by bilinear interpolation, after or before a 1x1 convolution where channels change."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.up = up
        same = inputs == outputs
        self.change = nn.Identity() if same else start_as(nn.Conv2d(inputs, outputs, 1, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        # Both orders are equal; the convolution runs where there are fewer pixels.
        if self.up:
            return functional.interpolate(self.change(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.change(functional.avg_pool2d(x, 2))  # bilinear halving is the mean of 2 x 2


def _plan(size: int, width: int, widest: int, blocks: int) -> tuple[list[int], int]:
    if not 1 <= blocks <= 64:
        raise ValueError(f"blocks = {blocks} must be 1 to 64")
    count, start = stages(size)
    return channels_at(width, count, widest), start


class R3GANGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size), about [-1, 1]: the last layer is linear, as in the paper.

    Args:
        latent: numbers that stand for an image.
        width: channels at full size; they double towards the latent up to ``widest``.
        widest: most channels.
        blocks: residual blocks a resolution.
        expand: factor of the channels inside a block.
        group: channels of a group of the 3x3 convolutions.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes that are appended to the latent; 0 for none.

    Attributes:
        latent: as above.
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 64,
        widest: int = 256,
        blocks: int = 2,
        expand: int = 2,
        group: int = 16,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        plan, start = _plan(size, width, widest, blocks)
        self.basis = nn.Parameter(torch.empty(plan[0], start, start))
        nn.init.normal_(self.basis)
        self.linear = start_as(nn.Linear(latent + classes, plan[0], bias=False), 1.0)
        layers: list[nn.Module] = []
        for place, width in enumerate(plan):
            layers += [Resample(plan[place - 1], width, up=True)] if place else []
            layers += [Block(width, expand, group, blocks * len(plan)) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, start_as(nn.Conv2d(plan[-1], channels, 1, bias=False), 1.0))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes:
            z = torch.cat([z, one_hot(labels, self.classes)], 1)
        return self.layers(self.basis * self.linear(z)[:, :, None, None])


class R3GANDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, outputs); it treats samples apart.

    Args:
        width: channels at full size; they double up to ``widest``.
        widest: most channels.
        blocks: residual blocks a resolution.
        expand: factor of the channels inside a block.
        group: channels of a group of the 3x3 convolutions.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes of the projection; 0 for none.
        outputs: logits a sample.
    """

    def __init__(
        self,
        width: int = 64,
        widest: int = 256,
        blocks: int = 2,
        expand: int = 2,
        group: int = 16,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        plan, start = _plan(size, width, widest, blocks)
        layers: list[nn.Module] = [start_as(nn.Conv2d(channels, plan[-1], 1), 1.0)]
        for place, width in reversed(list(enumerate(plan))):
            layers += [Block(width, expand, group, blocks * len(plan)) for _ in range(blocks)]
            layers += [Resample(width, plan[place - 1], up=False)] if place else []
        basis = start_as(nn.Conv2d(plan[0], plan[0], start, groups=plan[0], bias=False), 1.0)
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.head = Head(plan[0], outputs, classes)
        start_as(self.head.linear, 1.0)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the values before the last layer (N, F)."""
        return self.layers(x)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, labels), labels)
