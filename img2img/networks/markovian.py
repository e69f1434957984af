"""A discriminator of textures: it judges patches of what a pretrained network sees (Li & Wand 2016)."""

import torch
from torch import Tensor, nn

from img2img.networks.features import features


class MarkovianDiscriminator(nn.Module):
    """Images (N, 1 or 3, H, W) in [-1, 1] -> logits (N, 1, h, w), one for each patch of feature maps.

    Li & Wand 2016 (https://arxiv.org/abs/1604.04382), section 4: a convolution and a linear classifier on a deep
    network's maps, the same at every place: what is where it cannot tell, only of what textures are made. The
    pretrained network is fixed, and no part of this module's parameters or state.

    Args:
        network: a name for `img2img.networks.features.features` (the paper's: "vgg19" and the layer "relu3_1").
        layer: which of its maps.
        width: channels of the convolution.
    """

    def __init__(self, network: str = "efficientnet_lite0", layer: str | int = 1, width: int = 64) -> None:
        super().__init__()
        # In a tuple, where nn.Module does not look for its children.
        self.network = (features(network, (layer,)),)
        with torch.no_grad():
            seen = self.maps(torch.zeros(1, 3, 64, 64)).shape[1]
        self.judge = nn.Sequential(nn.Conv2d(seen, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1))

    def maps(self, x: Tensor) -> Tensor:
        """Return what the pretrained network sees, (N, C, h, w)."""
        return self.network[0].to(x.device)(x.expand(-1, 3, -1, -1) / 2 + 0.5)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.maps(x))
