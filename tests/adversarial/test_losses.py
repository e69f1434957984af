"""Every adversarial loss against its closed form, its constants and its optimal discriminator."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from img2img.adversarial import losses
from img2img.registry import TABLES, options, part


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
    "reverse_kl": (lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: -np.log(sigmoid(r - f)), lambda r, f: -np.log(sigmoid(f - r))),
    "relativistic_average": (
        lambda r, f: -np.log(sigmoid(r - f.mean(0))) - np.log(1 - sigmoid(f - r.mean(0))),
        lambda r, f: -np.log(sigmoid(f - r.mean(0))) - np.log(1 - sigmoid(r - f.mean(0))),
    ),
}
UNIT = np.log(np.e - 1)
FORMULAS |= {
    # Least-squares density ratio: half E_Q r^2 - E_P r, up to a constant.
    "density_ratio": (
        lambda r, f: 0.5 * np.log1p(np.exp(f + UNIT)) ** 2 - np.log1p(np.exp(r + UNIT)) + 0.5,
        lambda r, f: 0.5 * (np.log1p(np.exp(f + UNIT)) - 1) ** 2,
    ),
    "ebgan": (lambda r, f: -r + np.maximum(0, 1 + f), lambda r, f: -f),
    "began": (lambda r, f: -r, lambda r, f: -f),  # k starts at 0
    "fgan": (  # Jensen-Shannon, table 6: g = log 2 - log(1 + exp(-v)), f* = -log(2 - exp(t))
        lambda r, f: -np.log(2 - 2 * sigmoid(f)) - np.log(2 * sigmoid(r)),
        lambda r, f: -np.log(2 * sigmoid(f)),
    ),
}
LN2 = math.log(2)
AT_ZERO = {
    "began": (0, 0),
    "density_ratio": (0, 0),
    "ebgan": (1, 0),
    "fgan": (0, 0),
    "logistic": (2 * LN2, LN2),
    "minimax": (2 * LN2, -LN2),
    "maximum_likelihood": (2 * LN2, -1),
    "least_squares": (0.5, 0.5),
    "hinge": (2, 0),
    "reverse_kl": (2 * LN2, 0),
    "wasserstein": (0, 0),
    "relativistic": (LN2, LN2),
    "relativistic_average": (2 * LN2, 2 * LN2),
}
names = pytest.mark.parametrize("name", FORMULAS)


def test_every_loss_is_tested():
    assert set(TABLES["adversarial"]) == set(FORMULAS) == set(AT_ZERO)


def game(name, **options):
    return part("adversarial", {"type": name} | options)


def both(name, **options):
    found = game(name, **options)
    return found.discriminator, found.generator


@names
@pytest.mark.parametrize("shape", [(7,), (5, 1), (4, 1, 3, 2)])
def test_closed_form(name, shape):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    for function, formula in zip(both(name), FORMULAS[name], strict=True):
        found = function(torch.from_numpy(real), torch.from_numpy(fake))
        assert found.shape == shape
        np.testing.assert_allclose(found.numpy(), formula(real, fake), rtol=1e-10, atol=1e-12)


@names
def test_zero_logits(name):
    zeros = torch.zeros(3, 1)
    for function, constant in zip(both(name), AT_ZERO[name], strict=True):
        torch.testing.assert_close(function(zeros, zeros), torch.full((3, 1), float(constant)))


@names
def test_gradients(name):
    torch.manual_seed(0)
    logits = [torch.randn(4, 1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    for function in both(name):
        assert torch.autograd.gradcheck(function, logits)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "maximum_likelihood"])  # which is unbounded
def test_large_logits_stay_finite(name):
    extreme = torch.tensor([-1e4, 1e4, -1e4, 1e4]), torch.tensor([-1e4, -1e4, 1e4, 1e4])
    for function in both(name):
        real, fake = (logits.clone().requires_grad_() for logits in extreme)
        loss = function(real, fake)
        loss.sum().backward()
        found = [gradient for gradient in (real.grad, fake.grad) if gradient is not None]
        assert loss.isfinite().all() and all(gradient.isfinite().all() for gradient in found)


# Optimal logits where real samples have density p and fake ones q, from each paper.
OPTIMUM = {
    "logistic": lambda p, q: math.log(p / q),  # Goodfellow 2014: D = p / (p + q)
    "least_squares": lambda p, q: p / (p + q),  # Mao 2017, equation 5 with b = 1, a = 0
    "minimax": lambda p, q: math.log(p / q),
    "maximum_likelihood": lambda p, q: math.log(p / q),
    "reverse_kl": lambda p, q: math.log(p / q),  # Mescheder 2017, proposition 1, with minus the logit for T
    "fgan": lambda p, q: math.log(p / q),  # Nowozin 2016: T = f'(p / q), here log(2 p / (p + q))
    "density_ratio": lambda p, q: math.log(math.expm1(p / q)) - UNIT,  # Uehara 2016: r = p / q
    "hinge": lambda p, q: 1.0 if p > q else -1.0,  # Lim & Ye 2017: the sign of p - q
}


@pytest.mark.parametrize("name", OPTIMUM)
@pytest.mark.parametrize(("p", "q"), [(0.8, 0.2), (0.3, 0.6), (0.1, 0.9)])
def test_optimal_discriminator(name, p, q):
    logits = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    none = torch.zeros_like(logits)
    pay = game(name).discriminator
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


def test_the_original_game_at_its_equilibrium():
    """A discrete toy: gradient descent finds D = p / (p + q); at q = p the value is -log 4 (Goodfellow 2014)."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for q in (torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64), p):
        logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        none = torch.zeros(3, dtype=torch.float64)

        def cost(logits=logits, q=q, none=none):
            pay = losses.logistic.discriminator
            return (p * (pay(logits, none) - LN2) + q * (pay(none, logits) - LN2)).sum()

        for _ in range(500):
            (gradient,) = torch.autograd.grad(cost(), logits)
            logits.data -= gradient
        torch.testing.assert_close(torch.sigmoid(logits.detach()), p / (p + q), rtol=1e-6, atol=1e-6)
    assert -cost().item() == pytest.approx(-math.log(4))


