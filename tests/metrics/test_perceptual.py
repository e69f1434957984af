"""The perceptual metric, with a network built here."""

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from img2img.metrics import perceptual_distance


class Edges(nn.Module):
    """Two maps of random convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, x):
        first = self.first(x).relu()
        return [first, self.second(first).relu()]


@pytest.fixture(scope="module")
def network():
    return Edges()


@pytest.fixture
def pair():
    target = skimage.data.chelsea()[100:132, 100:140]
    noise = np.random.default_rng(0).normal(0, 15, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def test_formula(network, pair):
    """LPIPS' with weights of one, in numpy."""
    images = [torch.from_numpy(x / 255.0).float().permute(2, 0, 1)[None] for x in pair]
    maps, layers = [[each.detach().double().numpy() for each in network(x)] for x in images], []
    for a, b in zip(*maps, strict=True):
        unit = [m / (np.sqrt((m**2).sum(1, keepdims=True)) + 1e-10) for m in (a, b)]
        layers.append(((unit[0] - unit[1]) ** 2).sum(1).mean())
    found = perceptual_distance(*pair, network=network)
    assert isinstance(found, float) and found == pytest.approx(np.mean(layers), rel=1e-4)


def test_tensors_border_and_zero(network, pair):
    batch = [torch.from_numpy(x / 255.0).float().permute(2, 0, 1)[None].expand(2, -1, -1, -1) for x in pair]
    found = perceptual_distance(*batch, network=network, border=4)
    assert found.shape == (2,) and not found.requires_grad
    inner = [np.ascontiguousarray(x[4:-4, 4:-4]) for x in pair]
    np.testing.assert_allclose(found.numpy(), perceptual_distance(*inner, network=network), rtol=1e-5)
    assert perceptual_distance(pair[1], pair[1], network=network) == 0


def test_autocast_changes_nothing(network, pair):
    plain = perceptual_distance(*pair, network=network)
    with torch.autocast("cpu", torch.bfloat16):
        assert perceptual_distance(*pair, network=network) == plain


def test_grey_counts_as_rgb(network, pair):
    grey = [x[..., 0] for x in pair]
    colour = [np.repeat(x[..., None], 3, 2) for x in grey]
    expected = perceptual_distance(*colour, network=network)
    assert perceptual_distance(*grey, network=network) == pytest.approx(expected, rel=1e-5)


def test_unknown_network(pair):
    with pytest.raises(ValueError, match="did you mean 'efficientnet_lite0'"):
        perceptual_distance(*pair, network="efficientnet_lite")
