"""Peak signal-to-noise ratio."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Images = Tensor | np.ndarray
"""Tensors (N, C, H, W), float in [0, 1]; or a numpy picture (H, W) or (H, W, C), uint8 or uint16; C = 1 or 3."""


def planes(output: Images, target: Images, border: int, channel: str) -> tuple[Tensor, Tensor]:
    """Bring two images to what a metric compares: (N, C, H, W) tensors in [0, 1], without the border.

    Values are neither clamped nor rounded: hand over what will be written. Pictures become float64.

    Args:
        output: See `Images`.
        target: The same kind and shape.
        border: Pixels to leave out on each side, usually the scale of a super-resolution.
        channel: "rgb" for the channels as they are, "y" for the luma of ITU-R BT.601 in [16, 235] / 255,
            as MATLAB's rgb2ycbcr and BasicSR have it (a grey image counts as R = G = B).

    Raises:
        ValueError: Other types, shapes or numbers of channels; nothing is left within the border; unknown channel.
    """
    output, target = _tensor(output), _tensor(target)
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have the same shape")
    if output.shape[1] not in (1, 3):
        raise ValueError(f"metrics compare grey or RGB images, not {output.shape[1]} channels; leave alpha out")
    height, width = output.shape[-2:]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"border = {border} leaves nothing of an image of {width}x{height} pixels")
    if channel not in ("rgb", "y"):
        raise ValueError(f"channel = {channel!r} must be 'rgb' or 'y'")
    inside = slice(border, height - border), slice(border, width - border)
    wide = torch.promote_types(torch.promote_types(output.dtype, target.dtype), torch.float32)
    pair = [images[..., inside[0], inside[1]].to(wide) for images in (output, target)]
    if channel == "y":
        weights = torch.tensor([65.481, 128.553, 24.966], dtype=wide, device=output.device).view(1, 3, 1, 1)
        pair = [((images * weights).sum(1, keepdim=True) + 16) / 255 for images in pair]
    return pair[0], pair[1]


def result(values: Tensor, output: Images) -> Tensor | float:
    """Return (N,) values as they came: for a picture a float, for tensors a tensor."""
    return values if isinstance(output, Tensor) else values.item()


def psnr(output: Images, target: Images, *, border: int = 0, channel: Literal["rgb", "y"] = "rgb") -> Tensor | float:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), infinite for equal images.

    Args:
        output: (N, C, H, W) in [0, 1], or a picture (H, W, C) of uint8 or uint16.
        target: The same kind and shape.
        border: Pixels to leave out on each side.
        channel: "rgb", or "y" for luma; see `planes`.

    Returns:
        (N,) for tensors, a float for a picture.

    Raises:
        ValueError: See `planes`.
    """
    x, y = planes(output, target, border, channel)
    return result(-10 * (x - y).square().flatten(1).mean(1).log10(), output)


def _tensor(images: Images) -> Tensor:
    if isinstance(images, Tensor):
        if images.dim() != 4 or not images.is_floating_point():
            raise ValueError(f"expected float (N, C, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}")
        return images
    if images.dtype not in (np.uint8, np.uint16) or images.ndim not in (2, 3):
        raise ValueError(f"expected a picture (H, W, C) of uint8 or uint16, got {images.dtype} {images.shape}")
    pixels = np.atleast_3d(images).transpose(2, 0, 1)[None]
    return torch.from_numpy(pixels / np.iinfo(images.dtype).max)
