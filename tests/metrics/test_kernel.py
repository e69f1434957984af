"""Kernel distance against the double sum, torchmetrics and torch-fidelity."""

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from img2img.metrics import distribution
from img2img.metrics.kernel import KernelDistance, kernel_distance


def sets(n, m, d):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator) * 1.2 + 0.3


def test_equals_the_double_sum():
    x, y = (each.double().numpy() for each in sets(7, 5, 6))

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 6 + 1) ** 3

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(each, 2)]) for each in (x, y)]
    between = np.mean([kernel(a, b) for a, b in itertools.product(x, y)])
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(sum(within) - 2 * between)


def test_equals_torchmetrics(monkeypatch):
    x, y = sets(60, 60, 20)
    expected = poly_mmd(x.double(), y.double(), degree=3, gamma=None, coef=1.0).item()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(distribution.in_blocks, "__defaults__", (500,))  # several blocks
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    metric = KernelDistance(network="pixels")
    for output, real in zip(x.split(25), y.split(25), strict=True):
        metric.update(output, real)
    assert metric.compute() == pytest.approx(expected, rel=1e-9)


def test_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = (each.double() for each in sets(60, 60, 20))
    found = fidelity.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=60, verbose=False)
    assert kernel_distance(x, y) == pytest.approx(found["kernel_inception_distance_mean"])


def test_unbiased():
    """Small sets of one distribution have a mean of 0, within three standard errors."""
    generator = torch.Generator().manual_seed(1)
    found = np.array([kernel_distance(*torch.randn(2, 5, 3, generator=generator)) for _ in range(400)])
    assert abs(found.mean()) < 3 * found.std() / 20 and found.min() < 0
    with pytest.raises(ValueError, match="at least 2 images"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(4, 3))
