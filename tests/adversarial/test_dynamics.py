"""Looking ahead, and consensus, on games small enough to be worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from img2img.adversarial import losses
from img2img.adversarial.dynamics import borrowed, consensus, unroll
from img2img.adversarial.stabilize import spectral_norm


def scalar(value):
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, value)
    return layer


class Point(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[value]], dtype=torch.float64))

    def forward(self, z=None):
        return self.theta


def test_borrowed_leaves_all_state_alone():
    torch.manual_seed(0)
    net = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    weights = {name: p.detach() + 1 for name, p in net.named_parameters()}
    x = torch.randn(5, 3)
    found = borrowed(net, weights)(x)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    twin = copy.deepcopy(net)
    twin.load_state_dict(before | weights)
    torch.testing.assert_close(found, twin(x))


def test_unrolled_steps_of_a_quadratic():
    """D(x) = psi x with cost (psi theta - 1)^2 / 2: psi moves by -rate theta (psi theta - 1) a step."""
    net, theta = scalar(0.5), torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    cost = lambda critic: (critic(theta) - 1).square().sum() / 2  # noqa: E731
    weights = unroll(net, cost, steps=3, rate=0.1)
    factor = 1 - 0.1 * theta.item() ** 2  # psi - 1/theta shrinks by this each step
    assert weights["weight"].item() == pytest.approx(0.5 + (0.5 - 0.5) * factor**3)
    theta = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    weights = unroll(net, lambda critic: (critic(theta) - 1).square().sum() / 2, steps=3, rate=0.1)
    closed = lambda t: 1 / t + (0.5 - 1 / t) * (1 - 0.1 * t**2) ** 3  # noqa: E731
    assert weights["weight"].item() == pytest.approx(closed(3.0))
    (gradient,) = torch.autograd.grad(weights["weight"].sum(), theta)
    assert gradient.item() == pytest.approx((closed(3 + 1e-6) - closed(3 - 1e-6)) / 2e-6, rel=1e-6)
    assert net.weight.item() == 0.5 and net.weight.grad is None


def test_no_steps_are_the_present_weights():
    net = scalar(0.7)
    weights = unroll(net, lambda critic: critic(torch.ones(1, 1)).sum(), steps=0, rate=1.0)
    assert weights["weight"].item() == 0.7


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_unrolled_steps_are_torchs(optimizer):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(6, 3)
    cost = lambda critic: (critic(x) - 1).square().mean()  # noqa: E731
    weights = unroll(net, cost, steps=5, rate=0.05, optimizer=optimizer, betas=(0.5, 0.9))
    twin = copy.deepcopy(net)
    kind = torch.optim.SGD(twin.parameters(), 0.05)
    if optimizer == "adam":
        kind = torch.optim.Adam(twin.parameters(), 0.05, betas=(0.5, 0.9))
    for _ in range(5):
        kind.zero_grad()
        cost(twin).backward()
        kind.step()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(weights[name], parameter, rtol=1e-4, atol=1e-6)


def test_unroll_of_a_frozen_discriminator_under_autocast():
    """As the generator's phase has it; a parameter without a gradient stays, and Adam's root has a slope at 0."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).requires_grad_(False)
    fake = torch.randn(5, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        cost = lambda critic: losses.logistic.discriminator(torch.zeros(5, 1), critic(fake)).mean()  # noqa: E731
        weights = unroll(net, cost, steps=2, rate=0.1, optimizer="adam")
    assert all(value.dtype == torch.float32 for value in weights.values())
    losses.logistic.generator(fake, borrowed(net, weights)(fake)).mean().backward()
    assert fake.grad.isfinite().all() and fake.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())


def dirac(critic, generator):
    """The Wasserstein game of Mescheder's Dirac-GAN: v = (theta, -psi)."""
    fake = critic(generator())
    return fake.sum(), -fake.sum()


def test_consensus_of_the_dirac_gan():
    """|v|^2 / 2 = (psi^2 + theta^2) / 2, whose gradient is (psi, theta)."""
    critic, generator = scalar(0.6), Point(-1.5)
    found = consensus(dirac, critic, generator)
    assert found.item() == pytest.approx((0.6**2 + 1.5**2) / 2) and found.shape == ()
    found.backward()
    assert critic.weight.grad.item() == pytest.approx(0.6)
    assert generator.theta.grad.item() == pytest.approx(-1.5)


@pytest.mark.parametrize("learner", ["critic", "generator"])
def test_consensus_reaches_the_one_that_learns(learner):
    players = {"critic": scalar(0.6), "generator": Point(-1.5)}
    for name, network in players.items():
        network.requires_grad_(name == learner)
    consensus(dirac, players["critic"], players["generator"]).backward()
    for name, network in players.items():
        gradients = [p.grad for p in network.parameters()]
        assert (gradients[0] is not None) == (name == learner)


def orbit(weight, steps=400, rate=0.05):
    critic, generator = scalar(1.0), Point(1.0)
    for _ in range(steps):
        for index, player in enumerate((critic, generator)):
            loss = dirac(critic, generator)[index]
            loss = loss + weight * consensus(dirac, critic, generator) if weight else loss
            (gradient,) = torch.autograd.grad(loss, list(player.parameters()))
            next(player.parameters()).data.sub_(rate * gradient)
    return (critic.weight.item() ** 2 + generator.theta.item() ** 2) ** 0.5


def test_consensus_ends_what_alternating_descent_circles():
    assert orbit(0.0) > 1.2 and orbit(1.0) < 1e-4


def test_consensus_in_float32_under_autocast():
    torch.manual_seed(3)
    critic, generator = nn.Linear(4, 1), nn.Linear(3, 4)
    z = torch.randn(5, 3)

    def game(critic, generator):
        fake = critic(generator(z))
        return losses.logistic.discriminator(fake * 0, fake).mean(), losses.logistic.generator(fake, fake).mean()

    plain = consensus(game, critic, generator)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = consensus(game, critic, generator)
    assert mixed.dtype == torch.float32 and torch.equal(plain, mixed)
