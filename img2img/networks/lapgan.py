"""A Laplacian pyramid of GANs (Denton et al. 2015, https://arxiv.org/abs/1506.05751).

Level 0 is a plain game of small images. Each further level is a game of its own on what a doubling lacks: given an
image enlarged from the level below, the generator draws the residual, and the discriminator judges both together.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.networks.conditional import Head, one_hot, planes
from img2img.networks.dcgan import DCGANDiscriminator, DCGANGenerator, small_normal, stages
from img2img.networks.progressive import enlarge


def split(images: Tensor, levels: int) -> list[tuple[Tensor, Tensor]]:
    """Cut images (N, C, S, S) into a pyramid, from small to large.

    Returns:
        (what the level is to draw, what it is given) for each: level 0 draws the smallest images and is given those
        same; the others draw a residual (N, C, s, s) and are given the enlarged image below, whose sum is exact.
    """
    found = []
    for _ in range(levels - 1):
        small = functional.avg_pool2d(images, 2)
        given = enlarge(small)
        found.append((images - given, given))
        images = small
    return [(images, images), *reversed(found)]


def _levels(size: int, smallest: int) -> list[int]:
    sides = [size]
    while sides[0] > smallest and sides[0] % 2 == 0:
        sides.insert(0, sides[0] // 2)
    if sides[0] != smallest or len(sides) < 2:
        raise ValueError(f"smallest = {smallest} must be size = {size} halved one or more times")
    stages(smallest)
    return sides


class Residual(nn.Module):
    """Given an image and a plane of noise, the residual (N, C, s, s): three convolutions, as in the paper."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1 + classes, width, 5, padding=2),
            nn.ReLU(True),
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(True),
            nn.Conv2d(width, channels, 5, padding=2),
        )

    def forward(self, given: Tensor, noise: Tensor, condition: Tensor | None) -> Tensor:
        x = torch.cat([given, noise], 1)
        return self.layers(x if condition is None else planes(x, condition))


class LAPGANGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size) in [-1, 1], through all levels.

    Args:
        base: numbers of the smallest level's latent.
        width: channels.
        smallest: side of level 0.
        size: side of the images, ``smallest`` doubled some times.
        channels: image channels.
        classes: classes that every level gets; 0 for none.

    Attributes:
        latent: numbers that stand for an image: ``base``, and one a pixel for each level above.
        levels: their number.
        pieces: numbers of each level's latent.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        base: int = 100,
        width: int = 64,
        smallest: int = 8,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
    ) -> None:
        super().__init__()
        first, *sides = _levels(size, smallest)
        self.classes, self.levels = classes, len(sides) + 1
        self.pieces = [base, *(side * side for side in sides)]
        self.latent = sum(self.pieces)
        self.base = DCGANGenerator(base, width, first, channels, classes=classes)
        self.residuals = nn.ModuleList(Residual(width, channels, classes) for _ in sides)
        self.residuals.apply(small_normal)

    def level(self, index: int, z: Tensor, given: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return what one level draws: from its piece of the latent (N, pieces[index]) and what it is given."""
        if index == 0:
            return self.base(z, labels)
        condition = one_hot(labels, self.classes) if self.classes else None
        return self.residuals[index - 1](given, z.unflatten(1, (1, *given.shape[2:])), condition)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *pieces = z.split(self.pieces, 1)
        images = self.base(first, labels)
        for index, piece in enumerate(pieces, 1):
            given = enlarge(images)
            images = (given + self.level(index, piece, given, labels)).clamp(-1, 1)
        return images


class LAPGANDiscriminator(nn.Module):
    """One judge a level; on whole images (N, C, size, size) the sum of all of them, (N, 1).

    Args:
        width: channels.
        smallest: side of level 0.
        size: side of the images, ``smallest`` doubled some times.
        channels: image channels.
        classes: classes of every level; 0 for none.
        dropout: share of values dropped before the last layer.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        width: int = 64,
        smallest: int = 8,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        first, *sides = _levels(size, smallest)
        self.levels = len(sides) + 1
        self.base = DCGANDiscriminator(width, first, channels, norm="none", classes=classes)
        self.judges = nn.ModuleList(Judge(width, side, channels, classes, dropout) for side in sides)
        self.judges.apply(small_normal)

    def level(self, index: int, drawn: Tensor, given: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return one level's logits (N, 1) of what was drawn there beside what was given."""
        return self.base(drawn, labels) if index == 0 else self.judges[index - 1](drawn, given, labels)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        levels = split(x, self.levels)
        return torch.stack([self.level(i, *level, labels) for i, level in enumerate(levels)]).sum(0)


class Judge(nn.Module):
    """A residual (N, C, s, s) and the image that it belongs to, to logits (N, 1)."""

    def __init__(self, width: int, side: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, width, 5, 2, 2),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, width, 5, 2, 2),
            nn.LeakyReLU(0.2, True),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.head = Head(width * (side // 4) ** 2, 1, classes)

    def forward(self, drawn: Tensor, given: Tensor, labels: Tensor | None = None) -> Tensor:
        # The judge sees the image that the residual completes, as the paper's first step adds them.
        return self.head(self.layers(torch.cat([given + drawn, drawn], 1)), labels)
