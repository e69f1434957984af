"""Pixel by pixel: how far apart two images of the same shape are."""

import torch
from torch import Tensor


def difference(output: Tensor, target: Tensor) -> Tensor:
    """Subtract like from like: `output - target`, in float32 at least (float64 stays).

    Raises:
        ValueError: The shapes differ; broadcasting would hide a mistake.
    """
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have the same shape")
    wide = torch.promote_types(torch.promote_types(output.dtype, target.dtype), torch.float32)
    return output.to(wide) - target.to(wide)


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each sample: (N, ...) and (N, ...), any range, to (N,)."""
    return difference(output, target).abs().flatten(1).mean(1)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of each sample: (N, ...) and (N, ...), any range, to (N,)."""
    return difference(output, target).square().flatten(1).mean(1)


def charbonnier(output: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), an absolute difference that is smooth at zero: to (N,).

    Paper: Charbonnier et al. 1994; Lai et al. 2017 (https://arxiv.org/abs/1704.03915), equation 2.
    Equal images give `epsilon`, which has the images' unit.
    """
    return (difference(output, target).square() + epsilon**2).sqrt().flatten(1).mean(1)
