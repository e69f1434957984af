"""Adversarial variational Bayes: its terms by hand, and a discriminator that finds a known KL."""

import math

import pytest
import torch
from torch import distributions, nn
from torch.nn import functional

from img2img.networks.joint import Encoder, ImplicitEncoder, JointDiscriminator
from img2img.recipe import read
from img2img.systems.system import build

GAUSSIAN = {
    "adversarial": None,
    "schedule": {"generator": 1},
    "optimizer": {"lr": 1e-3},
    "networks": {
        "generator": {"type": "dcgan_generator", "latent": 3, "width": 4},
        "encoder": {"type": "encoder", "width": 4, "stochastic": True},
    },
}


def page(**changes):
    networks = {
        "generator": {"type": "dcgan_generator", "latent": 3, "width": 4},
        "encoder": {"type": "implicit_encoder", "width": 4},
        "discriminator": {"type": "joint_discriminator", "width": 4},
    }
    return read("avb").override({"networks": networks, "data.size": 8} | changes)


@pytest.fixture
def real():
    torch.manual_seed(0)
    return torch.rand(4, 1, 8, 8) * 2 - 1


def test_terms_of_the_game(real):
    """T is minus the logit: generator and encoder minimise it as it is, and the discriminator learns it by logistic."""
    system = build(page()).eval()
    code, seen = torch.randn(4, 3), []
    system.encoder.forward = lambda x: code

    def discriminator(x, z):
        assert torch.equal(x, real)
        seen.append(z)
        return (z.sum(1) * x.mean((1, 2, 3)))[:, None]

    system.discriminator.forward = discriminator
    found = system.losses("discriminator", {"real": real}, 0)
    prior, posterior = ((z.sum(1) * real.mean((1, 2, 3))) for z in seen)
    assert torch.equal(seen[1], code) and not torch.equal(seen[0], code)
    assert torch.allclose(found["adversarial"], functional.softplus(-prior) + functional.softplus(posterior))
    found = system.losses("generator", {"real": real}, 0)
    assert set(found) == {"adversarial", "mse"}
    assert torch.allclose(found["adversarial"], -posterior)
    likelihood = distributions.Normal(system.generator(code), 0.5).log_prob(real).sum((1, 2, 3))
    # The page's weight is for 28 x 28 pixels; without what no weight can change.
    constant = 64 * math.log(0.5 * math.sqrt(2 * math.pi))
    assert torch.allclose(found["mse"] * 64 / 784, -likelihood - constant, rtol=1e-4)


def test_the_gaussian_has_a_formula(real):
    system = build(page(**GAUSSIAN)).eval()
    mean, spread = system.encoder(real).chunk(2, 1)
    wanted = distributions.kl_divergence(
        distributions.Normal(mean, (spread / 2).exp()), distributions.Normal(torch.zeros(3), torch.ones(3))
    )
    found = system.losses("generator", {"real": real}, 0)
    assert set(found) == {"kl", "mse"} and torch.allclose(found["kl"], wanted.sum(1), rtol=1e-4)


def test_codes_without_a_formula_need_a_game(real):
    changes = GAUSSIAN | {"networks": GAUSSIAN["networks"] | {"encoder": {"type": "implicit_encoder", "width": 4}}}
    system = build(page(**changes))
    with pytest.raises(ValueError, match="avb: without 'adversarial' the encoder must give a Gaussian"):
        system.losses("generator", {"real": real}, 0)


class Quadratic(nn.Module):
    """Logits that are quadratic in the code, as the ratio of two Gaussians is; the image does not count."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(7))

    def forward(self, x, z):
        return (torch.cat([torch.ones(len(z), 1), z, z.square()], 1) * self.weights).sum(1, keepdim=True)


def test_the_best_discriminator_knows_the_divergence():
    """Proposition 1: T = log q(z|x) - log p(z), so that its mean over q is the KL."""
    system = build(page()).eval()
    system.discriminator = Quadratic()
    q = distributions.Normal(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.8, 1.2, 0.6]))
    p = distributions.Normal(torch.zeros(3), torch.ones(3))
    system.encoder.forward = lambda x: q.sample((len(x),))
    batch = {"real": torch.zeros(40_000, 1, 8, 8)}
    optimizer = torch.optim.LBFGS(system.discriminator.parameters(), max_iter=30)

    def loss():
        torch.manual_seed(0)  # the same draws, so that the problem is convex
        optimizer.zero_grad()
        value = system.losses("discriminator", batch, 0)["adversarial"].mean()
        value.backward()
        return value

    optimizer.step(loss)
    codes = q.sample((40_000,))
    told = -system.discriminator(batch["real"], codes)[:, 0]
    wanted = (q.log_prob(codes) - p.log_prob(codes)).sum(1)
    divergence = distributions.kl_divergence(q, p).sum().item()
    assert (told - wanted).abs().mean() < 0.1
    assert told.mean().item() == pytest.approx(divergence, rel=0.05)


def test_codes_are_drawn_anew_and_follow_the_image():
    torch.manual_seed(0)
    for size in (1, 8):
        encoder = ImplicitEncoder(3, 8, 16, size, norm="none").eval()
        x = torch.randn(2, 1, size, size).repeat_interleave(4000, 0)
        codes = encoder(x).detach()
        assert codes.shape == (8000, 3) and encoder.features(x[:5]).shape == (5, 16)
        assert not torch.equal(codes[0], codes[1])
        assert codes.std(0).min() > 0.5 and codes.std(0).max() < 2  # the prior's size from the start
    with torch.no_grad():
        for layer in encoder.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.mul_(3)
    one, other = encoder(x).chunk(2)
    assert (one.mean(0) - other.mean(0)).abs().max() > 0.1


def test_points_have_networks_too():
    x, z = torch.randn(4, 2, 1, 1), torch.randn(4, 3)
    assert Encoder(3, 8, 1, 2, stochastic=True)(x).shape == (4, 6)
    judge = JointDiscriminator(3, 8, 8, 1, 2)
    assert judge(x, z).shape == (4, 1) and not torch.equal(judge(x, z), judge(x * 0, z))
