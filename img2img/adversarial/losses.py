"""Adversarial losses: what each player pays for the discriminator's logits.

Every loss is a pair of functions of (real, fake), the logits of real and of generated samples, and
is elementwise: it returns the shape of its logits, and the system averages. A larger logit says
"more real" in every one of them; a network that judges by an energy gives minus the energy. The
generator's cost gets the real logits too, because the relativistic ones compare; the others ignore
them. A loss without options is an `Adversarial`, one with options a class with the same two methods,
one with state a module. Give logits in float32: the exponentials below are worth their bits.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu, softplus

from img2img.engine import over_processes


class Adversarial(NamedTuple):
    """One game: two costs, (real logits, fake logits) -> loss of the logits' shape, both to be minimised.

    ``relative``: the generator's cost looks at the real logits; elsewhere any stand for them. ``neutral``: the logit
    of what a discriminator cannot place; None where only differences of logits count. ``exchangeable``: the cost of a
    generator at -logit is that of a player who has real and fake exchanged.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    relative: bool = False
    neutral: float | None = 0.0
    exchangeable: bool = False


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real) + softplus(fake)  # -log s(real) - log(1 - s(fake))


def _average(logits: Tensor) -> Tensor:
    return logits.mean(0, keepdim=True)  # over the batch: each patch of a PatchGAN has its own


class Logistic:
    """The original game with the non-saturating generator, Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661).

    Args:
        real_label: what the discriminator should say of real samples, in (0, 1]. Below 1 it is one-sided label
            smoothing, Salimans et al. 2016 (https://arxiv.org/abs/1606.03498), section 3.4, there 0.9: the best
            discriminator is then real_label * p / (p + q), so that it never grows sure. Fakes keep their label 0.

    Raises:
        ValueError: the label is outside its range.
    """

    exchangeable = True

    def __init__(self, real_label: float = 1.0) -> None:
        if not 0 < real_label <= 1:
            raise ValueError(f"real_label = {real_label} must be over 0 and at most 1")
        self.real_label = real_label
        self.neutral = math.log(real_label / (2 - real_label))  # of the best discriminator where p = q

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy with the two labels."""
        # softplus(-x) + (1 - a) x = -a log s(x) - (1 - a) log(1 - s(x))
        return _cross_entropy(real, fake) + (1 - self.real_label) * real

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -log D of the fakes."""
        return softplus(-fake)


logistic = Logistic()
"""The game without smoothed labels."""

minimax = Adversarial(_cross_entropy, lambda real, fake: -softplus(fake), exchangeable=True)
"""The original zero-sum game: the generator minimises log(1 - D), and saturates where D is sure (Goodfellow 2014)."""

maximum_likelihood = Adversarial(_cross_entropy, lambda real, fake: -torch.exp(fake))
"""With an optimal D the generator's gradient is that of maximum likelihood: -exp(logit).

Goodfellow 2014, On distinguishability criteria (https://arxiv.org/abs/1412.6515). Unbounded: a large logit overflows.
"""

reverse_kl = Adversarial(_cross_entropy, lambda real, fake: -fake, exchangeable=True)
"""With an optimal D the logit is log p / q, and the generator minimises KL(q | p), which prefers no mass to wrong mass.

Sonderby et al. 2016 (https://arxiv.org/abs/1610.04490); Mescheder et al. 2017 (https://arxiv.org/abs/1701.04722),
equations 3.3 and 3.7, with minus the logit for T.
"""

least_squares = Adversarial(
    lambda real, fake: ((real - 1).square() + fake.square()) / 2,
    lambda real, fake: (fake - 1).square() / 2,
    neutral=0.5,
)
"""LSGAN with a = 0, b = c = 1, Mao et al. 2017 (https://arxiv.org/abs/1611.04076), equation 9."""

