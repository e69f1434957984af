"""Penalties on weights against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.adversarial.stabilize import spectral_norm
from img2img.adversarial.weights import HistoricalAverage, mixture_spread, orthogonal
from img2img.networks.mlp import MLPGenerator
from img2img.registry import TABLES, part


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2), nn.Flatten(), nn.Linear(5, 7)
    )


def matrices(net):
    weights = [net[index].weight.detach().double().numpy() for index in (0, 2, 4)]
    weights[1] = weights[1].swapaxes(0, 1)
    return [weight.reshape(len(weight), -1) for weight in weights]


@pytest.mark.parametrize("diagonal", [False, True])
def test_orthogonal(net, diagonal):
    expected = 0.0
    for weight in matrices(net):
        square = weight @ weight.T
        rest = square - (np.eye(len(square)) if diagonal else np.diag(np.diag(square)))
        expected += (rest**2).sum()
    assert orthogonal(net, diagonal=diagonal).item() == pytest.approx(expected, rel=1e-5)


def test_orthogonal_weights_cost_nothing():
    net = nn.Sequential(nn.Linear(8, 5), nn.Conv2d(4, 3, 3))
    for layer in net:
        nn.init.orthogonal_(layer.weight)
    assert orthogonal(net, diagonal=True) < 1e-10 > orthogonal(net)


def test_orthogonal_reads_beneath_spectral_norm(net):
    expected = orthogonal(net).item()
    spectral_norm(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = orthogonal(net)
    assert found.item() == pytest.approx(expected)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "no power iteration"
    found.backward()
    assert net[4].parametrizations.weight.original.grad.abs().sum() > 0


def test_float32_under_autocast(net):
    plain = orthogonal(net).item()
    with torch.autocast("cpu", torch.bfloat16):
        for found in (orthogonal(net), HistoricalAverage(net)(net)):
            assert found.dtype == torch.float32
        assert orthogonal(net).item() == plain


def test_historical_average(net):
    """|theta_t - mean of theta_1 ... theta_t|^2 by numpy, over a walk."""
    term = part("weight_penalty", {"type": "historical_average"}, module=net)
    past = []
    for _ in range(6):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        weights = np.concatenate([p.detach().double().numpy().ravel() for p in net.parameters()])
        past.append(weights)
        found = term(net)
        assert found.item() == pytest.approx(((weights - np.mean(past, 0)) ** 2).sum(), rel=1e-4, abs=1e-6)
    found.backward()
    gradient = np.concatenate([p.grad.double().numpy().ravel() for p in net.parameters()])
    np.testing.assert_allclose(gradient, 2 * (weights - np.mean(past, 0)), rtol=1e-3, atol=1e-4)
    assert set(term.state_dict()) == {"mean", "calls"} and term.calls == 6
    other = HistoricalAverage(net)
    other.load_state_dict(term.state_dict())
    term.eval(), other.eval()
    assert torch.equal(other(net), term(net)) and other.calls == 6


def test_mixture_spread(net):
    generator = MLPGenerator(latent=3, mixture=4, sigma=0.2, width=4, size=2)
    assert mixture_spread(generator).item() == pytest.approx(0.8**2)
    with torch.no_grad():
        generator.prior.sigma[0] = 1.0
    assert mixture_spread(generator).item() == pytest.approx(0.75 * 0.8**2)
    with pytest.raises(ValueError, match="no mixture"):
        mixture_spread(net)


@pytest.mark.parametrize("name", TABLES["weight_penalty"])
def test_every_penalty_is_a_scalar_that_weights_learn_from(name):
    generator = MLPGenerator(latent=3, mixture=4, width=4, size=2)
    term = part("weight_penalty", {"type": name}, module=generator)
    term(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1)
    found = term(generator)
    assert found.shape == () and found > 0
    found.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
