"""Self-similarity against numpy, and what it does and does not see."""

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from img2img.data.fetch import cache
from img2img.metrics.structure import Structure, self_similarity, structure_distance


class Patches(nn.Module):
    """Random features of 8 x 8 patches, at two depths."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, 4, 2, stride=2)

    def forward(self, images):
        first = self.first(images)
        return [first, self.second(first)]


def photo(name):
    return torch.from_numpy(getattr(skimage.data, name)()[:256, :256].copy()).permute(2, 0, 1)[None] / 255


def test_self_similarity_equals_numpy():
    maps = torch.randn(2, 5, 3, 4)
    for found, each in zip(self_similarity(maps), maps.flatten(2).numpy(), strict=True):
        unit = each / np.linalg.norm(each, axis=0)
        np.testing.assert_allclose(found.numpy(), unit.T @ unit, atol=1e-6)


def test_formula():
    net, (a, b) = Patches(), torch.rand(2, 3, 3, 32, 32)
    found = structure_distance(a, b, network=net, size=32)
    expected = [
        np.mean((np.subtract(*(self_similarity(net.first(x[i : i + 1])).detach().numpy() for x in (a, b)))) ** 2)
        for i in range(3)
    ]
    assert found.shape == (3,) and not found.requires_grad
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="3 outputs and 2 inputs"):
        structure_distance(a, b[:2], network=net, size=32)


def test_metric():
    net, (a, b) = Patches(), torch.rand(2, 3, 3, 32, 32)
    metric = Structure(network=net, size=32)
    assert metric.against == "input"
    metric.update(a[:2], b[:2])
    metric.update(a[2:], b[2:])
    assert metric.compute() == pytest.approx(structure_distance(a, b, network=net, size=32).mean().item())
    metric.reset()
    with pytest.raises(ValueError, match="no output"):
        metric.compute()
    metric.update(a, a)
    assert metric.compute() == 0


def test_layout_counts_and_colour_does_not():
    if not (cache() / "networks" / "efficientnet_lite0.safetensors").is_file():
        pytest.skip("efficientnet_lite0 is not in the cache")
    cat, cup = photo("chelsea"), photo("coffee")
    recoloured = cat[:, [2, 0, 1]]
    darker = cat * 0.6
    small = nn.functional.interpolate(cat, (128, 128), mode="area")
    found = [structure_distance(x, cat).item() for x in (cat, darker, recoloured, cat.flip(3), cup)]
    assert found[0] < 1e-10 and found == sorted(found)
    assert found[1] < found[2] < 0.7 * min(found[3:])
    assert structure_distance(small, cat).item() < found[3] / 2
    assert structure_distance(cat.mean(1, keepdim=True), cat).item() < 0.7 * found[3]
