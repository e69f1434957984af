"""Perceptual distance: LPIPS' formula on the network that is at hand."""

import functools

import torch
from torch import Tensor, nn

from img2img.fidelity.perceptual import Perceptual
from img2img.metrics.psnr import Images, planes, result


@torch.no_grad()
def perceptual_distance(
    output: Images, target: Images, *, network: str | nn.Module = "efficientnet_lite0", border: int = 0
) -> Tensor | float:
    """How differently a pretrained network sees two images, 0 for equal ones.

    The formula is LPIPS' (Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1) without its learned
    weights: feature vectors brought to length 1, squared differences summed over channels, averaged over places
    and then over layers. Figures compare only within one network, so that the metric's name says which:
    `perceptual[efficientnet_lite0]`, `perceptual[hed_vgg16]`. In float32, whatever autocast says.

    Args:
        output: (N, C, H, W) in [0, 1], or a picture (H, W, C) of uint8 or uint16; C = 1 or 3.
        target: The same kind and shape.
        network: A name for `img2img.networks.features.features`, or a module with the same contract.
        border: Pixels to leave out on each side.

    Returns:
        (N,) for tensors, a float for a picture.

    Raises:
        ValueError: See `img2img.metrics.psnr.planes`; or an unknown network, or weights that cannot be fetched.
    """
    x, y = (images.float() for images in planes(output, target, border, "rgb"))
    with torch.autocast(x.device.type, enabled=False):
        return result(_judge(network)(x, y), output)


@functools.cache
def _judge(network: str | nn.Module) -> Perceptual:
    return Perceptual(network, normalize=True)
