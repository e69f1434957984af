"""How far scores for classes are from the class that is right."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(output: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits (N, classes) and whole numbers (N,), or probabilities (N, classes), in nats: to (N,).

    Args:
        output: logits.
        target: the right class of each sample.
        smoothing: share of the target spread evenly over all classes (https://arxiv.org/abs/1512.00567, section 7).
    """
    return F.cross_entropy(output.float(), target, reduction="none", label_smoothing=smoothing)
