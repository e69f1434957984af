"""DCGAN's generator and discriminator (Radford et al. 2015, https://arxiv.org/abs/1511.06434)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.adversarial.latent import Mixture
from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.conditional import ConditionalBatchNorm, Conditioned, Head, one_hot, planes
from img2img.networks.minibatch import MinibatchDiscrimination, MinibatchStd
from img2img.networks.virtual_norm import VirtualBatchNorm


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
        norm: "batch" as in the paper, "none", or "virtual" (Salimans 2016), where samples do not meet.
        classes: classes; 0 for none.
        condition: how labels come in: "concatenate" to the latent, or as gains of the batch "norm".
        reference: samples of virtual batch norm's fixed batch.
        mixture: Gaussians of DeLiGAN's latent; 0 for the plain normal. It takes one number more a sample.
        sigma: their first standard deviation.
        hidden: units of a fully connected layer before the first maps, as InfoGAN's for 28 pixels has (1024); 0: none.

    Raises:
        ValueError: labels as gains of a norm that has none, an image size that does not fit.
    """

    def __init__(
        self,
        latent: int = 100,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        norm: Literal["batch", "none", "virtual"] = "batch",
        classes: int = 0,
        condition: Literal["concatenate", "norm"] = "concatenate",
        reference: int = 32,
        mixture: int = 0,
        sigma: float = 0.2,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        count, start = stages(size)
        gains = classes if condition == "norm" else 0
        if gains and norm != "batch":
            raise ValueError(f"condition = 'norm' needs norm = 'batch', not {norm!r}; use condition = 'concatenate'")
        if not 1 <= reference <= 4096:
            raise ValueError(f"reference = {reference} must be 1 to 4096")
        self.classes, self.concatenate = classes, bool(classes) and not gains
        self.prior = Mixture(latent, mixture, sigma) if mixture else None
        self.latent = latent + 1 if mixture else latent
        inputs = latent + (classes if self.concatenate else 0)
        reference = reference if norm == "virtual" else 0
        plan = [width * 2**place for place in reversed(range(count))]
        layers: list[nn.Module] = [nn.Unflatten(1, (inputs, 1, 1))]
        if hidden:
            layers.append(nn.Conv2d(inputs, hidden, 1, bias=norm == "none"))
            layers += _after(hidden, norm, gains, reference)
        layers += [
            nn.ConvTranspose2d(hidden or inputs, plan[0], start, bias=norm == "none"),
            *_after(plan[0], norm, gains, reference),
        ]
        for before, after in zip(plan, plan[1:], strict=False):
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=norm == "none"))
            layers += _after(after, norm, gains, reference)
        layers += [nn.ConvTranspose2d(plan[-1], channels, 4, 2, 1), nn.Tanh()]
        self.layers = Conditioned(*layers)
        self.apply(small_normal)
        if reference:
            self.register_buffer("reference", torch.randn(reference, inputs))
            if self.concatenate:
                self.reference[:, latent:] = one_hot(torch.arange(reference) % classes, classes)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = self.prior(z) if self.prior is not None else z
        condition = one_hot(labels, self.classes) if self.classes else None
        if self.concatenate:
            z = torch.cat([z, condition], 1)
        if not hasattr(self, "reference"):
            return self.layers(z, condition)
        return self.layers(torch.cat([self.reference.to(z.dtype), z]))[len(self.reference) :]


def _after(width: int, norm: str, classes: int, reference: int) -> list[nn.Module]:
    if norm == "none":
        return [nn.ReLU(True)]
    if norm == "virtual":
        return [VirtualBatchNorm(width, reference), nn.ReLU(True)]
    return [ConditionalBatchNorm(width, classes) if classes else nn.BatchNorm2d(width), nn.ReLU(True)]


class DCGANDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, outputs).

    Args:
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "batch" as in the paper; "none" where a penalty on each sample's gradient needs it; "spectral".
        minibatch: "discrimination" (Salimans 2016) or "std" (Karras 2017) compares the samples of a batch.
        classes: classes; 0 for none.
        condition: how labels come in: a "projection" of the features, or "concatenate" to the image as planes.
        outputs: logits a sample.
        hidden: units of a fully connected layer before the logits, as InfoGAN's for 28 pixels has (1024); 0: none.
    """

    def __init__(
        self,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        norm: Literal["batch", "none", "spectral"] = "batch",
        minibatch: Literal["none", "discrimination", "std"] = "none",
        classes: int = 0,
        condition: Literal["projection", "concatenate"] = "projection",
        outputs: int = 1,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        count, start = stages(size)
        self.classes, self.concatenate = classes, condition == "concatenate"
        inputs = channels + (classes if self.concatenate else 0)
        layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for place in range(1, count):
            before, after = width * 2 ** (place - 1), width * 2**place
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=norm != "batch"))
            layers += [nn.BatchNorm2d(after)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2, True))
        maps = width * 2 ** (count - 1)
        if minibatch == "std":
            layers.append(MinibatchStd())
            maps += 1
        layers.append(nn.Flatten())
        found = maps * start * start
        if hidden:
            layers.append(nn.Linear(found, hidden, bias=norm != "batch"))
            layers += [nn.BatchNorm1d(hidden)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2, True))
            found = hidden
        self.layers = nn.Sequential(*layers)
        self.minibatch = MinibatchDiscrimination(found) if minibatch == "discrimination" else nn.Identity()
        found += self.minibatch.kernels if minibatch == "discrimination" else 0
        self.head = Head(found, outputs, 0 if self.concatenate else classes)
        self.apply(small_normal)
        if norm == "spectral":
            spectral_norm(self)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the values before the last layer (N, F)."""
        if self.classes and self.concatenate:
            x = planes(x, one_hot(labels, self.classes))
        return self.layers(x)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.minibatch(self.features(x, labels)), labels)


def small_normal(layer: nn.Module) -> None:
    """Start a layer as DCGAN, pix2pix and CycleGAN do: weights N(0, 0.02), batch norm's scale N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, 0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
        nn.init.normal_(layer.weight, 1, 0.02)
        nn.init.zeros_(layer.bias)
