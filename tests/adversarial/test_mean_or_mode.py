"""A Gaussian fitted to two bumps by f-GAN: KL covers their mean, reverse KL seeks a mode (Nowozin et al. 2016, 2.5)."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.optimize import minimize
from scipy.stats import norm
from torch import nn

from img2img.adversarial.losses import FGAN

SHARES, CENTRES, WIDTH = (0.3, 0.7), (-1.5, 1.5), 0.6


def density(x):
    return sum(share * norm.pdf(x, centre, WIDTH) for share, centre in zip(SHARES, CENTRES, strict=True))


def best_gaussian(divergence):
    """Return mean and deviation of the Gaussian with the least divergence, by quadrature."""
    x = np.linspace(-12, 12, 4001)
    log_p = np.log(density(x))

    def value(at):
        log_q = norm.logpdf(x, at[0], math.exp(at[1]))
        weight = np.exp(log_p if divergence == "kl" else log_q)
        return trapezoid(weight * (log_p - log_q if divergence == "kl" else log_q - log_p), x)

    starts = [(mean, math.log(width)) for mean in (-1.5, 0.0, 1.5) for width in (0.5, 1.5)]
    found = min((minimize(value, start, method="Nelder-Mead") for start in starts), key=lambda each: each.fun)
    return found.x[0], math.exp(found.x[1])


def play(divergence, steps=700, ahead=200):
    """Return mean and deviation, averaged over the end of the game; the critic starts ``ahead`` of the Gaussian."""
    torch.manual_seed(0)
    game = FGAN(divergence, saturating=True)  # the other cost of the generator follows another divergence
    model = nn.Parameter(torch.tensor([1.0, math.log(0.8)]))
    critic = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    judge = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.9))
    learn = torch.optim.Adam([model], lr=1e-2, betas=(0.0, 0.9))
    centres, kept = torch.tensor(CENTRES), []
    for step in range(steps):
        real = centres[(torch.rand(256) < SHARES[1]).long()] + WIDTH * torch.randn(256)
        fake = model[0] + model[1].exp() * torch.randn(256)
        judge.zero_grad()
        game.discriminator(critic(real[:, None]), critic(fake.detach()[:, None])).mean().backward()
        judge.step()
        if step >= ahead:
            learn.zero_grad()
            game.generator(None, critic(fake[:, None])).mean().backward()
            learn.step()
        if step >= 2 * ahead:
            kept.append(model.detach().clone())
    mean, deviation = torch.stack(kept).mean(0)
    return mean.item(), deviation.exp().item()


def test_kl_covers_the_mean_and_reverse_kl_seeks_a_mode():
    """From one start, both games end at the Gaussians that quadrature finds, which are far apart."""
    cover, seek = best_gaussian("kl"), best_gaussian("reverse_kl")
    assert cover == pytest.approx((0.6, math.sqrt(WIDTH**2 + 1.5**2 - 0.6**2)), abs=0.01)  # the mixture's own moments
    assert seek == pytest.approx((CENTRES[1], WIDTH), abs=0.05)
    assert play("kl") == pytest.approx(cover, abs=0.12)
    assert play("reverse_kl") == pytest.approx(seek, abs=0.12)
