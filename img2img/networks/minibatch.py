"""Layers that let a discriminator compare the samples of a batch, so that a generator that repeats itself is found out.

A discriminator with one judges samples together: penalties on the gradient of a single sample lose their meaning a
little, as in the papers that combine them.
"""

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """Append to features how near a sample is to the others: (N, inputs) -> (N, inputs + kernels).

    o(x_i)_b = sum over j of exp(-|M_i,b - M_j,b|_1) with M = x T, Salimans et al. 2016
    (https://arxiv.org/abs/1606.03498), section 3.2. The sum has the sample itself in it, as the paper's.

    Args:
        inputs: features.
        kernels: numbers appended. dims: length of the rows compared.
    """

    def __init__(self, inputs: int, kernels: int = 32, dims: int = 8) -> None:
        super().__init__()
        self.kernels = kernels
        self.table = nn.Parameter(torch.empty(inputs, kernels * dims))
        nn.init.normal_(self.table, 0, (inputs * dims) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        # cdist has no half precision, and needs a tenth of the time and memory of all differences written out.
        rows = (x @ self.table).unflatten(1, (self.kernels, -1)).transpose(0, 1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        near = torch.exp(-torch.cdist(rows, rows, p=1)).sum(2).T
        return torch.cat([x, near.to(x.dtype)], 1)


class MinibatchStd(nn.Module):
    """Append one plane, the mean standard deviation within a group: (N, C, H, W) -> (N, C + 1, H, W).

    Karras et al. 2017 (https://arxiv.org/abs/1710.10196), section 3.

    Args:
        group: samples of a group; where it does not divide the batch, the largest number under it that does.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        group = max(size for size in range(1, min(self.group, count) + 1) if count % size == 0)
        deviation = (x.float().unflatten(0, (group, -1)).var(0, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
        plane = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, plane.to(x.dtype)], 1)
