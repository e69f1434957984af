"""The PatchGAN discriminator of pix2pix (Isola et al. 2016, https://arxiv.org/abs/1611.07004)."""

from typing import Literal

from torch import Tensor, nn

from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.dcgan import small_normal
from img2img.networks.norms import normalisation


class PatchGAN(nn.Module):
    """Images (N, C, H, W) to one logit a patch (N, 1, h, w).

    Args:
        inputs: channels in: of a source and a target together, where the task judges both; 0 for ``channels``.
        channels: channels of an image that is judged alone.
        width: channels of the first layer; they double up to eight times that.
        layers: halvings: 3 judges patches of 70 pixels, 1 of 16, 0 single pixels (the paper's PixelGAN); "image" for as
            many as it takes until a patch is as large as the image (the paper's ImageGAN: 5 for 256 pixels).
        size: side of the images, for ``layers = "image"``.
        norm: "batch", "instance", "spectral" or "none".
    """

    def __init__(
        self,
        inputs: int = 0,
        channels: int = 3,
        width: int = 64,
        layers: int | Literal["image"] = 3,
        size: int = 256,
        norm: Literal["batch", "instance", "spectral", "none"] = "batch",
    ) -> None:
        super().__init__()
        inputs, bias = inputs or channels, norm != "batch"
        if layers == "image":
            # n halvings and the two convolutions behind them see 9 * 2^n - 2 pixels.
            layers = next(count for count in range(1, 64) if 9 * 2**count - 2 >= size)
        if not 0 <= layers <= 16:
            raise ValueError(f"network patchgan: layers = {layers} must be 0 to 16")
        if layers == 0:
            plan: list[nn.Module] = [
                nn.Conv2d(inputs, width, 1),
                nn.LeakyReLU(0.2, True),
                nn.Conv2d(width, width * 2, 1, bias=bias),
                *normalisation(norm, width * 2),
                nn.LeakyReLU(0.2, True),
                nn.Conv2d(width * 2, 1, 1),
            ]
        else:
            plan = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
            for place in range(1, layers + 1):
                before, after = width * min(8, 2 ** (place - 1)), width * min(8, 2**place)
                stride = 2 if place < layers else 1
                plan += [
                    nn.Conv2d(before, after, 4, stride, 1, bias=bias),
                    *normalisation(norm, after),
                    nn.LeakyReLU(0.2, True),
                ]
            plan.append(nn.Conv2d(after, 1, 4, 1, 1))
        self.layers = nn.Sequential(*plan)
        self.apply(small_normal)
        if norm == "spectral":
            spectral_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
