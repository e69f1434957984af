"""A pool of earlier samples, so that a discriminator does not forget what the generator did a while ago."""

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Images (N, C, H, W) in, as many out: half of them new, half of them earlier ones whose place the new ones take.

    Shrivastava et al. 2016 (https://arxiv.org/abs/1612.07828, section 2.3), in the form of Zhu et al. 2017
    (https://arxiv.org/abs/1703.10593, section 4): until the pool is full every image goes in and comes out; after that
    each image, with probability one half, is exchanged for one of the pool. Chances come from torch's generator. What
    is in the pool is part of the state.

    Args:
        capacity: images kept; 0 lets everything through.
        channels: of the images.
        size: side of the images in pixels.
    """

    def __init__(self, capacity: int = 50, channels: int = 3, size: int = 64) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(capacity, channels, size, size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if not self.capacity:
            return images
        filled, found = int(self.filled), []
        for image in images:
            if filled < self.capacity:
                self.images[filled] = image
                filled += 1
                found.append(image)
            elif float(torch.rand(())) < 0.5:
                place = int(torch.randint(self.capacity, ()))
                found.append(self.images[place].to(image.dtype, copy=True))
                self.images[place] = image
            else:
                found.append(image)
        self.filled.fill_(filled)
        return torch.stack(found)