@pytest.mark.parametrize("label", [0.9, 0.5])
@pytest.mark.parametrize(("p", "q"), [(0.8, 0.2), (0.3, 0.6)])
def test_one_sided_smoothing_moves_the_best_discriminator(label, p, q):
    """Salimans 2016, section 3.4: D = a p / (p + q) where fakes keep the label 0."""
    pay, zero = game("logistic", real_label=label).discriminator, torch.zeros((), dtype=torch.float64)

    def cost(v):
        v = torch.tensor(v, dtype=torch.float64)
        return (p * (pay(v, zero) - LN2) + q * (pay(zero, v) - LN2)).item()

    best = minimize_scalar(cost, bounds=(-10, 10), method="bounded", options={"xatol": 1e-9}).x
    assert sigmoid(best) == pytest.approx(label * p / (p + q), abs=1e-6)


# The generators f of table 1, their domain of slopes, and nothing else: the rest is worked out numerically.
GENERATORS = {
    "kl": lambda u: u * np.log(u),
    "reverse_kl": lambda u: -np.log(u),
    "pearson": lambda u: (u - 1) ** 2,
    "neyman": lambda u: (1 - u) ** 2 / u,
    "squared_hellinger": lambda u: (np.sqrt(u) - 1) ** 2,
    "jensen_shannon": lambda u: u * np.log(u) - (u + 1) * np.log((1 + u) / 2),
    "gan": lambda u: u * np.log(u) - (u + 1) * np.log(u + 1),
    "total_variation": lambda u: np.abs(u - 1) / 2,
}


def test_every_divergence_is_tested():
    assert set(GENERATORS) == set(losses.DIVERGENCES)
    assert set(options("adversarial", "fgan")["divergence"].annotation.__args__) == set(losses.DIVERGENCES)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("v", [-1.5, -0.4, 0.0, 0.3, 1.2])
