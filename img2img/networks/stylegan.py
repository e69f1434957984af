"""StyleGAN's generator (Karras et al. 2018, https://arxiv.org/abs/1812.04948).

Its discriminator is ``progressive_discriminator``. Unlike the paper's it does not grow: all blocks are trained at full
size from the start.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.networks.conditional import one_hot
from img2img.networks.dcgan import stages
from img2img.networks.equalised import Blur, EqualConv2d, EqualLinear, PixelNorm
from img2img.networks.progressive import channels_at


class Style(nn.Module):
    """Noise, leaky ReLU and adaptive instance norm: what follows each convolution.

    Args:
        width: channels. styles: length of w. side: of the feature map, for the noise used in evaluation.
    """

    def __init__(self, width: int, styles: int, side: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(width))
        self.affine = EqualLinear(styles, 2 * width)
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # A fixed picture of noise in evaluation: a latent means one image.
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device) if self.training else self.noise
        x = functional.leaky_relu(x + (self.strength[:, None, None] * noise).to(x.dtype), 0.2)
        gain, bias = self.affine(w)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(bias, functional.instance_norm(x), 1 + gain)


class StyleGANGenerator(nn.Module):
    """Latent (N, latent) to images (N, C, size, size), about [-1, 1]: the last layer is linear, as in the paper.

    ``map`` gives a latent's style w, ``synthesise`` the image of one style a layer; the forward pass joins them.

    Args:
        latent: numbers that stand for an image.
        styles: length of w.
        depth: layers of the mapping network.
        width: channels at full size; they double towards the constant input up to ``widest``.
        widest: most channels.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        classes: classes that are appended to the latent; 0 for none.
        mixing: share of training batches whose styles change to another latent's at a random layer.
        decay: of the running mean of w that truncation pulls to.

    Attributes:
        latent: as above.
        layers: styles that an image takes: two a resolution.

    Raises:
        ValueError: a size or depth that cannot be.
    """

    def __init__(
        self,
        latent: int = 128,
        styles: int = 128,
        depth: int = 8,
        width: int = 32,
        widest: int = 256,
        size: int = 32,
        channels: int = 3,
        classes: int = 0,
        mixing: float = 0.9,
        decay: float = 0.995,
    ) -> None:
        super().__init__()
        self.latent, self.classes, self.mixing, self.decay = latent, classes, mixing, decay
        count, start = stages(size)
        if not 1 <= depth <= 64:
            raise ValueError(f"depth = {depth} must be 1 to 64")
        self.layers = 2 * (count + 1)
        mapping: list[nn.Module] = [PixelNorm()]
        inputs = latent + classes
        for _ in range(depth):
            mapping += [EqualLinear(inputs, styles, gain=math.sqrt(2), rate=0.01), nn.LeakyReLU(0.2)]
            inputs = styles
        self.mapping = nn.Sequential(*mapping)
        plan = channels_at(width, count, widest)
        self.constant = nn.Parameter(torch.ones(1, plan[0], start, start))
        convolutions: list[nn.Module] = [nn.Identity(), EqualConv2d(plan[0], plan[0], 3)]
        for before, after in zip(plan, plan[1:], strict=False):
            convolutions.append(nn.Sequential(nn.Upsample(scale_factor=2), EqualConv2d(before, after, 3), Blur()))
            convolutions.append(EqualConv2d(after, after, 3))
        self.convolutions = nn.ModuleList(convolutions)
        self.styles = nn.ModuleList(
            Style(plan[layer // 2], inputs, start * 2 ** (layer // 2)) for layer in range(self.layers)
        )
        self.image = EqualConv2d(plan[-1], channels, 1, gain=1)
        self.register_buffer("mean", torch.zeros(inputs))

    def map(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Return the styles w (N, styles) of latents; ``truncation`` below 1 pulls them to their mean."""
        if self.classes:
            z = torch.cat([z, one_hot(labels, self.classes)], 1)
        w = self.mapping(z)
        return w if truncation == 1 else torch.lerp(self.mean.to(w.dtype), w, truncation)

    def synthesise(self, w: Tensor) -> Tensor:
        """Return the images of styles (N, layers, styles); coarse layers come first."""
        x = self.constant.expand(len(w), -1, -1, -1)
        for layer, (convolution, style) in enumerate(zip(self.convolutions, self.styles, strict=True)):
            x = style(convolution(x), w[:, layer])
        return self.image(x)

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        w = self.map(z, labels, truncation)
        styles = w[:, None].expand(-1, self.layers, -1)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(w.detach().float().mean(0), 1 - self.decay)
            if torch.rand(()).item() < self.mixing:
                other = self.map(torch.randn_like(z), labels, truncation)
                change = int(torch.randint(1, self.layers, ()))
                styles = torch.cat([styles[:, :change], other[:, None].expand(-1, self.layers - change, -1)], 1)
        return self.synthesise(styles)
