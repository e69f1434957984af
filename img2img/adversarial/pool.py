"""A pool of past fakes (Shrivastava et al. 2016, https://arxiv.org/abs/1612.07828, section 2.3)."""

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Mix fresh fakes with older ones before the discriminator sees them, as CycleGAN does (Zhu et al. 2017).

    Until it is full it keeps what comes and gives it back; then each image is, with probability a half, exchanged for
    one that was kept. The images are buffers: a checkpoint resumes the pool. Choices come from torch's CPU generator.

    Args:
        capacity: images kept.
        channels: channels of the images.
        size: their side.

    Raises:
        ValueError: a capacity below 1, or beyond any memory.
    """

    def __init__(self, capacity: int = 50, channels: int = 3, size: int = 64) -> None:
        super().__init__()
        if capacity < 1 or capacity * channels * size * size > 2**31:
            raise ValueError(
                f"capacity = {capacity} of {channels} x {size} x {size} must be 1 or more, and fit in memory"
            )
        self.register_buffer("images", torch.zeros(capacity, channels, size, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return as many images (N, C, H, W); those of a pool are detached.

        Raises:
            ValueError: the images are of another shape than those it was built for.
        """
        capacity = len(self.images)
        if images.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"pool: got images {tuple(images.shape[1:])}, was built for {tuple(self.images.shape[1:])}"
            )
        found = images.detach().clone()
        filled = int(self.count)
        for place in range(len(found)):
            if filled < capacity:
                self.images[filled] = found[place]
                filled += 1
            elif torch.rand(()).item() < 0.5:
                chosen = int(torch.randint(capacity, ()))
                kept = self.images[chosen].to(found.dtype, copy=True)
                self.images[chosen] = found[place]
                found[place] = kept
        self.count.fill_(filled)
        return found
