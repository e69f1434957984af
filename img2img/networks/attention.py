"""Self-attention over the places of a feature map (Zhang et al. 2018, https://arxiv.org/abs/1805.08318)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """(N, width, H, W) -> the same: x + gamma * attention(x), with gamma learned from 0.

    Keys and values are max-pooled by two, as in the authors' code: a quarter of the memory. Written in plain products,
    since the fused kernels cannot be differentiated twice, as penalties on gradients ask.

    Args:
        width: channels; queries and keys have an eighth, values half of them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, middle = max(1, width // 8), max(1, width // 2)
        self.query, self.key = nn.Conv2d(width, narrow, 1, bias=False), nn.Conv2d(width, narrow, 1, bias=False)
        self.value, self.out = nn.Conv2d(width, middle, 1, bias=False), nn.Conv2d(middle, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = functional.max_pool2d(self.key(x), 2).flatten(2)
        value = functional.max_pool2d(self.value(x), 2).flatten(2)
        weights = (query.transpose(1, 2) @ key).softmax(-1)  # (N, places, pooled places)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.out(seen)
