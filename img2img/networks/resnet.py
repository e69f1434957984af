"""The ResNet generator of CycleGAN (Zhu et al. 2017, https://arxiv.org/abs/1703.10593)."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from img2img.networks.dcgan import small_normal
from img2img.networks.norms import normalisation
from img2img.networks.winograd import Conv3x3


class Block(nn.Module):
    """Two convolutions, and the input added to what they make: (N, C, H, W) to the same."""

    def __init__(self, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        bias = norm == "none"
        self.layers = nn.Sequential(
            Conv3x3(width, width, "reflect", bias),
            *normalisation(norm, width),
            nn.ReLU(True),
            *([nn.Dropout(dropout)] if dropout else []),
            Conv3x3(width, width, "reflect", bias),
            *normalisation(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNet(nn.Module):
    """(N, input_channels, H, W) -> (N, channels, H, W), both in [-1, 1]; H and W multiples of 4, 8 or more.

    Johnson et al. 2016 (https://arxiv.org/abs/1603.08155) with the layers of CycleGAN's appendix 7.2: a 7 x 7
    convolution, two halvings, residual blocks, two doublings, and a 7 x 7 convolution with tanh. Borders are padded by
    reflection, except in the halvings and doublings.

    A normalisation takes away what a bias adds, so only a network without one has biases inside.

    Args:
        width: channels at full resolution; the blocks have four times as many.
        blocks: residual blocks: 9 for images of 256 pixels and more, 6 for 128.
        channels: output channels.
        input_channels: 0 for as many as come out.
        norm: "instance" as in the paper, "batch" or "none".
        dropout: share of values dropped within the blocks.
        upsample: how doublings are done: "transposed" convolutions as in the paper, or "resize": each pixel four times,
            then a convolution, which leaves no pattern of dots (Odena et al. 2016,
            https://doi.org/10.23915/distill.00003) and costs about a fifth more.
        residual: draw what changes, without a tanh, and add it to the input: for translations that leave most as it
            is. As many channels go in as come out; values may leave [-1, 1] a little.

    Attributes:
        multiple: what H and W must be a multiple of.
        margin: how far in pixels, in such multiples, an input pixel reaches while the norms' statistics stand still.
        encoder: the places of `features` that CUT compares (as far as there are blocks).
    """

    multiple = 4

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        channels: int = 3,
        input_channels: int = 0,
        norm: Literal["instance", "batch", "none"] = "instance",
        dropout: float = 0.0,
        upsample: Literal["transposed", "resize"] = "transposed",
        residual: bool = False,
    ) -> None:
        super().__init__()
        if residual and input_channels not in (0, channels):
            raise ValueError(f"network resnet: residual = true needs as many input_channels as channels, {channels}")
        if not 0 <= blocks <= 1000:
            raise ValueError(f"network resnet: blocks = {blocks} must be 0 to 1000")
        self.width, self.blocks, self.inputs, self.residual = width, blocks, input_channels or channels, residual
        bias = norm == "none"

        def after(count: int) -> list[nn.Module]:
            return [*normalisation(norm, count), nn.ReLU(True)]

        first = nn.Conv2d(self.inputs, width, 7, padding=3, padding_mode="reflect", bias=bias)
        stages = [nn.Sequential(first, *after(width))]
        for count in (width, 2 * width):
            stages.append(nn.Sequential(nn.Conv2d(count, 2 * count, 3, 2, 1, bias=bias), *after(2 * count)))
        self.down = nn.Sequential(*stages, *(Block(4 * width, norm, dropout) for _ in range(blocks)))
        up: list[nn.Module] = []
        for count in (4 * width, 2 * width):
            if upsample == "resize":
                up += [nn.Upsample(scale_factor=2), nn.Conv2d(count, count // 2, 3, padding=1, bias=bias)]
            else:
                up.append(nn.ConvTranspose2d(count, count // 2, 3, 2, 1, 1, bias=bias))
            up += after(count // 2)
        last = nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect")
        self.up = nn.Sequential(*up, last, nn.Identity() if residual else nn.Tanh())
        # Both ends 3 pixels; each block 2 at a quarter of the resolution; halving and doubling together 5 more, or 8.
        radius = (14 if upsample == "resize" else 11) + 8 * blocks
        self.margin = -(-radius // self.multiple) * self.multiple
        self.encoder = tuple(place for place in (0, 2, 3, 4, 8) if place <= 3 + blocks)
        self.apply(small_normal)

    def forward(self, x: Tensor) -> Tensor:
        return self._drawn(x, self.down(x))

    def _drawn(self, x: Tensor, seen: Tensor) -> Tensor:
        return x + self.up(seen) if self.residual else self.up(seen)

    def features(self, x: Tensor, layers: Iterable[int] | None = None) -> list[Tensor]:
        """Return what the first half makes of ``x`` at places of it, and compute no more than that.

        Args:
            x: (N, input_channels, H, W) in [-1, 1].
            layers: 0 is the image itself, 1 the first convolution (all with norm and ReLU), 2 and 3 the halvings,
                3 + n the n-th block; None for ``encoder``: CUT's five (Park et al. 2020, https://arxiv.org/abs/2007.15651).

        Raises:
            ValueError: there is no such place.
        """
        wanted = self._places(layers)
        found = {0: x}
        for place in range(max(wanted, default=0)):
            x = self.down[place](x)
            if place + 1 in wanted:
                found[place + 1] = x
        return [found[place] for place in wanted]

    def described(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return ``forward(x)`` and ``features(x)`` from a single pass."""
        found, seen = [], x
        for place, layer in enumerate(self.down):
            if place in self.encoder:
                found.append(seen)
            seen = layer(seen)
        if len(self.down) in self.encoder:
            found.append(seen)
        return self._drawn(x, seen), found

    def feature_channels(self, layers: Iterable[int] | None = None) -> list[int]:
        """Return how many channels each of the `features` has."""
        return [
            (self.inputs, self.width, 2 * self.width, 4 * self.width)[min(each, 3)] for each in self._places(layers)
        ]

    def _places(self, layers: Iterable[int] | None) -> list[int]:
        wanted = list(self.encoder if layers is None else layers)
        for place in wanted:
            if not 0 <= place < len(self.down) + 1:
                raise ValueError(f"network resnet: layer {place} is none of 0 to {len(self.down)}")
        return wanted
