"""Virtual batch norm (Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 3.5)."""

import torch
from torch import Tensor, nn


class VirtualBatchNorm(nn.Module):
    """Normalise each sample by the moments of a fixed reference batch and itself: (R + N, C, H, W) -> the same.

    The first ``reference`` samples are the reference batch, passed through the network along with the others, so that
    an output depends on its own input alone. The sample weighs as one of R + 1.

    Args:
        width: channels.
        reference: R, samples of the reference batch.
    """

    def __init__(self, width: int, reference: int) -> None:
        super().__init__()
        self.reference = reference
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        share = 1 / (self.reference + 1)
        wide = x.float()
        mean, square = wide.mean((2, 3)), wide.square().mean((2, 3))
        common = mean[: self.reference].mean(0), square[: self.reference].mean(0)
        # The reference samples are normalised by the reference batch alone.
        weight = torch.full((len(x), 1), share, device=x.device)
        weight[: self.reference] = 0
        mean, square = (
            torch.lerp(both.expand_as(own), own, weight) for both, own in zip(common, (mean, square), strict=True)
        )
        scale = self.gain * (square - mean.square()).clamp(min=0).add(1e-5).rsqrt()
        shift = self.bias - mean * scale
        return (wide * scale[:, :, None, None] + shift[:, :, None, None]).to(x.dtype)
