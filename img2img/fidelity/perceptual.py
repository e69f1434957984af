"""Perceptual distance: how differently a pretrained network sees two images."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.fidelity.pixel import l1, mse
from img2img.networks.features import features


class Perceptual(nn.Module):
    """Distance between the feature maps of an output and of its target, averaged over layers.

    Papers: Johnson et al. 2016 (https://arxiv.org/abs/1603.08155); as the content loss of
    super-resolution, Ledig et al. 2016 (https://arxiv.org/abs/1609.04802), equation 5, where the
    features are scaled by 1/12.75, which is a weight of 0.006 on this term; with `normalize`,
    Zhang et al. 2018 (https://arxiv.org/abs/1801.03924), equation 1 with all w = 1.

    The network is frozen, sees images at their own size, and is no part of this module's
    parameters or state: a checkpoint does not carry it, an optimizer does not see it, and
    `.to(device)` need not reach it, since it follows its input. It runs under the caller's
    autocast; distances are taken in float32 at least.

    Args:
        network: A name for `img2img.networks.features.features`, or a module with the same contract.
        layers: The maps to compare, e.g. `["conv5_4"]`; empty for the network's own choice.
        distance: "mse" or "l1", over all channels and places of a map.
        normalize: Bring each place's feature vector to length 1 first, and sum over channels, as LPIPS does.
        range: Values of the images that are black and white: (0, 1), or (-1, 1).
        jitter: Shift both images against the network's grid by up to so many pixels, drawn anew each time an output
            learns. A network with strides is blind to some fine patterns; without it they are always the same ones,
            and grow in the output.
    """

    def __init__(
        self,
        network: str | nn.Module = "vgg19",
        *,
        layers: tuple[str | int, ...] = (),
        distance: Literal["mse", "l1"] = "mse",
        normalize: bool = False,
        range: tuple[float, float] = (0.0, 1.0),
        jitter: int = 0,
    ):
        super().__init__()
        # In a tuple, where nn.Module does not look for its children.
        self.network = (features(network, layers).to(memory_format=torch.channels_last),)
        self.distance = {"mse": mse, "l1": l1}[distance]
        self.normalize = normalize
        self.jitter = jitter
        self.low, self.high = range
        if self.low >= self.high:
            raise ValueError(f"perceptual: range = {list(range)} must be [black, white], e.g. [0.0, 1.0]")

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare (N, C, H, W) with (N, C, H, W), C = 3 or 1, in `range`; returns (N,). No gradient reaches the target.

        Raises:
            ValueError: The shapes differ, or the images are too small for the network.
        """
        if output.shape != target.shape:
            raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have the same shape")
        if self.jitter and output.requires_grad:
            top, left = torch.randint(self.jitter + 1, (2,)).tolist()
            height, width = (side - self.jitter for side in output.shape[-2:])
            output, target = (x[..., top : top + height, left : left + width] for x in (output, target))
        with torch.no_grad():
            goals = self.maps(target)
        return torch.stack([self._compare(*pair) for pair in zip(self.maps(output), goals, strict=True)]).mean(0)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of (N, C, H, W) in `range`; grey counts as R = G = B."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        network = self.network[0].to(images.device)
        return network(((images - self.low) / (self.high - self.low)).contiguous(memory_format=torch.channels_last))

    def _compare(self, output: Tensor, target: Tensor) -> Tensor:
        if not self.normalize:
            return self.distance(output, target)
        channels = output.shape[1]
        wide = torch.promote_types(output.dtype, torch.float32)
        return channels * self.distance(*(F.normalize(maps.to(wide), dim=1, eps=1e-10) for maps in (output, target)))
