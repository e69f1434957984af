"""Frechet distance against scipy's square root of a matrix, a closed form and torchmetrics."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import _compute_fid

from img2img.metrics.frechet import FrechetDistance, frechet_distance, gaussian
from img2img.registry import part


def sets(n, m, d, seed=0):
    """Correlated features of two different sets."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(2, d, d)) / d**0.5
    return [torch.from_numpy(rng.normal(size=(count, d)) @ mix[i] + i / 4) for i, count in enumerate((n, m))]


def by_sqrtm(x, y):
    x, y = x.double().numpy(), y.double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.trace(root).real


@pytest.mark.parametrize(("n", "m"), [(300, 200), (300, 40), (40, 300)])
def test_equals_scipy(n, m):
    x, y = sets(n, m, 64)
    # A singular product has no exact square root in scipy.
    exact = 1e-9 if min(n, m) > 64 else 1e-6
    assert frechet_distance(x, y) == pytest.approx(by_sqrtm(x, y), rel=exact)
    assert frechet_distance(x.float(), y.float()) == pytest.approx(by_sqrtm(x, y), rel=1e-5)


def test_fewer_samples_than_features_in_a_closed_form():
    """Two samples are a line: |m - n|^2 + (s - t)^2 for lines of one direction, with spreads s and t."""
    direction = torch.zeros(50)
    direction[3] = 1
    x, y = (torch.stack([start + s * direction, start - s * direction]) for start, s in ((0.0, 1.0), (0.1, 3.0)))
    expected = 50 * 0.01 + (2**0.5 * 1 - 2**0.5 * 3) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    # The same, told by the sum of singular values alone: orthogonal lines share nothing.
    z = torch.stack([torch.eye(50)[7], -torch.eye(50)[7]])
    assert frechet_distance(y - 0.1, z) == pytest.approx(2 * 9 + 2, rel=1e-6)


def test_a_dead_feature():
    """A feature that is always 0 makes the covariance singular, and changes nothing."""
    x, y = sets(200, 200, 16)
    dead = [torch.cat([each, torch.zeros(200, 2)], 1) for each in (x, y)]
    assert frechet_distance(*dead) == pytest.approx(by_sqrtm(x, y), rel=1e-6)
    root = gaussian(dead[0]).root
    np.testing.assert_allclose((root.T @ root).numpy(), np.cov(dead[0].numpy(), rowvar=False), atol=1e-12)


def test_equals_torchmetrics():
    x, y = sets(500, 400, 32)
    expected = _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-8)


def test_equal_sets_and_too_small_ones():
    (x, _), spread = sets(200, 2, 32), 32
    assert frechet_distance(x, x) <= 1e-10 * spread
    assert frechet_distance(x[:20], x[:20].flip(0)) <= 1e-7 * spread
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        frechet_distance(x, x[:1])


def test_batches_make_a_set():
    x, y = sets(90, 70, 12)
    metric = part("metric", {"type": "fid", "network": "pixels"})
    assert isinstance(metric, FrechetDistance) and metric.against == "real"
    images = [each.float().view(-1, 3, 2, 2) for each in (x, y)]
    for output, real in zip(*(each.split(40) for each in images), strict=False):
        metric.update(output, real)
    metric.update(images[0][80:])
    expected = by_sqrtm(*(each.flatten(1) for each in images))
    assert metric.compute() == pytest.approx(expected, rel=1e-6)
    known = metric._real_gaussian
    metric.reset()
    metric.update(images[1], images[0])
    assert metric.compute() <= 1e-9 and metric._real_gaussian is known


def test_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = sets(300, 200, 32)
    theirs = [fidelity.fid_features_to_statistics(each) for each in (x, y)]
    expected = fidelity.fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_a_module_is_a_network():
    class Net(nn.Module):
        def forward(self, images):
            found = images.flatten(1)[:, :2]
            return found, found

    metric, images = FrechetDistance(network=Net()), torch.rand(20, 1, 2, 2)
    metric.update(images, images + 1)
    assert metric.compute() == pytest.approx(2, rel=1e-5)
