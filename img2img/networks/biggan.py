"""BigGAN's generator (Brock et al. 2018, https://arxiv.org/abs/1809.11096).

Its discriminator is ``resnet_gan_discriminator``.
"""

import torch
from torch import Tensor, nn

from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.conditional import ConditionalBatchNorm, one_hot
from img2img.networks.dcgan import stages
from img2img.networks.resnet_gan import Up, attend, check_attention, orthogonal, widths


class BigGANGenerator(nn.Module):
    """Latent (N, latent) and labels (N,) to images (N, C, size, size) in [-1, 1].

    The latent is cut into one piece a block and one for the start; each block's batch norms are steered by its piece
    and an embedding of the class that all of them share.

    Args:
        latent: numbers that stand for an image; a multiple of the blocks plus one (size 32: 4, 64: 5, 128: 6).
        width: channels at full size; they double up to 16 times that.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes; 0 for none.
        embedding: length of the shared embedding.
        attention: side of the feature map that has self-attention; 0 for none.
        spectral: whether every layer is spectrally normalised.

    Raises:
        ValueError: a latent that cannot be cut; attention where no feature map is.
    """

    def __init__(
        self,
        latent: int = 80,
        width: int = 64,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        embedding: int = 128,
        attention: int = 0,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        count, start = stages(size)
        sides = [start * 2**place for place in range(1, count + 1)]
        check_attention(attention, sides)
        if latent % (count + 1):
            raise ValueError(f"latent = {latent} cannot be cut into {count + 1} pieces; choose a multiple of that")
        self.latent, self.classes, self.piece = latent, classes, latent // (count + 1)
        self.embed = nn.Linear(classes, embedding, bias=False) if classes else None
        inputs = self.piece + (embedding if classes else 0)
        plan = widths(width, 2, count)[::-1]
        self.start = nn.Sequential(nn.Linear(self.piece, plan[0] * start**2), nn.Unflatten(1, (plan[0], start, start)))
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleList()
        for side, before, after in zip(sides, plan, plan[1:], strict=False):
            self.blocks.append(
                Up(before, after, (ConditionalBatchNorm(before, inputs), ConditionalBatchNorm(after, inputs)))
            )
            self.attention.append(nn.Sequential(*attend(side, attention, after)))
        self.end = nn.Sequential(
            nn.BatchNorm2d(plan[-1]), nn.ReLU(), nn.Conv2d(plan[-1], channels, 3, padding=1), nn.Tanh()
        )
        self.apply(orthogonal)
        if spectral:
            spectral_norm(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *pieces = z.split(self.piece, 1)
        shared = [self.embed(one_hot(labels, self.classes))] if self.classes else []
        x = self.start(first)
        for block, attention, piece in zip(self.blocks, self.attention, pieces, strict=True):
            x = attention(block(x, torch.cat([*shared, piece], 1)))
        return self.end(x)
