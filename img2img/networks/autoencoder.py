"""A discriminator that judges by how badly it reconstructs: EBGAN and BEGAN.

Zhao et al. 2016 (https://arxiv.org/abs/1609.03126), Berthelot et al. 2017 (https://arxiv.org/abs/1703.10717).
"""

from typing import Literal

from torch import Tensor, nn

from img2img.networks.dcgan import DCGANGenerator, small_normal, stages


class AutoencoderDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, 1): minus the mean error of their reconstruction, 0 at best.

    Args:
        hidden: length of the code.
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        error: "mse" as EBGAN, or "l1" as BEGAN; the mean over pixels and channels.
        norm: "batch" or "none"; batch norm lets samples meet, which gradient penalties forbid.
    """

    def __init__(
        self,
        hidden: int = 64,
        width: int = 32,
        size: int = 32,
        channels: int = 3,
        error: Literal["mse", "l1"] = "mse",
        norm: Literal["batch", "none"] = "none",
    ) -> None:
        super().__init__()
        count, start = stages(size)
        layers: list[nn.Module] = []
        before = channels
        for place in range(count):
            after = width * 2**place
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=norm == "none" or place == 0))
            layers += [nn.BatchNorm2d(after)] if norm == "batch" and place else []
            layers.append(nn.LeakyReLU(0.2, True))
            before = after
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * start * start, hidden))
        self.decoder = DCGANGenerator(hidden, width, size, channels, norm=norm)
        self.squared = error == "mse"
        self.encoder.apply(small_normal)
        if norm == "none":  # without a norm, weights of 0.02 would let nothing through to the code and back
            self.apply(_he)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the code (N, hidden)."""
        return self.encoder(x)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        apart = self.decoder(self.encoder(x)).float() - x.float()
        return -(apart.square() if self.squared else apart.abs()).flatten(1).mean(1, keepdim=True)


def _he(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, 0.2)
