"""Fully connected generators and discriminators: shapes, options, and what labels and batches do."""

import pytest
import torch

from img2img.networks.mlp import Maxout, MLPDiscriminator, MLPGenerator


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classes": 3},
        {"mixture": 5},
        {"bounded": False},
        {"classes": 3, "mixture": 2},
        {"norm": "batch", "activation": "softplus"},
    ],
)
def test_generator(options):
    torch.manual_seed(0)
    net = MLPGenerator(latent=6, width=4, size=5, channels=3, **options)
    z, labels = torch.randn(7, net.latent) * 50, torch.arange(7) % 3
    found = net(z, labels)
    assert found.shape == (7, 3, 5, 5) and (found.abs().max() <= 1) == options.get("bounded", True)
    assert net.latent == (7 if "mixture" in options else 6)
    assert torch.equal(net(z, labels.flip(0)), found) == ("classes" not in options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pieces": 5, "dropout": 0.5},
        {"norm": "spectral"},
        {"norm": "weight"},
        {"minibatch": 4},
        {"classes": 3},
        {"outputs": 11},
    ],
)
def test_discriminator(options):
    torch.manual_seed(0)
    net = MLPDiscriminator(width=4, size=5, channels=3, **options).eval()
    x = torch.randn(6, 3, 5, 5)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert net(x, labels).shape == (6, options.get("outputs", 1)) and net.features(x, labels).shape == (6, 4)
    alone = torch.cat([net(x[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert torch.allclose(net(x, labels), alone, atol=1e-5) == ("minibatch" not in options)


@pytest.mark.parametrize("condition", ["projection", "concatenate"])
def test_labels_count(condition):
    torch.manual_seed(0)
    net, x = MLPDiscriminator(width=4, size=2, classes=3, condition=condition), torch.randn(4, 1, 2, 2)
    assert not torch.allclose(net(x, torch.tensor([0, 0, 0, 0])), net(x, torch.tensor([1, 1, 1, 1])))
    with pytest.raises(ValueError, match="3 classes"):
        net(x)


def test_points_of_a_plane():
    net = MLPDiscriminator(width=4, size=1, channels=2)
    points = MLPGenerator(latent=2, width=4, size=1, channels=2, bounded=False)(torch.randn(5, 2))
    assert points.shape == (5, 2, 1, 1)
    assert torch.equal(net(points), net(points.flatten(1)))


def test_maxout():
    torch.manual_seed(0)
    layer, x = Maxout(3, 2, 4), torch.randn(5, 3)
    every = (x @ layer.linear.weight.T + layer.linear.bias).reshape(5, 2, 4)
    torch.testing.assert_close(layer(x), every.max(2).values)


def test_noise_only_while_training():
    torch.manual_seed(0)
    net, x = MLPDiscriminator(width=512, depth=1, size=2, noise=0.5), torch.randn(64, 1, 2, 2)
    noisy = net.features(x)
    quiet = net.eval().features(x)
    assert torch.equal(quiet, net.features(x))
    assert (noisy - quiet).std().item() == pytest.approx(0.5, rel=0.02)


def test_no_hidden_layer():
    with pytest.raises(ValueError, match="depth = 0"):
        MLPDiscriminator(depth=0)
