"""3D-GAN: shapes of voxels (Wu et al. 2016, https://arxiv.org/abs/1610.07584)."""

from typing import Literal

from torch import Tensor, nn

from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.conditional import Head
from img2img.networks.dcgan import stages


def _start(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.normal_(layer.weight, 0, 0.02)


class VoxelGenerator(nn.Module):
    """Latent (N, latent) to shapes (N, C, size, size, size) in [-1, 1]: the paper's [0, 1], twice, minus 1.

    Args:
        latent: numbers that stand for a shape.
        width: channels before the last layer; they double towards the latent.
        size: side of the grid: 4, 5, 6 or 7 times a power of two.
        channels: values a voxel, 1 for occupancy.

    Attributes:
        latent: as above.
    """

    def __init__(self, latent: int = 64, width: int = 32, size: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.latent = latent
        count, start = stages(size)
        plan = [width * 2**place for place in reversed(range(count))]
        layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1, 1))]
        layers += [nn.ConvTranspose3d(latent, plan[0], start, bias=False), nn.BatchNorm3d(plan[0]), nn.ReLU(True)]
        for before, after in zip(plan, plan[1:], strict=False):
            layers += [nn.ConvTranspose3d(before, after, 4, 2, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose3d(plan[-1], channels, 4, 2, 1), nn.Tanh())
        self.apply(_start)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(z)


class VoxelDiscriminator(nn.Module):
    """Shapes (N, C, size, size, size) to logits (N, 1).

    Args:
        width: channels after the first layer; they double with every halving.
        size: side of the grid: 4, 5, 6 or 7 times a power of two.
        channels: values a voxel.
        norm: "batch" as in the paper; "none" where a penalty on each sample's gradient needs it; "spectral".
    """

    def __init__(
        self, width: int = 32, size: int = 32, channels: int = 1, norm: Literal["batch", "none", "spectral"] = "batch"
    ) -> None:
        super().__init__()
        count, start = stages(size)
        layers: list[nn.Module] = [nn.Conv3d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for place in range(1, count):
            before, after = width * 2 ** (place - 1), width * 2**place
            layers.append(nn.Conv3d(before, after, 4, 2, 1, bias=norm != "batch"))
            layers += [nn.BatchNorm3d(after)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2, True))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = Head(width * 2 ** (count - 1) * start**3)
        self.apply(_start)
        if norm == "spectral":
            spectral_norm(self)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the values before the last layer (N, F)."""
        return self.layers(x)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.features(x))