def test_conjugate_is_the_supremum(name, v):
    """f*(t) = sup over u > 0 of u t - f(u), at t = g(v)."""
    pair, f = losses.DIVERGENCES[name], GENERATORS[name]
    point = torch.tensor(v, dtype=torch.float64)
    t = pair.activation(point).item()
    found = minimize_scalar(lambda s: f(np.exp(s)) - np.exp(s) * t, bounds=(-12, 12), method="bounded")
    assert pair.composed(point).item() == pytest.approx(-found.fun, abs=2e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_activation_grows_and_stays_in_the_domain(name):
    """Fenchel-Young: u g(v) <= f(u) + f*(g(v)) for all u, v; and a larger v says "more real"."""
    pair = losses.DIVERGENCES[name]
    v = torch.linspace(-2, 6, 400, dtype=torch.float64)
    assert (pair.activation(v).diff() > 0).all() and (pair.composed(v).diff() > 0).all()
    u = torch.logspace(-4, 4, 300, dtype=torch.float64)[:, None]
    bound = torch.from_numpy(GENERATORS[name](u.numpy())) + pair.composed(v)
    assert (bound - u * pair.activation(v)).min() > -1e-9


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "total_variation"])
def test_the_best_discriminator_measures_the_divergence(name):
    """Its supremum is E_Q f(p / q), reached at g(v) = f'(p / q)."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    fgan, total, zero = game("fgan", divergence=name), 0.0, torch.zeros((), dtype=torch.float64)
    at_zero = fgan.discriminator(zero, zero).item()
    activation, composed = fgan.conjugate
    assert at_zero == pytest.approx((composed(zero) - activation(zero)).item())
    for x, y in zip(p, q, strict=True):

        def cost(v, x=x, y=y):
            v = torch.tensor(v, dtype=torch.float64)
            return -(x * activation(v) - y * composed(v)).item()

        total -= minimize_scalar(cost, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).fun
    assert total == pytest.approx((q * GENERATORS[name](p / q)).sum(), abs=1e-7)


def test_total_variation_is_approached():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    sure = torch.tensor([20.0, 0.0, -20.0], dtype=torch.float64)
    activation, composed = losses.DIVERGENCES["total_variation"]
    value = (torch.from_numpy(p) * activation(sure) - torch.from_numpy(q) * composed(sure)).sum().item()
    assert value == pytest.approx(0.5 * np.abs(p - q).sum())


@pytest.mark.parametrize("name", GENERATORS)
def test_both_generators_of_fgan_push_fakes_up(name):
    for saturating in (False, True):
        fake = torch.linspace(-1, 1, 5, requires_grad=True)
        loss = game("fgan", divergence=name, saturating=saturating).generator(fake, fake)
        (gradient,) = torch.autograd.grad(loss.sum(), fake)
        assert (gradient < 0).all()
    pair = losses.DIVERGENCES[name]
    torch.testing.assert_close(loss, -pair.composed(fake))


def test_began_steers_k():
    """k and the measure by hand, equation of section 3.4: L(x) = 2, L(G) = 0.5, gamma = 0.5, lambda = 0.1."""
    loss = game("began", diversity=0.5, rate=0.1)
    real, fake = torch.full((4, 1), -2.0), torch.full((4, 1), -0.5)
    assert loss.discriminator(real, fake).mean() == 2 and loss.k == 0
    loss.update(real, fake)
    assert loss.k.item() == pytest.approx(0.1 * (0.5 * 2 - 0.5))
    assert loss.convergence.item() == pytest.approx(2 + 0.5)
    assert loss.discriminator(real, fake).mean().item() == pytest.approx(2 - 0.05 * 0.5)
    loss.update(real, fake, share=0.5)  # half a step's batch
    assert loss.k.item() == pytest.approx(0.05 + 0.025)
    for _ in range(100):
        loss.update(real, fake)
    assert loss.k == 1
    assert set(loss.state_dict()) == {"k", "convergence"}
    loss.eval()
    loss.update(real, fake * 100)
    assert loss.k == 1, "evaluation moves nothing"


def test_began_backward_after_k_moved():
    loss, logits = game("began"), torch.full((2, 1), -1.0, requires_grad=True)
    cost = loss.discriminator(logits, logits).sum()
    loss.update(logits, logits)
    cost.backward()
    assert logits.grad.flatten().tolist() == [-1, -1]


@pytest.mark.parametrize("name", ["logistic", "minimax", "reverse_kl", "hinge", "wasserstein"])
def test_games_whose_players_can_be_exchanged(name):
    """A player who gets real and fake the other way round moves D as the generator at -D does, up to the label's side.

    Of the value that the discriminator maximises, what it says of real samples is the fakes' part at -D.
    """
    loss, logits = game(name), torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    zero = torch.zeros_like(logits)
    assert loss.exchangeable
    real, fake = (loss.discriminator(*pair) for pair in ((logits, zero), (zero, -logits)))
    torch.testing.assert_close(real, fake)


@pytest.mark.parametrize("name", ["least_squares", "relativistic", "relativistic_average", "ebgan", "began", "fgan"])
def test_games_whose_players_cannot_be_exchanged(name):
    assert not getattr(game(name), "exchangeable", False)


@pytest.mark.parametrize(
    "name", ["logistic", "smoothed", "minimax", "reverse_kl", "least_squares", "density_ratio", *GENERATORS]
)
def test_neutral_logit_is_the_best_answer_where_both_are_alike(name):
    loss = game("fgan", divergence=name) if name in GENERATORS else None
    loss = loss or (game("logistic", real_label=0.9) if name == "smoothed" else game(name))
    logit = torch.tensor([loss.neutral], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.discriminator(logit, logit).sum(), logit)
    assert abs(gradient.item()) < 1e-9


def test_ebgan_leaves_fakes_beyond_the_margin_alone():
    fake = torch.tensor([-3.0, -1.0], requires_grad=True)
    loss = game("ebgan", margin=2.0).discriminator(torch.zeros(2), fake)
    assert loss.tolist() == [0, 1]
    assert torch.autograd.grad(loss.sum(), fake)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "logistic", "real_label": 0.0},
        {"type": "logistic", "real_label": 1.1},
        {"type": "ebgan", "margin": 0.0},
        {"type": "began", "diversity": 1.5},
        {"type": "fgan", "divergence": "kll"},
    ],
)
def test_options_that_cannot_be(spec):
    with pytest.raises(ValueError, match=f"adversarial {spec['type']}: "):
        part("adversarial", spec)


@pytest.mark.parametrize("name", TABLES["adversarial"])
def test_only_relative_losses_look_at_real_logits_for_the_generator(name):
    loss = part("adversarial", {"type": name})
    torch.manual_seed(0)
    fake, real = torch.randn(6, 1), torch.randn(2, 6, 1)
    costs = [loss.generator(each, fake) for each in real]
    assert getattr(loss, "relative", False) == (not torch.equal(*costs))


def test_the_exact_density_ratio_follows_the_divergence():
    """Of Pearson's divergence of two discrete distributions, the derivative in q, by finite differences."""
    p, q = np.array([0.1, 0.6, 0.3]), np.array([0.5, 0.2, 0.3])

    def divergence(q):
        return float((q * (p / q - 1) ** 2 / 2).sum())

    steps = np.eye(3) * 1e-6
    slopes = [(divergence(q + step) - divergence(q - step)) / 2e-6 for step in steps]
    logits = torch.from_numpy(np.log(np.expm1(p / q)) - UNIT)
    found = part("adversarial", {"type": "density_ratio", "exact": True}).generator(None, logits)
    np.testing.assert_allclose(found.numpy(), slopes, rtol=1e-6)
    plain = part("adversarial", {"type": "density_ratio"}).generator(None, logits)
    assert plain.argmax() == 1, "the plain cost is worst where there is too little"
    assert found.argmin() == 1, "and the exact one best"
