"""Networks between images and latents: what encodes, and what judges both together (Dumoulin et al. 2016)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.dcgan import DCGANDiscriminator
from img2img.networks.mlp import MLP


class Encoder(nn.Module):
    """Images (N, C, size, size) to codes (N, latent), or the mean and log variance of a Gaussian (N, 2 * latent).

    With classes their logits follow, (N, classes).

    Args:
        latent: numbers that stand for an image.
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
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
        self.network = DCGANDiscriminator(width, size, channels, norm, outputs=outputs)
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


class JointDiscriminator(nn.Module):
    """Images (N, C, size, size) and latents (N, latent) to logits (N, 1): each on its own way, then both together.

    Args:
        latent: numbers that stand for an image.
        width: channels after the first layer of the images' way; they double with every halving.
        hidden: units of the latents' way and of the layers that see both.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
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
        self.images = DCGANDiscriminator(width, size, channels, norm, outputs=hidden)
        self.latents = MLP(latent, hidden, hidden, 1, "leaky_relu")
        self.both = nn.Sequential(nn.LeakyReLU(0.2), MLP(2 * hidden, 1, hidden, 1, "leaky_relu"))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.both(torch.cat([self.images(x), self.latents(z)], 1))
