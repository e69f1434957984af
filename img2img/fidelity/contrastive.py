"""Contrastive distance: is a place of the output more like the same place of the input than like its other places."""

import torch
from torch import Tensor


def patch_nce(output: list[Tensor], target: list[Tensor], *, temperature: float = 0.07) -> Tensor:
    """PatchNCE of Park et al. 2020 (https://arxiv.org/abs/2007.15651), equations 3 and 4, averaged.

    For every place of every layer the cross-entropy of finding its own vector among those of all places of the same
    image: the other places are the negatives. Averaged over places and layers, where the paper has sums. The
    target's vectors are taken as given, as in the reference implementation: no gradient goes into them.

    Args:
        output: for each layer the vectors (N, P, D) of unit length at places of the output, the paper's queries.
        target: those at the same places of the input.
        temperature: what similarities are divided by, the paper's tau.

    Returns:
        (N,); log P for vectors that tell nothing.

    Raises:
        ValueError: the layers or their shapes differ, or a layer has a single place and nothing to tell it from.
    """
    if len(output) != len(target) or not output:
        raise ValueError(f"output has {len(output)} layers and target {len(target)}; they must be as many, 1 or more")
    total = 0.0
    for layer, (query, key) in enumerate(zip(output, target, strict=True)):
        if query.shape != key.shape or query.dim() != 3 or query.shape[1] < 2:
            raise ValueError(
                f"layer {layer}: output {tuple(query.shape)} and target {tuple(key.shape)} must both be (N, P, D) "
                "with P > 1"
            )
        wide = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            # Similarities reach 1 / temperature, where half a precision's steps are as large as differences.
            scores = query.to(wide) @ key.detach().to(wide).transpose(1, 2) / temperature
        total = total + (scores.logsumexp(2) - scores.diagonal(dim1=1, dim2=2)).mean(1)
    return total / len(output)
