"""SRResNet and the SRGAN discriminator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def fold(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Return one convolution equal to ``norm(conv(x))`` in evaluation mode; ``norm`` may be an Identity."""
    if isinstance(norm, nn.Identity):
        return conv
    return nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval())


class Block(nn.Module):
    """Residual block: two 3x3 convolutions with PReLU between, (N, width, H, W) -> the same."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()
        self.activation = nn.PReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))

    def deploy(self) -> None:
        """Fold the normalisation into the convolutions."""
        self.conv1, self.norm1 = fold(self.conv1, self.norm1), nn.Identity()
        self.conv2, self.norm2 = fold(self.conv2, self.norm2), nn.Identity()


class SubpixelConv2d(nn.Conv2d):
    """``conv(pixel_shuffle(x))`` computed before the shuffle: the same mathematics at a quarter of the positions.

    A convolution with few outputs at full resolution runs far below a processor's limit. Its taps fall on the four
    sub-pixels of the smaller grid in a fixed pattern, so it equals a wider convolution there, followed by the shuffle.

    The weight is kept as that of the plain convolution, ``(out, in, k, k)`` with odd ``k``;
    (N, in * r * r, H, W) -> (N, out, H * r, W * r).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, factor: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.factor = factor
        half = kernel // 2
        # The smaller grid's taps reach from floor(-half / r) to floor((r - 1 + half) / r), which is symmetric.
        reach = -(-half // factor)
        size = 2 * reach + 1
        index = torch.full((factor, factor, size, size, factor, factor), kernel * kernel)
        for oy in range(factor):
            for ox in range(factor):
                for ty in range(kernel):
                    for tx in range(kernel):
                        y, x = oy + ty - half, ox + tx - half
                        index[oy, ox, y // factor + reach, x // factor + reach, y % factor, x % factor] = (
                            ty * kernel + tx
                        )
        self.register_buffer("index", index, persistent=False)

    def rearranged(self) -> Tensor:
        """Return the equal weight on the smaller grid, ``(out * r * r, in * r * r, k', k')``."""
        r, size = self.factor, self.index.shape[2]
        taps = functional.pad(self.weight.flatten(2), (0, 1))  # the last tap is the zero that unused places read
        full = taps[:, :, self.index]  # (out, in, oy, ox, ty, tx, iy, ix)
        return full.permute(0, 2, 3, 1, 6, 7, 4, 5).reshape(
            self.out_channels * r * r, self.in_channels * r * r, size, size
        )

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias.repeat_interleave(self.factor**2)
        x = functional.conv2d(x, self.rearranged(), bias, padding=self.index.shape[2] // 2)
        return functional.pixel_shuffle(x, self.factor)


class SRResNet(nn.Module):
    """SRResNet: (N, C, H, W) -> (N, C, H * scale, W * scale), both in [0, 1] (not clamped).

    Args:
        width: feature channels (paper: 64).
        blocks: residual blocks (paper: 16).
        scale: 1, 2, 3, 4 or 8.
        channels: image channels.
        norm: "batch" as in the paper, or "none", which trains faster and to a higher PSNR (Lim et al. 2017, EDSR).
        skip: "nearest" adds the enlarged input to the output, so that the network starts as an enlargement; "none" is
            the paper's.

    Every size is accepted; nothing is padded.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 16,
        scale: int = 4,
        channels: int = 3,
        norm: Literal["batch", "none"] = "batch",
        skip: Literal["none", "nearest"] = "none",
    ) -> None:
        super().__init__()
        steps = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
        if scale not in steps:
            raise ValueError(f"network srresnet: scale {scale} is none of {', '.join(map(str, steps))}")
        self.scale, self.skip = scale, skip
        self.head = nn.Conv2d(channels, width, 9, padding=4)
        self.activation = nn.PReLU()
        self.blocks = nn.Sequential(*(Block(width, norm) for _ in range(blocks)))
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()
        # A shared PReLU commutes with the shuffle, so the last shuffle can wait until after the last convolution.
        ups: list[nn.Module] = []
        for place, factor in enumerate(steps[scale]):
            ups += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PReLU()]
            if place + 1 < len(steps[scale]):
                ups.append(nn.PixelShuffle(factor))
        self.up = nn.Sequential(*ups)
        self.tail = SubpixelConv2d(width, channels, 9, steps[scale][-1] if steps[scale] else 1)
        # Receptive-field radius in input pixels: every convolution's reach, divided by the grid it works on.
        radius, grid = 4.0 + 2 * blocks + 1, 1
        for factor in steps[scale]:
            radius, grid = radius + 1 / grid, grid * factor
        self.margin = int(-(-(radius + 4 / grid) // 1)) + 1
        if norm == "none":
            for block in self.blocks:
                # Without normalisation a deep sum of blocks would start far too loud.
                with torch.no_grad():
                    block.conv2.weight.mul_(0.1)
        if skip == "nearest":
            with torch.no_grad():
                self.tail.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.activation(self.head(x))
        out = self.tail(self.up(first + self.norm(self.body(self.blocks(first)))))
        if self.skip == "nearest":
            out = out + functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return out

    def deploy(self) -> "SRResNet":
        """Fold the normalisation away, for inference; the function stays the same."""
        for block in self.blocks:
            block.deploy()
        self.body, self.norm = fold(self.body, self.norm), nn.Identity()
        return self


class SRGANDiscriminator(nn.Module):
    """The SRGAN discriminator: (N, C, size, size) in [0, 1] -> logits (N, 1).

    Args:
        width: channels of the first layer (paper: 64); they double up to eight times that.
        size: side of the images (paper: 96), a multiple of 16; the data's crop size where the page says nothing.
        channels: image channels.
        hidden: units of the dense layer (paper: 1024).
        norm: "batch" as in the paper; "none" where batches are small, or a penalty is on each sample's gradient.
    """

    def __init__(
        self,
        width: int = 64,
        size: int = 96,
        channels: int = 3,
        hidden: int = 1024,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        if size % 16 or size < 16:
            raise ValueError(
                f"network srgan_discriminator: size {size} is not a multiple of 16; choose {max(size // 16 * 16, 16)}"
            )
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2, True)]
        plan = [(1, 1, 2), (1, 2, 1), (2, 2, 2), (2, 4, 1), (4, 4, 2), (4, 8, 1), (8, 8, 2)]
        for before, after, stride in plan:
            layers.append(nn.Conv2d(width * before, width * after, 3, stride, 1, bias=norm == "none"))
            layers += [nn.BatchNorm2d(width * after)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2, True))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * 8 * (size // 16) ** 2, hidden),
            nn.LeakyReLU(0.2, True),
            nn.Linear(hidden, 1),
        )

    def features(self, x: Tensor) -> Tensor:
        """Return the maps (N, 8 width, size / 16, size / 16) that the dense layers judge."""
        return self.layers(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
