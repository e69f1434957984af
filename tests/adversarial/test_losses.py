"""Every adversarial loss against its closed form, its constants and its optimal discriminator."""

import math

import numpy as np
import pytest
import torch

from img2img.adversarial import losses


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Written from the papers in terms of D = sigmoid(logit), not of softplus.
FORMULAS = {
    "logistic": (lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)), lambda r, f: -np.log(sigmoid(f))),
    "minimax": (lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)), lambda r, f: np.log(1 - sigmoid(f))),
    "maximum_likelihood": (
        lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
        lambda r, f: -sigmoid(f) / (1 - sigmoid(f)),  # exp of the inverse sigmoid of D is D / (1 - D)
    ),
    "least_squares": (lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2, lambda r, f: 0.5 * (f - 1) ** 2),
    "hinge": (lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: -np.log(sigmoid(r - f)), lambda r, f: -np.log(sigmoid(f - r))),
    "relativistic_average": (
        lambda r, f: -np.log(sigmoid(r - f.mean(0))) - np.log(1 - sigmoid(f - r.mean(0))),
        lambda r, f: -np.log(sigmoid(f - r.mean(0))) - np.log(1 - sigmoid(r - f.mean(0))),
    ),
}
LN2 = math.log(2)
AT_ZERO = {
    "logistic": (2 * LN2, LN2),
    "minimax": (2 * LN2, -LN2),
    "maximum_likelihood": (2 * LN2, -1),
    "least_squares": (0.5, 0.5),
    "hinge": (2, 0),
    "wasserstein": (0, 0),
    "relativistic": (LN2, LN2),
    "relativistic_average": (2 * LN2, 2 * LN2),
}
names = pytest.mark.parametrize("name", FORMULAS)


def test_every_loss_is_tested():
    found = {name for name, value in vars(losses).items() if isinstance(value, losses.Adversarial)}
    assert found == set(FORMULAS) == set(AT_ZERO)


@names
@pytest.mark.parametrize("shape", [(7,), (5, 1), (4, 1, 3, 2)])
def test_closed_form(name, shape):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    for function, formula in zip(getattr(losses, name), FORMULAS[name], strict=True):
        found = function(torch.from_numpy(real), torch.from_numpy(fake))
        assert found.shape == shape
        np.testing.assert_allclose(found.numpy(), formula(real, fake), rtol=1e-10, atol=1e-12)


@names
def test_zero_logits(name):
    zeros = torch.zeros(3, 1)
    game = getattr(losses, name)
    for function, constant in zip(game, AT_ZERO[name], strict=True):
        torch.testing.assert_close(function(zeros, zeros), torch.full((3, 1), float(constant)))


@names
def test_gradients(name):
    torch.manual_seed(0)
    logits = [torch.randn(4, 1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    for function in getattr(losses, name):
        assert torch.autograd.gradcheck(function, logits)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "maximum_likelihood"])  # which is unbounded
def test_large_logits_stay_finite(name):
    extreme = torch.tensor([-1e4, 1e4, -1e4, 1e4]), torch.tensor([-1e4, -1e4, 1e4, 1e4])
    for function in getattr(losses, name):
        real, fake = (logits.clone().requires_grad_() for logits in extreme)
        loss = function(real, fake)
        loss.sum().backward()
        found = [gradient for gradient in (real.grad, fake.grad) if gradient is not None]
        assert loss.isfinite().all() and all(gradient.isfinite().all() for gradient in found)


# Optimal logits where real samples have density p and fake ones q, from each paper.
OPTIMUM = {
    "logistic": lambda p, q: math.log(p / q),  # Goodfellow 2014: D = p / (p + q)
    "least_squares": lambda p, q: p / (p + q),  # Mao 2017, equation 5 with b = 1, a = 0
    "hinge": lambda p, q: 1.0 if p > q else -1.0,  # Lim & Ye 2017: the sign of p - q
}


@pytest.mark.parametrize("name", OPTIMUM)
@pytest.mark.parametrize(("p", "q"), [(0.8, 0.2), (0.3, 0.6), (0.1, 0.9)])
def test_optimal_discriminator(name, p, q):
    logits = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    none = torch.zeros_like(logits)
    pay = getattr(losses, name).discriminator
    at_real = pay(logits, none) - pay(none, none)  # the part of the cost that a real sample brings, and a fake one
    at_fake = pay(none, logits) - pay(none, none)
    best = logits[(p * at_real + q * at_fake).argmin()].item()
    assert best == pytest.approx(OPTIMUM[name](p, q), abs=1e-3)


def test_logistic_reaches_the_jensen_shannon_divergence():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    best = torch.from_numpy(np.log(p / q))
    zero = torch.zeros(3, dtype=torch.float64)
    half = losses.logistic.discriminator(zero, zero) / 2
    real = losses.logistic.discriminator(best, zero) - half
    fake = losses.logistic.discriminator(zero, best) - half
    cost = float((torch.from_numpy(p) * real + torch.from_numpy(q) * fake).sum())
    middle = (p + q) / 2
    divergence = 0.5 * (p * np.log(p / middle)).sum() + 0.5 * (q * np.log(q / middle)).sum()
    assert cost == pytest.approx(2 * math.log(2) - 2 * divergence)


def test_maximum_likelihood_follows_the_likelihood():
    """With the optimal logit log(p / q), d/dtheta E_q[-p/q] is d/dtheta E_p[-log q], here for a Bernoulli q."""
    p = torch.tensor([0.3, 0.7], dtype=torch.float64)
    theta = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    q = torch.stack([torch.sigmoid(theta), 1 - torch.sigmoid(theta)])
    logits = (p / q.detach()).log()
    cost = losses.maximum_likelihood.generator(logits, logits)  # the expectation over q carries the gradient
    (ours,) = torch.autograd.grad((q * cost).sum(), theta, retain_graph=True)
    (likelihood,) = torch.autograd.grad(-(p * q.log()).sum(), theta)
    torch.testing.assert_close(ours, likelihood)


def test_minimax_saturates_where_logistic_does_not():
    fake = torch.tensor([-10.0], requires_grad=True)
    (saturated,) = torch.autograd.grad(losses.minimax.generator(fake, fake), fake)
    (useful,) = torch.autograd.grad(losses.logistic.generator(fake, fake), fake)
    assert -1e-4 < saturated.item() < 0 and useful.item() < -0.999


def test_average_keeps_patches_apart():
    real, fake = torch.zeros(2, 1, 1, 2), torch.tensor([0.0, 4.0]).expand(2, 1, 1, 2)
    found = losses.relativistic_average.discriminator(real, fake)
    torch.testing.assert_close(found[..., 0], torch.full((2, 1, 1), 2 * math.log(2)))
    torch.testing.assert_close(found[..., 1], torch.full((2, 1, 1), 2 * math.log(1 + math.exp(4))))
