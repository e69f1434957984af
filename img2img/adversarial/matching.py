"""Terms of the generator on the discriminator's features: (features, real, fake, **options) -> (N,).

``features`` is a callable from images to features (N, F), or to several such tensors of any shape (N, ...): the method
``features`` of the discriminators here, with the labels bound where there are classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]


def _lists(features: Features, images: Tensor) -> list[Tensor]:
    found = features(images)
    return [each.float().flatten(1) for each in ([found] if isinstance(found, Tensor) else found)]


def feature_matching(features: Features, real: Tensor, fake: Tensor, *, paired: bool = False) -> Tensor:
    """Squared distance of the mean features of a batch, the same for all its samples: |E f(x) - E f(G(z))|^2.

    Paper: Salimans et al. 2016 (https://arxiv.org/abs/1606.03498), section 3.1. With ``paired``, the mean absolute
    difference of each fake from its own real image instead: Wang et al. 2017 (https://arxiv.org/abs/1711.11585),
    equation 4. Features count alike; several tensors add up. Gradients reach the fakes only.
    """
    with torch.no_grad():
        wanted = _lists(features, real)
    total = torch.zeros(len(fake), device=fake.device)
    for have, want in zip(_lists(features, fake), wanted, strict=True):
        apart = (have - want).abs().mean(1) if paired else (have.mean(0) - want.mean(0)).square().sum()
        total = total + apart
    return total


def pulling_away(features: Features, real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared cosine between a fake's features and those of the others of its batch.

    EBGAN-PT, Zhao et al. 2016 (https://arxiv.org/abs/1609.03126), section 2.4; the paper's weight is 0.1.
    """
    (have,) = _lists(features, fake)
    have = normalize(have, dim=1)
    with torch.autocast(have.device.type, enabled=False):
        square = (have @ have.T).square()
    others = 1 - torch.eye(len(have), device=have.device)
    return (square * others).sum(1) / max(1, len(have) - 1)
