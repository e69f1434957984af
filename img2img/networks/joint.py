"""Networks between images and latents: what encodes, and what judges both together (Dumoulin et al. 2016)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.dcgan import DCGANDiscriminator
from img2img.networks.mlp import MLP, MLPDiscriminator


def reader(width: int, size: int, channels: int, norm: str, outputs: int) -> nn.Module:
    """Return a network of images (N, C, size, size) to (N, outputs): of convolutions, or of points (size 1) without."""
    if size == 1:
        return MLPDiscriminator(width, 2, size, channels, outputs=outputs)
    return DCGANDiscriminator(width, size, channels, norm, outputs=outputs)


class Encoder(nn.Module):
    """Images (N, C, size, size) to codes (N, latent), or the mean and log variance of a Gaussian (N, 2 * latent).

    With classes their logits follow, (N, classes).

    Args:
        latent: numbers that stand for an image.
        width: channels after the first layer; they double with every halving; of points (size 1), hidden units.
        size: side of the images: 1, or 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "batch", "none" or "spectral".
        stochastic: whether it gives a Gaussian.
        classes: classes that it reads besides; 0 for none.
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 32,
        size: int = 28,
        channels: int = 1,
        norm: Literal["batch", "none", "spectral"] = "batch",
        stochastic: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__()
        outputs = latent * (1 + stochastic) + classes
        self.network = reader(width, size, channels, norm, outputs)
        # Numbers of the prior's size from the start, and not logits near 0. Without a norm every layer must keep the
        # size; spectral norm sets each layer's itself.
        if norm == "none":
            self.network.apply(_keep_size)
        elif norm == "batch":
            nn.init.kaiming_normal_(self.network.head.linear.weight, nonlinearity="linear")

    def features(self, x: Tensor) -> Tensor:
        """Return the values before the last layer (N, F)."""
        return self.network.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def _keep_size(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")
    elif isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")


class ImplicitEncoder(nn.Module):
    """Images (N, C, size, size) to codes (N, latent) drawn from a distribution that can take any shape.

    A normal draw goes, with what was seen of the image, through a network that can only move it, so that codes follow
    the prior at first: Mescheder et al. 2017 (https://arxiv.org/abs/1701.04722), figure 2.

    Args:
        latent: numbers that stand for an image.
        width: channels after the first layer; they double with every halving; of points (size 1), hidden units.
        hidden: units of the layers that see image and draw.
        size: side of the images: 1, or 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: of the images' way: "batch", "none" or "spectral".
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 32,
        hidden: int = 256,
        size: int = 28,
        channels: int = 1,
        norm: Literal["batch", "none", "spectral"] = "batch",
    ) -> None:
        super().__init__()
        self.latent = latent
        self.images = nn.Sequential(reader(width, size, channels, norm, hidden), nn.LeakyReLU(0.2))
        self.move = MLP(hidden + latent, latent, hidden, 2, "leaky_relu")

    def features(self, x: Tensor) -> Tensor:
        """Return the values before what sees the draw (N, hidden)."""
        return self.images(x)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.images(x)
        drawn = torch.randn(len(x), self.latent, device=x.device)
        return drawn + self.move(torch.cat([seen, drawn], 1))


class JointDiscriminator(nn.Module):
    """Images (N, C, size, size) and latents (N, latent) to logits (N, 1): each on its own way, then both together.

    Args:
        latent: numbers that stand for an image.
        width: channels after the first layer of the images' way; they double with every halving; of points (size 1),
            hidden units.
        hidden: units of the latents' way and of the layers that see both.
        size: side of the images: 1, or 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: of the images' way: "none", "batch" or "spectral".
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 32,
        hidden: int = 256,
        size: int = 28,
        channels: int = 1,
        norm: Literal["none", "batch", "spectral"] = "none",
    ) -> None:
        super().__init__()
        self.latent, self.shape = latent, (channels, size, size)
        self.images = reader(width, size, channels, norm, hidden)
        self.latents = MLP(latent, hidden, hidden, 1, "leaky_relu")
        self.both = nn.Sequential(nn.LeakyReLU(0.2), MLP(2 * hidden, 1, hidden, 1, "leaky_relu"))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.both(torch.cat([self.images(x), self.latents(z)], 1))
