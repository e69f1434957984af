"""Total variation: how much an image changes from pixel to pixel, whatever its target is."""

import torch.nn.functional as F
from torch import Tensor

from img2img.fidelity.pixel import difference


def total_variation(output: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean length of the output's gradient, per sample.

    Papers: Rudin et al. 1992 (https://doi.org/10.1016/0167-2789(92)90242-F); as a term of
    super-resolution, Ledig et al. 2016 (https://arxiv.org/abs/1609.04802v1), equation 10.
    Forward differences, no change across the border; the length is sqrt(dx^2 + dy^2 + epsilon^2) - epsilon,
    smooth at zero and 0 for a flat image.

    Args:
        output: (N, C, H, W), any range.
        target: Ignored; here because all fidelity terms share one signature.
        epsilon: Below this length, in the image's unit, the measure turns from linear to quadratic.

    Returns:
        (N,)
    """
    across = F.pad(difference(output[..., :, 1:], output[..., :, :-1]), (0, 1))
    down = F.pad(difference(output[..., 1:, :], output[..., :-1, :]), (0, 0, 0, 1))
    lengths = (across.square() + down.square() + epsilon**2).sqrt() - epsilon
    return lengths.flatten(1).mean(1)
