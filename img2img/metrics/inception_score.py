"""Inception Score: are outputs each of one class, and together of all classes?"""

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import ClassMetric, enough


def inception_score(probabilities: Tensor, splits: int = 1) -> float:
    """Return exp(E KL(p(y|x) || p(y))) of probabilities (N, K): from 1 to K.

    Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.

    Args:
        probabilities: Of each class, rows that sum to 1.
        splits: Parts, in the order given, to take the mean of. The paper's code has 10; one part is less biased
            (Barratt & Sharma 2018, https://arxiv.org/abs/1801.01973).

    Raises:
        ValueError: Fewer images than parts.
    """
    enough(probabilities, splits, f"inception_score with splits = {splits}")
    scores = []
    for part in probabilities.double().tensor_split(splits):
        mean = part.mean(0, keepdim=True)
        scores.append((torch.xlogy(part, part) - torch.xlogy(part, mean)).sum(1).mean().exp())
    return float(torch.stack(scores).mean())


class InceptionScore(ClassMetric):
    """Inception Score by the network that is at hand, which the name says: `inception_score[digits]`; higher is better.

    It sees no real image: sets that lack everything within a class can score well. See `inception_score`.

    Args:
        network: efficientnet_lite0, inception, digits or stacked_digits.
        splits: Parts to take the mean of.
    """

    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0", splits: int = 1):
        super().__init__(network)
        if splits < 1:
            raise ValueError(f"splits = {splits} must be 1 or more")
        self.splits = splits

    def compute(self) -> float:
        """Return the score.

        Raises:
            ValueError: Fewer outputs than splits.
        """
        return inception_score(self.probabilities, self.splits)
