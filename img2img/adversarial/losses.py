"""Adversarial losses: what each player pays for the discriminator's logits.

Every loss is a pair of functions of (real, fake), the logits of real and of generated samples, and
is elementwise: it returns the shape of its logits, and the system averages. A positive logit says
"real". The generator's cost gets the real logits too, because the relativistic ones compare; the
others ignore them. Give logits in float32: the exponentials below are worth their bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


class Adversarial(NamedTuple):
    """One game: two costs, (real logits, fake logits) -> loss of the logits' shape, both to be minimised."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real) + softplus(fake)  # -log s(real) - log(1 - s(fake))


def _average(logits: Tensor) -> Tensor:
    return logits.mean(0, keepdim=True)  # over the batch: each patch of a PatchGAN has its own


logistic = Adversarial(_cross_entropy, lambda real, fake: softplus(-fake))
"""The original game with the non-saturating generator, Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661)."""

minimax = Adversarial(_cross_entropy, lambda real, fake: -softplus(fake))
"""The original zero-sum game: the generator minimises log(1 - D), and saturates where D is sure (Goodfellow 2014)."""

maximum_likelihood = Adversarial(_cross_entropy, lambda real, fake: -torch.exp(fake))
"""With an optimal D the generator's gradient is that of maximum likelihood: -exp(logit).

Goodfellow 2014, On distinguishability criteria (https://arxiv.org/abs/1412.6515). Unbounded: a large logit overflows.
"""

least_squares = Adversarial(
    lambda real, fake: ((real - 1).square() + fake.square()) / 2, lambda real, fake: (fake - 1).square() / 2
)
"""LSGAN with a = 0, b = c = 1, Mao et al. 2017 (https://arxiv.org/abs/1611.04076), equation 9."""

hinge = Adversarial(lambda real, fake: relu(1 - real) + relu(1 + fake), lambda real, fake: -fake)
"""Geometric GAN, Lim & Ye 2017 (https://arxiv.org/abs/1705.02894)."""

wasserstein = Adversarial(lambda real, fake: fake - real, lambda real, fake: -fake)
"""Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875): the critic must be kept Lipschitz by other means."""

relativistic = Adversarial(lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake))
"""Paired: is this real sample more real than that fake one? As many real as fake logits.

Jolicoeur-Martineau 2018 (https://arxiv.org/abs/1807.00734); with R1 and R2, Huang et al. 2024 (R3GAN,
https://arxiv.org/abs/2501.05441).
"""

relativistic_average = Adversarial(
    lambda real, fake: _cross_entropy(real - _average(fake), fake - _average(real)),
    lambda real, fake: _cross_entropy(fake - _average(real), real - _average(fake)),
)
"""Against the average of the other batch (RaSGAN), Jolicoeur-Martineau 2018, equations 8 and 9."""
