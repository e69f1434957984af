"""The discriminator of textures: what it looks at, and that what it looks through stays as it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.networks import markovian as module
from img2img.networks.markovian import MarkovianDiscriminator


class Means(nn.Module):
    """Stands for a pretrained network: colours of 4 x 4 squares."""

    def forward(self, x):
        return [functional.avg_pool2d(x, 4)]


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(module, "features", lambda name, layers: Means().requires_grad_(False))
    torch.manual_seed(0)
    return MarkovianDiscriminator(width=8)


def test_logits_are_of_patches(network):
    """By PyTorch's own layers on the maps; a patch is judged alike wherever it lies."""
    x = torch.rand(2, 3, 40, 32) * 2 - 1
    maps = functional.avg_pool2d(x / 2 + 0.5, 4)
    first, _, last = network.judge
    wanted = functional.conv2d(
        functional.leaky_relu(functional.conv2d(maps, first.weight, first.bias, padding=1), 0.2), last.weight, last.bias
    )
    assert wanted.shape == (2, 1, 10, 8) and torch.allclose(network(x), wanted, atol=1e-6)
    moved = network(x.roll((4, 8), (2, 3)))
    assert torch.allclose(moved[..., 2:-1, 3:-1], network(x)[..., 1:-2, 1:-3], atol=1e-6)
    assert torch.allclose(network(x[:, :1]), network(x[:, :1].expand(-1, 3, -1, -1)), atol=1e-6)


def test_the_pretrained_network_is_no_part_of_it(network):
    assert {name.split(".")[0] for name in network.state_dict()} == {"judge"}
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.abs().sum() > 0