hinge = Adversarial(lambda real, fake: relu(1 - real) + relu(1 + fake), lambda real, fake: -fake, exchangeable=True)
"""Geometric GAN, Lim & Ye 2017 (https://arxiv.org/abs/1705.02894)."""

wasserstein = Adversarial(lambda real, fake: fake - real, lambda real, fake: -fake, neutral=None, exchangeable=True)
"""Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875): the critic must be kept Lipschitz by other means."""

relativistic = Adversarial(
    lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake), relative=True, neutral=None
)
"""Paired: is this real sample more real than that fake one? As many real as fake logits.

Jolicoeur-Martineau 2018 (https://arxiv.org/abs/1807.00734); with R1 and R2, Huang et al. 2024 (R3GAN,
https://arxiv.org/abs/2501.05441).
"""

relativistic_average = Adversarial(
    lambda real, fake: _cross_entropy(real - _average(fake), fake - _average(real)),
    lambda real, fake: _cross_entropy(fake - _average(real), real - _average(fake)),
    relative=True,
    neutral=None,
)
"""Against the average of the other batch (RaSGAN), Jolicoeur-Martineau 2018, equations 8 and 9."""


class Conjugate(NamedTuple):
    """One f-divergence D(P|Q) = E_Q f(p / q) in variational form, as functions of the network's last value v.

    ``activation`` is g(v), which maps the reals into the conjugate's domain; ``composed`` is f*(g(v)), written as one
    expression that neither overflows nor cancels where the two steps would.
    """

    activation: Callable[[Tensor], Tensor]
    composed: Callable[[Tensor], Tensor]


