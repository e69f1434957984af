"""How much of an input's layout survives in an output that looks otherwise."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.metrics.mean import MeanMetric
from img2img.networks.features import features, resized


def self_similarity(maps: Tensor) -> Tensor:
    """Return the cosine of each pair of places of (N, C, h, w), as (N, h w, h w) in [-1, 1]."""
    unit = F.normalize(maps.flatten(2), dim=1)
    return unit.transpose(1, 2) @ unit


@torch.no_grad()
def structure_distance(
    output: Tensor, reference: Tensor, *, network: str | nn.Module = "efficientnet_lite0", size: int = 224
) -> Tensor:
    """Return how differently the parts of two images relate to one another, 0 for equal ones, at most 4.

    The mean squared difference of the self-similarities of deep features: which places are alike tells of the layout,
    whatever they look like. Tumanyan et al. 2022 (Splice), https://arxiv.org/abs/2201.00424, section 3, from a
    convolutional network's second-deepest stage in place of a transformer's keys, so that figures differ from
    theirs. Both are brought to ``size`` pixels (bicubic), where such a stage has 14 x 14 places.

    Args:
        output: (N, C, H, W) in [0, 1].
        reference: (N, C, h, w) in [0, 1], of any size and either number of channels.
        network: A name for `img2img.networks.features.features`, or a module with its contract.
        size: Side in pixels that the network sees.

    Returns:
        (N,).

    Raises:
        ValueError: Unknown network, or weights that cannot be fetched; other numbers of images.
    """
    if len(output) != len(reference):
        raise ValueError(f"{len(output)} outputs and {len(reference)} inputs must be as many")
    net = _judge(network).to(output.device)
    with torch.autocast(output.device.type, enabled=False):
        found = []
        for images in (output, reference):
            images = resized(images.float(), size, "bicubic").expand(-1, 3, -1, -1)
            maps = net(images.contiguous(memory_format=torch.channels_last))
            found.append(self_similarity(maps[-2] if len(maps) > 1 else maps[-1]))
        return (found[0] - found[1]).square().flatten(1).mean(1)


class Structure(MeanMetric):
    """Mean of `structure_distance` between outputs and inputs; lower is better, 0 where nothing was changed.

    Args:
        network: A name for `img2img.networks.features.features`.
        size: Side in pixels that the network sees.
    """

    against = "input"

    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0", size: int = 224):
        super().__init__()
        self.network, self.size = network, size

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return the distances (N,) of outputs and their inputs, (N, C, H, W) in [0, 1]."""
        return structure_distance(output, reference, network=self.network, size=self.size)


@functools.cache
def _judge(network: str | nn.Module) -> nn.Module:
    return features(network).to(memory_format=torch.channels_last)
