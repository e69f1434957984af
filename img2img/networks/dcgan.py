"""DCGAN's generator and discriminator (Radford et al. 2015, https://arxiv.org/abs/1511.06434)."""

from typing import Literal

from torch import Tensor, nn

from img2img.adversarial.stabilize import spectral_norm


def stages(size: int) -> tuple[int, int]:
    """Return the number of halvings from ``size`` to the smallest grid, and that grid's side (4 to 7).

    Raises:
        ValueError: the size is not such a grid doubled some times.
    """
    for start in (4, 5, 6, 7):
        for count in range(1, 8):
            if start * 2**count == size:
                return count, start
    raise ValueError(f"image size {size} is none of 8, 10, 12, 14 times a power of two (e.g. 28, 32, 64, 128)")


class DCGANGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size) in [-1, 1].

    Args:
        latent: numbers that stand for an image.
        width: channels before the last layer; they double towards the latent.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "batch" as in the paper, or "none".
    """

    def __init__(
        self,
        latent: int = 100,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.latent = latent
        count, start = stages(size)
        plan = [width * 2**place for place in reversed(range(count))]
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, plan[0], start, bias=norm == "none"),
            *self._after(plan[0], norm),
        ]
        for before, after in zip(plan, plan[1:], strict=False):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=norm == "none"), *self._after(after, norm)]
        layers += [nn.ConvTranspose2d(plan[-1], channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_normal)

    @staticmethod
    def _after(width: int, norm: str) -> list[nn.Module]:
        return [nn.BatchNorm2d(width), nn.ReLU(True)] if norm == "batch" else [nn.ReLU(True)]

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class DCGANDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, 1).

    Args:
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "batch" as in the paper; "none" where a penalty on each sample's gradient needs it; "spectral".
    """

    def __init__(
        self, width: int = 64, size: int = 64, channels: int = 3, norm: Literal["batch", "none", "spectral"] = "batch"
    ) -> None:
        super().__init__()
        count, start = stages(size)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for place in range(1, count):
            before, after = width * 2 ** (place - 1), width * 2**place
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=norm != "batch"))
            layers += [nn.BatchNorm2d(after)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2, True))
        layers += [nn.Conv2d(width * 2 ** (count - 1), 1, start), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_normal)
        if norm == "spectral":
            spectral_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def small_normal(layer: nn.Module) -> None:
    """Start a layer as DCGAN, pix2pix and CycleGAN do: weights N(0, 0.02), batch norm's scale N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
        nn.init.zeros_(layer.bias)