LOG2 = math.log(2)
DIVERGENCES = {
    "kl": Conjugate(lambda v: v, lambda v: torch.exp(v - 1)),
    "reverse_kl": Conjugate(lambda v: -torch.exp(-v), lambda v: v - 1),
    "pearson": Conjugate(lambda v: v, lambda v: v.square() / 4 + v),
    "neyman": Conjugate(lambda v: -torch.expm1(-v), lambda v: -2 * torch.expm1(-v / 2)),
    "squared_hellinger": Conjugate(lambda v: -torch.expm1(-v), torch.expm1),
    "jensen_shannon": Conjugate(lambda v: LOG2 + logsigmoid(v), lambda v: softplus(v) - LOG2),
    "gan": Conjugate(logsigmoid, softplus),
    "total_variation": Conjugate(lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
}
"""Nowozin et al. 2016 (https://arxiv.org/abs/1606.00709), tables 2 and 6."""

Divergence = Literal[
    "kl", "reverse_kl", "pearson", "neyman", "squared_hellinger", "jensen_shannon", "gan", "total_variation"
]


class FGAN:
    """Minimise an f-divergence by its Fenchel conjugate, Nowozin et al. 2016 (https://arxiv.org/abs/1606.00709).

    The discriminator maximises E_P g(v) - E_Q f*(g(v)) (equation 6), whose supremum is the divergence D(P|Q) of the
    data P from the model Q. "gan" is the original game: its supremum is 2 JS - log 4. "total_variation" is half the
    integral of |p - q|, "jensen_shannon" twice the usual (Lin's) divergence, as in the paper's table 1. The
    exponentials of KL, reverse KL, Neyman and Hellinger are unbounded: keep logits small by a penalty or a low rate.

    Args:
        divergence: one of the eight.
        saturating: the generator minimises -E_Q f*(g(v)), its part of the same value; if not, it maximises E_Q g(v),
            as the paper's section 3.2 advises where the discriminator is far ahead. The fixed point is the same.
    """

    def __init__(self, divergence: Divergence = "jensen_shannon", saturating: bool = False) -> None:
        self.conjugate, self.saturating = DIVERGENCES[divergence], saturating
        self.neutral = 1.0 if divergence == "kl" else 0.0  # where g(v) = f'(1)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return f*(g(fake)) - g(real): minus a lower bound of the divergence."""
        return self.conjugate.composed(fake) - self.conjugate.activation(real)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the generator minimises on its fakes."""
        return -self.conjugate.composed(fake) if self.saturating else -self.conjugate.activation(fake)


UNIT = math.log(math.e - 1)


def _ratio(logits: Tensor) -> Tensor:
    return softplus(logits + UNIT)


class DensityRatio:
    """b-GAN in its Pearson version, Uehara et al. 2016 (https://arxiv.org/abs/1610.02920): f(r) = (r - 1)^2 / 2.

    The discriminator estimates r = p / q by the Bregman divergence E_Q[f'(r) r - f(r)] - E_P[f'(r)]; the generator then
    lowers the f-divergence E_Q f(r). Here r = softplus(logit + log(e - 1)): positive, 1 at a logit of 0.

    Args:
        exact: the generator follows the divergence's derivative in its own density, f(r) - r f'(r), as f-GAN's does.
            Without, it takes the ratio for given and lowers E_Q f(r), as the paper's algorithm: it is content wherever
            r = 1, and leaves places of which it makes too little.
    """

    neutral = 0.0

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return f'(r) r - f(r) of fakes, minus f'(r) of real samples."""
        return (_ratio(fake).square() - 1) / 2 - (_ratio(real) - 1)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the generator minimises on its fakes."""
        ratio = _ratio(fake)
        return (1 - ratio.square()) / 2 if self.exact else (ratio - 1).square() / 2


class EBGAN:
    """Energy-based GAN, Zhao et al. 2016 (https://arxiv.org/abs/1609.03126), equations 1 and 2.

    The discriminator gives low energies to real samples and pushes those of fakes up to a margin. Logits are minus
    the energies (0 or less), as ``autoencoder_discriminator`` gives them.

    Args:
        margin: energy from which on a fake is bad enough; about that of a real sample before training, or less.

    Raises:
        ValueError: the margin is not positive.
    """

    neutral = None

    def __init__(self, margin: float = 1.0) -> None:
        if margin <= 0:
            raise ValueError(f"margin = {margin} must be over 0")
        self.margin = margin

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return energy(real) + max(0, margin - energy(fake))."""
        return -real + relu(self.margin + fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return energy(fake)."""
        return -fake


class BEGAN(nn.Module):
    """Boundary equilibrium, Berthelot et al. 2017 (https://arxiv.org/abs/1703.10717), section 3.4.

    Logits are minus the energies L, as ``autoencoder_discriminator`` with error = "l1" gives them. The weight k of the
    fakes' energy is steered so that E L(fake) = diversity * E L(real): call ``update`` in every discriminator step. k
    and the convergence measure are buffers, for logs and checkpoints.

    Args:
        diversity: gamma, in [0, 1]: lower is sharper and less varied.
        rate: lambda, how far k moves for an energy of one.

    Raises:
        ValueError: an option is outside its range.
    """

    neutral = None

    def __init__(self, diversity: float = 0.5, rate: float = 0.001) -> None:
        super().__init__()
        if not 0 <= diversity <= 1 or rate <= 0:
            raise ValueError(f"diversity = {diversity} must lie in [0, 1], rate = {rate} must be over 0")
        self.diversity, self.rate = diversity, rate
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("convergence", torch.zeros(()))

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return L(real) - k L(fake)."""
        return -real + self.k.clone() * fake  # a copy: k moves before the gradient is taken

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor, share: float = 1.0) -> None:
        """Move k by what a discriminator step saw; ``share``: how much of a step's batch, in each process, this is."""
        if self.training:
            energies = torch.stack([-real.float().mean(), -fake.float().mean()])
            energy, made = over_processes(energies) / over_processes(torch.ones_like(energies))
            balance = self.diversity * energy - made
            self.k.add_(share * self.rate * balance).clamp_(0, 1)
            self.convergence.copy_(energy + balance.abs())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return L(fake)."""
        return -fake
