"""Penalties on the discriminator's gradient with respect to its input.

One signature for all: (discriminator, real, fake, **options) -> (N,). The discriminator is any
callable from samples (N, ...) to logits (N, ...) that treats samples apart (no batch norm); a sample
with several logits (patches) counts with their mean, as the losses average them. Gradients are taken
in float32 at least, with autocast off: they are differentiated once more by the backward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _gradient(discriminator: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """Gradient of each sample's mean logit: (N, ...) to (N, everything)."""
    samples = samples.detach().requires_grad_()
    with torch.enable_grad(), torch.autocast(samples.device.type, enabled=False):
        logits = discriminator(samples).reshape(len(samples), -1)
        (gradient,) = torch.autograd.grad(logits.mean(1).sum(), samples, create_graph=True)
    return gradient.reshape(len(samples), -1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, target: float = 1.0
) -> Tensor:
    """Penalise gradients whose length is not `target`: (|gradient| - target)^2 at points between real and fake.

    Paper: Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028), equation 3, weight 10; `target = 0` is
    Thanh-Tung et al. 2019 (https://arxiv.org/abs/1902.03984). Each sample draws its own point from torch's generator.
    """
    real, fake = _wide(real), _wide(fake)
    place = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    return (_gradient(discriminator, torch.lerp(real, fake, place)).norm(dim=1) - target).square()


def r1(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """|gradient|^2 / 2 at the real samples: Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406), equation 9."""
    return _gradient(discriminator, _wide(real)).square().sum(1) / 2


def r2(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """|gradient|^2 / 2 at the fake samples: Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406), equation 10."""
    return _gradient(discriminator, _wide(fake)).square().sum(1) / 2


def _wide(samples: Tensor) -> Tensor:
    return samples.to(torch.promote_types(samples.dtype, torch.float32))
