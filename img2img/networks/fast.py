"""A super-resolution network made for the CPU: plain 3x3 convolutions at low resolution, one sub-pixel step at the end.

While it learns, every convolution is a sum of parallel linear branches (Zhang et al. 2021, ECBSR; Ding et al. 2021,
RepVGG); a sum of linear maps is one linear map, so they are merged into a single 3x3 kernel before it is applied.
With ``expand=0`` and ``residual=False`` it is the shape of SRVGGNetCompact (Wang et al. 2021, Real-ESRGAN).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.networks.projection import Projection


class RepConv2d(nn.Conv2d):
    """A 3x3 convolution learned as 3x3 + (1x1 to ``expand`` times as many channels, then 3x3) + identity.

    The branches have no bias inside, so that zero padding means the same in each of them. The merged kernel is worked
    out from the parameters in every training step, which costs a small product of kernels instead of more convolutions.
    """

    def __init__(self, inputs: int, outputs: int, expand: int = 0, residual: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        assert not residual or inputs == outputs
        self.residual = residual
        wide = expand * outputs
        # A step of Adam moves every weight equally far, and a product of matrices adds up ``wide`` such moves. Without
        # this factor the branch learns some ten times as fast as the plain kernel, and can silence every ReLU for good.
        self.gain = max(wide, 1) ** -0.5
        self.widen = nn.Parameter(torch.empty(wide, inputs)) if wide else None
        self.narrow = nn.Parameter(torch.empty(outputs, wide, 3, 3)) if wide else None
        if wide:
            nn.init.normal_(self.widen, std=inputs**-0.5)
            nn.init.normal_(self.narrow, std=0.1 / 3)

    def merged(self) -> Tensor:
        """Return the kernel (out, in, 3, 3) that equals the sum of the branches."""
        kernel = self.weight
        if self.widen is not None:
            with torch.autocast(kernel.device.type, enabled=False):
                kernel = kernel + self.gain * torch.einsum("owyx,wi->oiyx", self.narrow, self.widen)
        if self.residual:
            eye = torch.eye(self.out_channels, dtype=kernel.dtype, device=kernel.device)
            kernel = kernel + functional.pad(eye[:, :, None, None], (1, 1, 1, 1))
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.merged(), self.bias, padding=1)

    def plain(self) -> nn.Conv2d:
        """Return the equal ordinary convolution."""
        conv = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1)
        conv.weight = nn.Parameter(self.merged().detach().clone())
        conv.bias = nn.Parameter(self.bias.detach().clone())
        return conv


class Fast(nn.Module):
    """The fast upscaler: (N, C, H, W) -> (N, C, H * scale, W * scale), both in [0, 1] (not clamped).

    Args:
        width: feature channels.
        depth: 3x3 convolutions between the first and the last.
        scale: any whole number.
        channels: image channels.
        expand: widening of the extra branch of each convolution in training; 0 leaves it out.
        residual: add the identity to each inner convolution.
        activation: "relu", or "prelu" with one slope a channel.
        consistent: change the output as little as makes its bicubic reduction the input, see
            `img2img.networks.projection.Projection`.

    Every size is accepted; nothing is padded.
    """

    def __init__(
        self,
        width: int = 48,
        depth: int = 8,
        scale: int = 4,
        channels: int = 3,
        expand: int = 2,
        residual: bool = True,
        activation: Literal["relu", "prelu"] = "relu",
        consistent: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= scale <= 64 or depth < 0 or expand < 0:
            raise ValueError(f"network fast: scale {scale}, depth {depth}, expand {expand}: at least 1, 0 and 0")
        self.scale, self.channels = scale, channels
        self.projection = Projection(scale) if consistent else None
        self.precise = consistent  # bfloat16 has steps of 1/256
        self.margin = depth + 2 + (self.projection.margin if consistent else 0)
        layers: list[nn.Module] = [RepConv2d(channels, width, expand)]
        for _ in range(depth):
            layers += [self._activation(activation, width), RepConv2d(width, width, expand, residual)]
        layers += [self._activation(activation, width), RepConv2d(width, channels * scale**2, expand)]
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, RepConv2d):
                    # He's scale for the plain kernel; beside an identity it starts as a small correction.
                    nn.init.kaiming_normal_(layer.weight, a=0.1)
                    layer.weight.mul_(0.1 if layer.residual else 1.0)
                    layer.bias.zero_()
            self.layers[-1].weight.mul_(0.1)

    @staticmethod
    def _activation(name: str, width: int) -> nn.Module:
        return nn.ReLU(inplace=True) if name == "relu" else nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        # The enlarged input is added before the shuffle: each pixel repeated for its own sub-pixels.
        out = self.layers(x) + x.repeat_interleave(self.scale**2, dim=1)
        out = functional.pixel_shuffle(out, self.scale)
        return self.projection(out, x) if self.projection else out

    def deploy(self) -> "Fast":
        """Merge the branches into plain convolutions, for inference; the function stays the same."""
        for place, layer in enumerate(self.layers):
            if isinstance(layer, RepConv2d):
                self.layers[place] = layer.plain()
        return self
