"""Residual generator and discriminator of WGAN-GP, SNGAN and SAGAN.

Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028), Miyato et al. 2018 (https://arxiv.org/abs/1802.05957),
Zhang et al. 2018 (https://arxiv.org/abs/1805.08318); class-conditional as Miyato & Koyama 2018 (https://arxiv.org/abs/1802.05637).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.attention import SelfAttention
from img2img.networks.conditional import ConditionalBatchNorm, Conditioned, Head, one_hot, planes
from img2img.networks.dcgan import stages
from img2img.networks.minibatch import MinibatchStd

WIDEST = 16


def widths(width: int, growth: int, count: int) -> list[int]:
    """Return the channels at full size and after each of ``count`` halvings; they grow up to 16 times the width."""
    return [width * min(WIDEST, growth**place) for place in range(count + 1)]


def attend(side: int, attention: int, width: int) -> list[nn.Module]:
    """Return self-attention if ``side`` is where it belongs."""
    return [SelfAttention(width)] if side == attention else []


def check_attention(attention: int, sides: list[int]) -> None:
    """Refuse an attention that no feature map has the size for."""
    if attention and attention not in sides:
        raise ValueError(f"attention = {attention}: no block's output is of that side; choose 0 (none) or of {sides}")


class Up(nn.Module):
    """A block that doubles the side: norm, ReLU, nearest neighbour, 3x3, norm, ReLU, 3x3, and a 1x1 beside it."""

    conditional = True

    def __init__(self, inputs: int, outputs: int, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.first, self.second = norms
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = functional.relu(normed(self.first, x, condition))
        h = self.conv1(functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.conv2(functional.relu(normed(self.second, h, condition)))
        # A 1x1 convolution and nearest neighbour commute: at the small side it costs a quarter.
        return h + functional.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")


def normed(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """Apply a norm, with the condition if it wants one."""
    return norm(x, condition) if getattr(norm, "conditional", False) else norm(x)


class Down(nn.Module):
    """A block of the discriminator: (ReLU,) 3x3, ReLU, 3x3, mean of 2x2, and a 1x1 beside it.

    Args:
        inputs: channels in. outputs: channels out.
        halve: whether the side is halved.
        first: the block that sees the image, which no ReLU may cut.
        norm: "layer" normalises before each ReLU.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, first: bool = False, norm: str = "none") -> None:
        super().__init__()
        layer = norm == "layer"
        self.norm1 = nn.GroupNorm(1, inputs) if layer and not first else nn.Identity()
        self.norm2 = nn.GroupNorm(1, outputs) if layer else nn.Identity()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if halve or inputs != outputs else nn.Identity()
        self.halve, self.first = halve, first

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else functional.relu(self.norm1(x)))
        h = self.conv2(functional.relu(self.norm2(h)))
        if not self.halve:
            return h + self.skip(x)
        return functional.avg_pool2d(h, 2) + self.skip(functional.avg_pool2d(x, 2))


class ResNetGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size) in [-1, 1].

    Args:
        latent: numbers that stand for an image.
        width: channels at full size.
        growth: factor of the channels from block to block towards the latent; 1 for the papers' 32 pixels, else 2.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "batch" or "none".
        spectral: whether every layer is spectrally normalised, as SAGAN's generator.
        attention: side of the feature map that has self-attention; 0 for none.
        classes: classes; 0 for none.
        condition: how labels come in: as gains of the batch "norm", or "concatenate" to the latent.

    Raises:
        ValueError: labels as gains of a norm that is not there; attention where no feature map is.
    """

    def __init__(
        self,
        latent: int = 128,
        width: int = 64,
        growth: int = 2,
        size: int = 32,
        channels: int = 3,
        norm: Literal["batch", "none"] = "batch",
        spectral: bool = False,
        attention: int = 0,
        classes: int = 0,
        condition: Literal["norm", "concatenate"] = "norm",
    ) -> None:
        super().__init__()
        count, start = stages(size)
        check_attention(attention, [start * 2**place for place in range(1, count + 1)])
        gains = classes if condition == "norm" else 0
        if gains and norm == "none":
            raise ValueError("condition = 'norm' needs norm = 'batch'; use condition = 'concatenate'")
        self.latent, self.classes, self.concatenate = latent, classes, bool(classes) and not gains

        def build(width: int) -> nn.Module:
            if norm == "none":
                return nn.Identity()
            return ConditionalBatchNorm(width, gains) if gains else nn.BatchNorm2d(width)

        plan = widths(width, growth, count)[::-1]
        inputs = latent + (classes if self.concatenate else 0)
        layers: list[nn.Module] = [nn.Linear(inputs, plan[0] * start**2), nn.Unflatten(1, (plan[0], start, start))]
        for place, (before, after) in enumerate(zip(plan, plan[1:], strict=False), 1):
            layers.append(Up(before, after, (build(before), build(after))))
            layers += attend(start * 2**place, attention, after)
        last = nn.BatchNorm2d(plan[-1]) if norm == "batch" else nn.Identity()
        layers += [last, nn.ReLU(), nn.Conv2d(plan[-1], channels, 3, padding=1), nn.Tanh()]
        self.layers = Conditioned(*layers)
        self.apply(glorot)
        if spectral:
            spectral_norm(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = one_hot(labels, self.classes) if self.classes else None
        if self.concatenate:
            z = torch.cat([z, condition], 1)
        return self.layers(z, condition)


class ResNetDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, outputs), by the sum of the last feature map over its places.

    BigGAN's discriminator is this one with norm = "spectral", init = "orthogonal", classes and attention.

    Args:
        width: channels after the first block.
        growth: factor of the channels from block to block; 1 for the papers' 32 pixels, else 2.
        flat: blocks after the last halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        norm: "spectral"; "layer" as WGAN-GP, where a penalty on each sample's gradient forbids batch norm; or "none".
        attention: side of the feature map that has self-attention; 0 for none.
        minibatch: "std" (Karras 2017) compares the samples of a batch.
        classes: classes; 0 for none.
        condition: how labels come in: a "projection" of the features, or "concatenate" to the image as planes.
        outputs: logits a sample.
        init: start of the weights: "xavier" or "orthogonal".

    Raises:
        ValueError: attention where no feature map is.
    """

    def __init__(
        self,
        width: int = 64,
        growth: int = 2,
        flat: int = 1,
        size: int = 32,
        channels: int = 3,
        norm: Literal["none", "layer", "spectral"] = "spectral",
        attention: int = 0,
        minibatch: Literal["none", "std"] = "none",
        classes: int = 0,
        condition: Literal["projection", "concatenate"] = "projection",
        outputs: int = 1,
        init: Literal["xavier", "orthogonal"] = "xavier",
    ) -> None:
        super().__init__()
        count, _ = stages(size)
        if not 0 <= flat <= 64:
            raise ValueError(f"flat = {flat} must be 0 to 64")
        check_attention(attention, [size // 2**place for place in range(1, count + 1)])
        self.classes, self.concatenate = classes, condition == "concatenate"
        before = channels + (classes if self.concatenate else 0)
        layers: list[nn.Module] = []
        for place, after in enumerate(widths(width, growth, count - 1), 1):
            layers += [
                Down(before, after, True, first=place == 1, norm=norm),
                *attend(size // 2**place, attention, after),
            ]
            before = after
        layers += [MinibatchStd()] if minibatch == "std" else []
        inputs = before + (minibatch == "std")
        for _ in range(flat):
            layers.append(Down(inputs, before, False, norm=norm))
            inputs = before
        self.layers = nn.Sequential(*layers)
        self.head = Head(inputs, outputs, 0 if self.concatenate else classes)
        self.apply(glorot if init == "xavier" else orthogonal)
        if norm == "spectral":
            spectral_norm(self)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the last feature map, rectified and summed over its places (N, F)."""
        if self.classes and self.concatenate:
            x = planes(x, one_hot(labels, self.classes))
        return functional.relu(self.layers(x)).sum((2, 3))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, labels), labels)


def glorot(layer: nn.Module) -> None:
    """Start convolutions and linear layers by Glorot's rule, biases at 0; the gains of conditional norms stay small."""
    _start(layer, nn.init.xavier_uniform_)


def orthogonal(layer: nn.Module) -> None:
    """Start convolutions and linear layers orthogonal, biases at 0 (Brock et al. 2018, section 3)."""
    _start(layer, nn.init.orthogonal_)


def _start(layer: nn.Module, rule) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        rule(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, ConditionalBatchNorm):  # visited after its linear layers
        nn.init.normal_(layer.gain.weight, 0, 0.02)
        nn.init.normal_(layer.bias.weight, 0, 0.02)
