"""Clipping, spectral normalisation and moving averages."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from img2img.adversarial.stabilize import EMA, clip_weights, spectral_norm


def build():
    convolutions = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * 49, 5))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build()


def test_clip_weights(net):
    before = [p.clone() for p in net.parameters()]
    clip_weights(net, 0.05)
    for old, new in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), torch.from_numpy(np.clip(old.detach().numpy(), -0.05, 0.05)))
    assert max(p.abs().max().item() for p in net.parameters()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="positive"):
        clip_weights(net, 0)


def matrix(weight, transposed):
    weight = weight.detach().numpy()
    return (weight.swapaxes(0, 1) if transposed else weight).reshape(weight.shape[1 if transposed else 0], -1)


def test_spectral_norm_matches_the_svd(net):
    plain = copy.deepcopy(net)
    assert spectral_norm(net) is net
    x = torch.randn(2, 3, 8, 8)
    for _ in range(30):
        net(x)
    net.eval()
    for index in (0, 3, 5):
        transposed = index == 3
        largest = np.linalg.svd(matrix(plain[index].weight, transposed), compute_uv=False)[0]
        normed = matrix(net[index].weight, transposed)
        assert np.linalg.svd(normed, compute_uv=False)[0] == pytest.approx(1, rel=0.05)
        np.testing.assert_allclose(normed * largest, matrix(plain[index].weight, transposed), rtol=0.05, atol=1e-4)
    assert [name for name, _ in net[1].named_parameters()] == ["weight", "bias"]  # batch norm stays as it is


def test_spectral_norm_takes_one_iteration_per_training_pass():
    torch.manual_seed(1)
    layer = spectral_norm(nn.Linear(20, 10))
    state = layer.parametrizations.weight[0]
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.randn(10, 20))  # far from where its vectors are
    original = layer.parametrizations.weight.original.detach().numpy()
    u = original @ state._v.numpy()
    u /= np.linalg.norm(u)
    v = original.T @ u
    v /= np.linalg.norm(v)
    layer(torch.zeros(1, 20))
    np.testing.assert_allclose(state._u.numpy(), u, atol=1e-5)
    np.testing.assert_allclose(state._v.numpy(), v, atol=1e-5)
    layer.eval()
    layer(torch.zeros(1, 20))
    np.testing.assert_allclose(state._u.numpy(), u, atol=1e-5)  # evaluation leaves them alone
    np.testing.assert_allclose(layer.weight.detach().numpy(), original / (u @ original @ v), atol=1e-5)


def test_spectral_norm_twice_is_once(net):
    keys = set(spectral_norm(net).state_dict())
    assert set(spectral_norm(net).state_dict()) == keys
    assert "0.parametrizations.weight.0._u" in keys  # the iteration's state is in the checkpoint


def test_spectral_norm_resumes_exactly(net):
    spectral_norm(net)
    x = torch.randn(2, 3, 8, 8)
    net(x)
    other = spectral_norm(build())
    other.load_state_dict(net.state_dict())
    for _ in range(3):
        assert torch.equal(net(x), other(x))


def scalar(value):
    layer = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_of_a_constant_is_the_constant(warmup):
    ema = EMA(scalar(3.0), 0.9, warmup=warmup)
    for _ in range(20):
        ema.update(scalar(3.0))
    assert ema.module.weight.item() == pytest.approx(3.0, abs=1e-12)


def test_ema_of_a_linear_sequence():
    """Of 0, 1, 2, ... T it is T - (d / (1 - d)) (1 - d^T): a lag that grows to d / (1 - d)."""
    decay, last = 0.9, 50
    ema = EMA(scalar(0.0), decay, warmup=False)
    for value in range(1, last + 1):
        ema.update(scalar(float(value)))
    assert ema.module.weight.item() == pytest.approx(last - decay / (1 - decay) * (1 - decay**last), abs=1e-12)


def test_ema_warms_up():
    """From 0, updates with 1 leave the product of the decays min(d, (1 + t) / (10 + t))."""
    ema, left = EMA(scalar(0.0), 0.5), 1.0
    for t in range(30):
        ema.update(scalar(1.0))
        left *= min(0.5, (1 + t) / (10 + t))
        assert ema.module.weight.item() == pytest.approx(1 - left, abs=1e-12)
    assert ema.updates == 30


def test_ema_copies_buffers_and_stays_frozen(net):
    ema = EMA(net)
    assert not ema.module.training and not any(p.requires_grad for p in ema.parameters())
    net(torch.randn(4, 3, 8, 8))
    ema.update(net)
    assert torch.equal(ema.module[1].running_mean, net[1].running_mean) and net[1].running_mean.abs().sum() > 0
    assert ema.module[1].num_batches_tracked == 1
    assert net.training and all(p.requires_grad for p in net.parameters())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(ema(x), ema.module(x))


def test_ema_resumes_bit_for_bit(net):
    def walk(ema, steps):
        for step in steps:
            torch.manual_seed(step)
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.randn_like(p))
            ema.update(net)

    ema = EMA(net, 0.99)
    walk(ema, range(10))
    resumed = EMA(copy.deepcopy(net), 0.99)
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    weights = copy.deepcopy(net.state_dict())
    walk(ema, range(10, 30))
    net.load_state_dict(weights)
    walk(resumed, range(10, 30))
    for name, value in ema.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_ema_of_a_spectrally_normed_network(net):
    spectral_norm(net)
    ema = EMA(net, 0.5)
    net(torch.randn(2, 3, 8, 8))
    ema.update(net)
    assert ema(torch.randn(2, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_ema_refuses_a_wrong_decay(decay):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        EMA(nn.Linear(1, 1), decay)
