"""Latents: what noise is shaped to before a generator. Functions of a standard normal z: seeds keep their meaning."""

import math

import torch
from torch import Tensor, nn


def truncate(z: Tensor, threshold: float) -> Tensor:
    """Bring standard normal values into [-threshold, threshold], where they follow the truncated normal distribution.

    The truncation trick of Brock et al. 2018 (https://arxiv.org/abs/1809.11096), section 3.1: lower thresholds trade
    variety for fidelity. The paper draws again; here the quantiles are mapped, which has the same distribution and
    leaves a given z in place: truncate(z) grows with z.

    Args:
        z: any shape.
        threshold: over 0; infinity changes nothing.

    Raises:
        ValueError: the threshold is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"truncate: threshold = {threshold} must be over 0")
    # By the survival of |z|: near 1 the distribution function has no digits left for the tail.
    outside = math.erfc(threshold / math.sqrt(2))
    survival = torch.special.erfc(z.double().abs() / math.sqrt(2))
    kept = outside + (1 - outside) * survival
    found = -torch.special.ndtri(kept / 2) * z.sign()
    return found.clamp(-threshold, threshold).to(z.dtype)


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Return latents on the way between two, as long as a normal latent is: spherical linear interpolation.

    White 2016 (https://arxiv.org/abs/1609.04468), section 2.1; for parallel latents it is linear.

    Args:
        start: (N, latent).
        end: the same.
        share: (N,), 0 at the start, 1 at the end.
    """
    share = share[:, None]
    cosine = torch.cosine_similarity(start.double(), end.double())[:, None].clamp(-1, 1)
    angle = cosine.arccos()
    sine = angle.sin()
    flat = sine < 1e-6
    safe = torch.where(flat, 1.0, sine)
    first = torch.where(flat, 1 - share.double(), ((1 - share) * angle).sin() / safe)
    second = torch.where(flat, share.double(), (share * angle).sin() / safe)
    return (first * start + second * end).to(start.dtype)


class Mixture(nn.Module):
    """A mixture of learned Gaussians: standard normal (N, latent + 1) -> (N, latent).

    DeLiGAN, Gurumurthy et al. 2017 (https://arxiv.org/abs/1706.02071), section 3: z = mu_i + sigma_i * noise, with one
    of the components drawn uniformly. The last number of a latent chooses the component, by its quantile.

    Args:
        latent: dimensions of the mixture.
        components: Gaussians, of diagonal covariance.
        sigma: their first standard deviation; the paper's 0.2.

    Attributes:
        latent: numbers that a sample takes, ``latent`` + 1.

    Raises:
        ValueError: there are no components.
    """

    def __init__(self, latent: int, components: int, sigma: float = 0.2) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components = {components} must be 1 or more")
        self.latent = latent + 1
        self.mean = nn.Parameter(torch.empty(components, latent))
        self.sigma = nn.Parameter(torch.empty(components, latent))
        nn.init.uniform_(self.mean, -1, 1)
        nn.init.constant_(self.sigma, sigma)

    def forward(self, z: Tensor) -> Tensor:
        """Return the samples of the mixture that standard normal numbers stand for."""
        components = len(self.mean)
        quantile = torch.special.ndtr(z[:, -1].double())
        chosen = (quantile * components).long().clamp(max=components - 1)
        return self.mean[chosen] + self.sigma[chosen] * z[:, :-1]
