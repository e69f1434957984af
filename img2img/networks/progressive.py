"""Progressive growing of GANs (Karras et al. 2017, https://arxiv.org/abs/1710.10196)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.networks.conditional import Head, one_hot
from img2img.networks.dcgan import stages
from img2img.networks.equalised import Blur, EqualConv2d, EqualLinear, PixelNorm
from img2img.networks.minibatch import MinibatchStd


class Growth(nn.Module):
    """How far a network has grown: 0 is the smallest grid, ``count`` the full size, fractions fade a level in.

    Args:
        count: doublings in all.
        stable_images: images that each level is trained on as it stands.
        fade_images: images over which a level is faded in.
    """

    def __init__(self, count: int, stable_images: int, fade_images: int) -> None:
        super().__init__()
        self.count, self.stable_images, self.fade_images = count, stable_images, fade_images
        self.register_buffer("position", torch.tensor(float(count)))

    def set_progress(self, images: int) -> None:
        """Grow to where ``images`` seen belong: stable, then fade and stable again for each doubling.

        Without images for either it is full-grown from the start.
        """
        if not self.stable_images + self.fade_images:
            self.position.fill_(self.count)
            return
        levels, rest = divmod(max(images - self.stable_images, 0), max(self.stable_images + self.fade_images, 1))
        faded = min(1.0, rest / self.fade_images) if self.fade_images else 1.0
        self.position.fill_(min(self.count, levels + faded if images >= self.stable_images else 0.0))

    @property
    def level(self) -> tuple[int, float]:
        """Return the largest level in use, and its weight beside the one below, in (0, 1]."""
        position = self.position.item()
        level = math.ceil(position)
        return level, position - level + 1


def channels_at(width: int, count: int, widest: int) -> list[int]:
    """Return the channels from the smallest grid to full size: halving from ``widest`` or less down to ``width``."""
    return [min(widest, width * 2 ** (count - level)) for level in range(count + 1)]


def enlarge(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat each pixel: (N, C, H, W) -> (N, C, factor * H, factor * W)."""
    return functional.interpolate(x, scale_factor=float(factor), mode="nearest") if factor > 1 else x


class ProgressiveGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size), about [-1, 1]: the last layer is linear, as in the paper.

    While it grows it gives the images of its present level with their pixels repeated: their size never changes.
    Without a call of ``set_progress`` it is full-grown.

    Args:
        latent: numbers that stand for an image.
        width: channels at full size; they double towards the latent up to ``widest``.
        widest: most channels.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes that are appended to the latent; 0 for none.
        stable_images: images for which each level is trained as it stands.
        fade_images: images over which a level is faded in.

    Attributes:
        latent: as above.
    """

    def __init__(
        self,
        latent: int = 128,
        width: int = 32,
        widest: int = 256,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        stable_images: int = 100_000,
        fade_images: int = 100_000,
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.doublings, start = stages(size)
        self.growth = Growth(self.doublings, stable_images, fade_images)
        plan = channels_at(width, self.doublings, widest)

        def conv(before: int, after: int) -> list[nn.Module]:
            return [EqualConv2d(before, after, 3), nn.LeakyReLU(0.2), PixelNorm()]

        first = [
            PixelNorm(),
            EqualLinear(latent + classes, plan[0] * start**2, gain=math.sqrt(2) / start),
            nn.Unflatten(1, (plan[0], start, start)),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            *conv(plan[0], plan[0]),
        ]
        later = [
            [nn.Upsample(scale_factor=2), *conv(before, after), *conv(after, after)]
            for before, after in zip(plan, plan[1:], strict=False)
        ]
        self.blocks = nn.ModuleList(nn.Sequential(*block) for block in (first, *later))
        self.images = nn.ModuleList(EqualConv2d(after, channels, 1, gain=1) for after in plan)

    def set_progress(self, images: int) -> None:
        """Grow to where so many training images belong."""
        self.growth.set_progress(images)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = torch.cat([z, one_hot(labels, self.classes)], 1) if self.classes else z
        level, weight = self.growth.level
        for block in self.blocks[: level + 1]:
            before, x = x, block(x)
        found = self.images[level](x)
        if weight < 1:
            found = torch.lerp(enlarge(self.images[level - 1](before)), found, weight)
        return enlarge(found, 2 ** (self.doublings - level))


class ProgressiveDiscriminator(nn.Module):
    """Images (N, C, size, size) to logits (N, outputs); it averages them down to its present level itself.

    Since the input keeps its full size, a gradient penalty measures distances between full-size images at every level.

    Args:
        width: channels at full size; they double up to ``widest``.
        widest: most channels.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes of the projection; 0 for none.
        outputs: logits a sample.
        group: samples that minibatch standard deviation compares; 0 leaves it out.
        stable_images: images for which each level is trained as it stands.
        fade_images: images over which a level is faded in.
        blur: low-pass before each halving, as in StyleGAN (Karras et al. 2018, section 2, configuration B).
    """

    def __init__(
        self,
        width: int = 32,
        widest: int = 256,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        outputs: int = 1,
        group: int = 4,
        stable_images: int = 100_000,
        fade_images: int = 100_000,
        blur: bool = False,
    ) -> None:
        super().__init__()
        self.doublings, start = stages(size)
        self.growth = Growth(self.doublings, stable_images, fade_images)
        plan = channels_at(width, self.doublings, widest)
        self.images = nn.ModuleList(nn.Sequential(EqualConv2d(channels, after, 1), nn.LeakyReLU(0.2)) for after in plan)
        slope = nn.LeakyReLU(0.2)
        last = [
            *([MinibatchStd(group)] if group else []),
            EqualConv2d(plan[0] + bool(group), plan[0], 3),
            slope,
            EqualConv2d(plan[0], plan[0], start, padding=0),
            slope,
            nn.Flatten(),
        ]
        earlier = [
            [
                EqualConv2d(fine, fine, 3),
                slope,
                *([Blur()] if blur else []),
                EqualConv2d(fine, coarse, 3),
                slope,
                nn.AvgPool2d(2),
            ]
            for coarse, fine in zip(plan, plan[1:], strict=False)
        ]
        self.blocks = nn.ModuleList(nn.Sequential(*block) for block in (last, *earlier))
        self.head = Head(plan[0], outputs, classes, EqualLinear)

    def set_progress(self, images: int) -> None:
        """Grow to where so many training images belong."""
        self.growth.set_progress(images)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the values before the last layer (N, F)."""
        level, weight = self.growth.level
        x = functional.avg_pool2d(x, 2 ** (self.doublings - level)) if level < self.doublings else x
        found = self.blocks[level](self.images[level](x))
        if weight < 1:
            found = torch.lerp(self.images[level - 1](functional.avg_pool2d(x, 2)), found, weight)
        for block in reversed(self.blocks[:level]):
            found = block(found)
        return found

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, labels), labels)
