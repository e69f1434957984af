"""Structural similarity."""

from typing import Literal

from torch import Tensor

from img2img.fidelity.structural import similarity
from img2img.metrics.psnr import Images, planes, result


def ssim(output: Images, target: Images, *, border: int = 0, channel: Literal["rgb", "y"] = "rgb") -> Tensor | float:
    """Mean structural similarity in [-1, 1], 1 for equal images: Wang et al. 2004, 11-pixel Gaussian window.

    Args:
        output: (N, C, H, W) in [0, 1], or a picture (H, W, C) of uint8 or uint16.
        target: The same kind and shape.
        border: Pixels to leave out on each side.
        channel: "rgb" for the mean over channels, or "y" for luma; see `img2img.metrics.psnr.planes`.

    Returns:
        (N,) for tensors, a float for a picture.

    Raises:
        ValueError: See `planes`; or the image, without its border, is smaller than the window.
    """
    return result(similarity(*planes(output, target, border, channel)), output)
