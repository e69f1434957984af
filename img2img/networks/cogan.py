"""Coupled networks: two that share the layers which see what two domains have in common (Liu & Tuzel 2016)."""

import torch
from torch import Tensor, nn

from img2img.networks.dcgan import small_normal, stages


class CoGANGenerator(nn.Module):
    """Latent (N, latent) to a pair of images (N, 2, C, size, size) in [-1, 1], one of each domain.

    https://arxiv.org/abs/1606.07536, section 3 and table 4: the layers near the latent, which decide what is shown, are
    shared up to the full size; the last, a convolution that draws it, is each domain's own.

    Args:
        latent: numbers that stand for a pair.
        width: channels at full size; they double towards the latent.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
    """

    def __init__(self, latent: int = 100, width: int = 64, size: int = 32, channels: int = 3) -> None:
        super().__init__()
        count, start = stages(size)
        self.latent = latent
        plan = [width * 2**place for place in reversed(range(count + 1))]
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, plan[0], start, bias=False),
            nn.BatchNorm2d(plan[0]),
            nn.ReLU(True),
        ]
        for before, after in zip(plan, plan[1:], strict=False):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
        self.shared = nn.Sequential(*layers)
        self.own = nn.ModuleList(nn.Sequential(nn.Conv2d(width, channels, 7, 1, 3), nn.Tanh()) for _ in range(2))
        self.apply(small_normal)

    def forward(self, z: Tensor) -> Tensor:
        x = self.shared(z)
        return torch.stack([draw(x) for draw in self.own], 1)


class CoGANDiscriminator(nn.Module):
    """Images (N, C, size, size) of one of two domains to logits (N, outputs).

    The first layer, which sees pixels, is each domain's own; the others are shared.

    Args:
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        outputs: 1, or for a system that also reads classes 1 + their number.
    """

    def __init__(self, width: int = 64, size: int = 32, channels: int = 3, outputs: int = 1) -> None:
        super().__init__()
        count, start = stages(size)
        self.own = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)) for _ in range(2)
        )
        layers: list[nn.Module] = []
        for place in range(1, count):
            layers += [nn.Conv2d(width * 2 ** (place - 1), width * 2**place, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        self.shared = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 2 ** (count - 1) * start**2, outputs))
        self.apply(small_normal)

    def forward(self, x: Tensor, domain: int) -> Tensor:
        """Return how real images of domain 0 or 1 look, and after that what is read in them."""
        return self.shared(self.own[domain](x))
