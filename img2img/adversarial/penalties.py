"""Penalties on the discriminator's gradient with respect to its input.

One signature for all: (discriminator, real, fake, **options) -> (N,). The discriminator is any
callable from samples (N, ...) to logits (N, ...) that treats samples apart (no batch norm); a sample
with several logits (patches) counts with their mean, as the losses average them. Gradients are taken
in float32 at least, with autocast off: they are differentiated once more by the backward pass. With
``mixed`` the discriminator runs in bf16 where the run does, in half the time (never in fp16, whose
range a gradient leaves); lengths are still taken in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _gradient(discriminator: Callable[[Tensor], Tensor], samples: Tensor, mixed: bool) -> Tensor:
    """Gradient of each sample's mean logit: (N, ...) to (N, everything)."""
    samples, device = samples.detach().requires_grad_(), samples.device.type
    narrow = mixed and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16
    with torch.enable_grad(), torch.autocast(device, torch.bfloat16, enabled=narrow):
        logits = discriminator(samples).to(samples.dtype).reshape(len(samples), -1)
        (gradient,) = torch.autograd.grad(logits.mean(1).sum(), samples, create_graph=True)
    return gradient.reshape(len(samples), -1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, target: float = 1.0, mixed: bool = False
) -> Tensor:
    """Penalise gradients whose length is not `target`: (|gradient| - target)^2 at points between real and fake.

    Paper: Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028), equation 3, weight 10; `target = 0` is
    Thanh-Tung et al. 2019 (https://arxiv.org/abs/1902.03984). Each sample draws its own point from torch's generator.
    """
    real, fake = _wide(real), _wide(fake)
    place = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    between = torch.lerp(real, fake, place)
    return (_gradient(discriminator, between, mixed).norm(dim=1) - target).square()


def r1(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, mixed: bool = False) -> Tensor:
    """|gradient|^2 / 2 at the real samples: Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406), equation 9."""
    return _gradient(discriminator, _wide(real), mixed).square().sum(1) / 2


def r2(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, mixed: bool = False) -> Tensor:
    """|gradient|^2 / 2 at the fake samples: Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406), equation 10."""
    return _gradient(discriminator, _wide(fake), mixed).square().sum(1) / 2


def _wide(samples: Tensor) -> Tensor:
    return samples.to(torch.promote_types(samples.dtype, torch.float32))
