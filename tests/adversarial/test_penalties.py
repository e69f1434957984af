"""Gradient penalties against closed forms, and what they do to the simplest game."""

import pytest
import torch
from torch import nn

from img2img.adversarial.losses import DIVERGENCES
from img2img.adversarial.penalties import gradient_penalty, r1, r2
from img2img.registry import TABLES, part

PENALTIES = (gradient_penalty, r1, r2)


@pytest.fixture
def samples():
    torch.manual_seed(0)
    return torch.randn(6, 3, 4, 4, dtype=torch.float64), torch.randn(6, 3, 4, 4, dtype=torch.float64)


def linear(weight):
    return lambda x: (x * weight).flatten(1).sum(1, keepdim=True)


def test_linear_discriminator(samples):
    weight = torch.randn(3, 4, 4, dtype=torch.float64)
    length = weight.norm()
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(gradient_penalty(linear(weight), *samples), ones * (length - 1) ** 2)
    torch.testing.assert_close(gradient_penalty(linear(weight), *samples, target=0.5), ones * (length - 0.5) ** 2)
    torch.testing.assert_close(r1(linear(weight), *samples), ones * length**2 / 2)
    torch.testing.assert_close(r2(linear(weight), *samples), ones * length**2 / 2)


def test_each_is_taken_at_its_own_place(samples):
    """D = |x|^2 / 2 has the gradient x, so that penalties say where they were taken."""
    real, fake = samples
    quadratic = lambda x: x.square().flatten(1).sum(1) / 2  # noqa: E731
    torch.testing.assert_close(r1(quadratic, real, fake), real.square().flatten(1).sum(1) / 2)
    torch.testing.assert_close(r2(quadratic, real, fake), fake.square().flatten(1).sum(1) / 2)
    # Between them: at real = 0 and fake = x the length is place * |x|, with one place for a whole sample.
    torch.manual_seed(1)
    found = gradient_penalty(quadratic, torch.zeros_like(fake), fake, target=0.0).sqrt() / fake.flatten(1).norm(dim=1)
    torch.manual_seed(1)
    torch.testing.assert_close(found, torch.rand(6, 1, 1, 1, dtype=torch.float64).flatten())
    assert found.unique().numel() == 6 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("penalty", PENALTIES)
def test_samples_are_independent(penalty, samples):
    """A penalty whose norm is taken over the batch fails here."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 1)).double()
    torch.manual_seed(3)
    whole = penalty(net, *samples)
    torch.manual_seed(3)
    places = torch.rand(6, 1, 1, 1, dtype=torch.float64)
    real, fake = samples
    for one in range(6):
        x = {gradient_penalty: torch.lerp(real, fake, places), r1: real, r2: fake}[penalty][one : one + 1].clone()
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(net(x), x)
        length = gradient.norm()
        torch.testing.assert_close(whole[one], (length - 1) ** 2 if penalty is gradient_penalty else length**2 / 2)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_patches_count_with_their_mean(penalty, samples):
    torch.manual_seed(4)
    net = nn.Conv2d(3, 1, 2).double()
    torch.manual_seed(5)
    patches = penalty(net, *samples)
    torch.manual_seed(5)
    torch.testing.assert_close(patches, penalty(lambda x: net(x).mean((1, 2, 3)), *samples))
    assert patches.shape == (6,)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_its_gradient(penalty):
    """The double backward by finite differences, for the discriminator's weights; none reaches the generator."""
    torch.manual_seed(6)
    real, fake = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    first, second = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((4, 3), (1, 4)))

    def cost(first, second):
        torch.manual_seed(7)
        return penalty(lambda x: torch.tanh(x @ first.T) @ second.T, real, fake)

    assert torch.autograd.gradcheck(cost, (first, second))
    cost(first, second).sum().backward()
    assert fake.grad is None and not real.requires_grad


