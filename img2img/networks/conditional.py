"""Class labels in networks: as inputs, as the gains of batch norm, as a projection of the discriminator's features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def one_hot(labels: Tensor | None, classes: int) -> Tensor:
    """Return class numbers (N,) as vectors (N, classes); vectors of that length, e.g. mixtures, stay as they are.

    Raises:
        ValueError: no labels, or vectors of another length.
    """
    if labels is None:
        raise ValueError(f"the network knows {classes} classes; give it labels (N,), or build it with classes = 0")
    if labels.dim() == 2:
        if labels.shape[1] != classes:
            raise ValueError(f"labels have {labels.shape[1]} columns; the network knows {classes} classes")
        return labels if labels.is_floating_point() else labels.float()
    return functional.one_hot(labels.long(), classes).float()


def planes(x: Tensor, condition: Tensor) -> Tensor:
    """Append a vector (N, K) to images (N, C, H, W) as K constant planes: (N, C + K, H, W)."""
    return torch.cat([x, condition.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias follow a vector: (N, width, H, W), (N, inputs) -> (N, width, H, W).

    With one-hot vectors it is Dumoulin et al. 2016 (https://arxiv.org/abs/1610.07629): a gain and a bias a class.

    Args:
        width: channels.
        inputs: length of the vector.
    """

    conditional = True

    def __init__(self, width: int, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.gain = nn.Linear(inputs, width, bias=False)
        self.bias = nn.Linear(inputs, width, bias=False)
        # Not zero: spectral normalisation divides by the largest singular value.
        nn.init.normal_(self.gain.weight, 0, 0.02)
        nn.init.normal_(self.bias.weight, 0, 0.02)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[:, :, None, None], self.norm(x), gain[:, :, None, None])


class Conditioned(nn.Sequential):
    """Layers in a row, of which those marked ``conditional`` get the condition too."""

    conditional = True

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, condition) if getattr(layer, "conditional", False) else layer(x)
        return x


class Head(nn.Module):
    """Features (N, width) to logits (N, outputs), and with classes the projection of the label on the features.

    logit = w . f + v[label] . f, Miyato & Koyama 2018 (https://arxiv.org/abs/1802.05637), equation 3; with several
    outputs the projection counts in the first.

    Args:
        width: features.
        outputs: logits.
        classes: classes of the projection; 0 for none.
        linear: what builds a linear layer of (inputs, outputs, bias=...).
    """

    def __init__(
        self, width: int, outputs: int = 1, classes: int = 0, linear: Callable[..., nn.Module] = nn.Linear
    ) -> None:
        super().__init__()
        self.linear = linear(width, outputs)
        self.project = linear(classes, width, bias=False) if classes else None
        self.classes = classes

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.linear(features)
        if self.project is None:
            return logits
        inner = (self.project(one_hot(labels, self.classes)) * features).sum(1, keepdim=True)
        return torch.cat([logits[:, :1] + inner, logits[:, 1:]], 1)
