"""Whether outputs show the class that was asked for, as an independent classifier or the system's own reads them."""

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from img2img.metrics.distribution import embedding, known_network
from img2img.metrics.mean import MeanMetric


class Accuracy:
    """Share of outputs in which a network reads the class that was asked for, 0 to 1; higher is better.

    Args:
        network: e.g. classifier.digits, classifier.fashion; see `img2img.networks.features.classifier`.
    """

    against: Literal["label"] = "label"

    def __init__(self, *, network: str | nn.Module = "classifier.digits") -> None:
        self.network = known_network(network)
        self.reset()

    def update(self, output: Tensor, reference: Tensor) -> None:
        """Add outputs (N, C, H, W) in [0, 1] and the classes asked for, (N,)."""
        self.pairs.append(torch.stack([embedding(self.network).probabilities(output).argmax(1), reference.cpu()], 1))

    def compute(self) -> float:
        """Return the share.

        Raises:
            ValueError: Nothing was added.
        """
        read, asked = self._joined()
        return float((read == asked).double().mean())

    def reset(self) -> None:
        """Forget all."""
        self.pairs: list[Tensor] = []

    def _joined(self) -> tuple[Tensor, Tensor]:
        if not self.pairs:
            raise ValueError("no output was added; call update first")
        return torch.cat(self.pairs).unbind(1)


class AssignedAccuracy(Accuracy):
    """As `Accuracy`, where the codes asked for stand for classes in an order of their own, as InfoGAN finds them.

    Codes and classes are matched one to one so that the share is largest (Kuhn 1955); higher is better.

    Args:
        network: as in `Accuracy`.
    """

    def compute(self) -> float:
        """Return the share under the best assignment."""
        read, asked = self._joined()
        side = int(max(read.max(), asked.max())) + 1
        table = torch.bincount(asked * side + read, minlength=side * side).view(side, side)
        rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
        return float(table[rows, columns].sum()) / len(read)


class TargetAccuracy(MeanMetric):
    """Share of the batch's images that the system's own classifier reads right, 0 to 1; higher is better."""

    against: Literal["right"] = "right"

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return (N,) ones for images that were read right and zeros for others; outputs are not looked at."""
        return reference