@pytest.mark.parametrize("penalty", PENALTIES)
def test_autocast_changes_nothing(penalty):
    torch.manual_seed(8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(72, 1))
    real, fake = torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8)
    found = []
    for enabled in (False, True):
        torch.manual_seed(9)
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            net(real)  # fills autocast's cache of weights, as a training step does
            values = penalty(net, real, fake)
        values.mean().backward()
        found.append([values.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for plain, mixed in zip(*found, strict=True):
        assert mixed.dtype == torch.float32 and torch.equal(plain, mixed)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_mixed_runs_the_discriminator_in_bf16(penalty):
    torch.manual_seed(8)
    net = nn.Sequential(nn.Conv2d(3, 32, 3, stride=2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(288, 1))
    real, fake, seen = torch.randn(64, 3, 8, 8), torch.randn(64, 3, 8, 8), []
    net[0].register_forward_hook(lambda module, given, made: seen.append(made.dtype))

    def gradient(dtype, **options):
        torch.manual_seed(9)
        net.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            values = penalty(net, real, fake, **options)
        assert values.dtype == torch.float32
        values.mean().backward()
        return net[0].weight.grad.clone()

    exact = gradient(torch.float32)
    for dtype in (torch.float32, torch.float16):  # fp16 has no room for gradients of gradients
        assert torch.equal(gradient(dtype, mixed=True), exact)
    assert set(seen) == {torch.float32}
    found = gradient(torch.bfloat16, mixed=True)
    assert seen[-1] == torch.bfloat16
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.02


def test_half_precision_samples_are_widened():
    torch.manual_seed(10)
    fake = torch.randn(2, 3, dtype=torch.bfloat16)
    assert gradient_penalty(nn.Linear(3, 1), torch.randn(2, 3), fake).dtype == torch.float32


def test_works_inside_no_grad():
    with torch.no_grad():
        assert r1(nn.Linear(3, 1), torch.randn(2, 3), torch.randn(2, 3)).shape == (2,)


def dirac(spec, weight, steps=300, rate=0.2):
    """Mescheder's Dirac-GAN: data at 0, one generated point theta, D(x) = psi x; alternating descent.

    Least squares is indifferent at a logit of 1/2, KL's f-GAN at f'(1) = 1, the others at 0: there D starts.
    """
    spec = {"type": spec} if isinstance(spec, str) else spec
    game = part("adversarial", spec)
    offset = {"least_squares": 0.5, "kl": 1.0}.get(spec.get("divergence", spec["type"]), 0.0)
    theta, psi = (torch.tensor([1.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    real = torch.zeros(1, dtype=torch.float64)
    path = []
    for _ in range(steps):
        critic = lambda x: psi * x + offset  # noqa: E731
        loss = game.discriminator(critic(real), critic(theta.detach())).mean()
        if weight:
            loss = loss + weight * r1(critic, real, theta).mean()
        (gradient,) = torch.autograd.grad(loss, psi)
        psi.data -= rate * gradient
        (gradient,) = torch.autograd.grad(game.generator(critic(real), critic(theta)).mean(), theta)
        theta.data -= rate * gradient
        path.append((theta.item() ** 2 + psi.item() ** 2) ** 0.5)
    return path


FGANS = [{"type": "fgan", "divergence": name, "saturating": flag} for name in DIVERGENCES for flag in (False, True)]
# b-GAN's generator pulls its ratio to 1, not up; an energy is no linear function of a point.
LINEAR = [name for name in TABLES["adversarial"] if name not in ("density_ratio", "began", "ebgan", "fgan")]


EXACT = {"type": "density_ratio", "exact": True}


@pytest.mark.parametrize("spec", [*LINEAR, *FGANS, EXACT, {"type": "ebgan", "margin": 10.0}], ids=str)
def test_dirac_gan_converges_with_r1(spec):
    assert dirac(spec, weight=1.0)[-1] < 1e-6


def test_dirac_gan_of_the_density_ratio_crawls():
    """Its field turns only to third order: with R1, theta falls like 1 / sqrt(t); without, psi need not come home."""
    path = dirac("density_ratio", weight=1.0, steps=1600)
    assert 0.4 < path[-1] / path[399] < 0.6
    assert dirac("density_ratio", weight=0.0, steps=800)[-1] > 0.3


def began_path(weight):
    """An energy psi x^2 / 2 in place of psi x: with k = 0 nothing holds psi up, and no fake is pushed away."""
    game = part("adversarial", {"type": "began", "diversity": 0.5, "rate": 0.05})
    theta, psi = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (1.0, 0.5))
    real = torch.tensor([-0.1, 0.1], dtype=torch.float64)
    critic = lambda x: -(psi**2) * (x**2) / 2  # noqa: E731
    for _ in range(400):
        scores = critic(real), critic(theta.detach())
        loss = game.discriminator(*scores).mean() + weight * r1(critic, real, theta).mean()
        game.update(*scores)
        psi.data -= 0.1 * torch.autograd.grad(loss, psi)[0]
        theta.data -= 0.1 * torch.autograd.grad(game.generator(theta, critic(theta)).mean(), theta)[0]
    return theta.abs().item(), game.k.item()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_began_walks_to_the_data(weight):
    (theta, k), start = began_path(weight), 1.0
    assert theta < 0.5 * start and 0 <= k <= 1


SATURATED = {"type": "fgan", "divergence": "gan", "saturating": True}


@pytest.mark.parametrize("spec", ["minimax", "hinge", "wasserstein", SATURATED], ids=str)
def test_dirac_gan_circles_without(spec):
    assert min(dirac(spec, weight=0.0)) > 1, "a zero-sum game stays on its orbit around (0, 0)"


def test_dirac_gan_runs_away_without():
    path = dirac("maximum_likelihood", weight=0.0)
    assert min(path[-100:]) > 3, "it ends further out than it started, at sqrt(2)"


@pytest.mark.parametrize("name", ["logistic", "least_squares", "relativistic", "relativistic_average"])
def test_dirac_gan_crawls_without(name):
    """Its field only turns at the equilibrium: the distance falls like 1 / sqrt(t), not exponentially."""
    path = dirac(name, weight=0.0, steps=800)
    assert path[-1] > 0.1 and 0.4 < path[-1] / path[199] < 0.6
