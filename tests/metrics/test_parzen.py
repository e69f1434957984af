"""Parzen windows against scikit-learn's kernel density and a closed form."""

import numpy as np
import pytest
import torch

from img2img.metrics import distribution
from img2img.metrics.parzen import Parzen, best_bandwidth, log_likelihood

KernelDensity = pytest.importorskip("sklearn.neighbors").KernelDensity


@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_equals_scikit_learn(sigma, monkeypatch):
    rng = np.random.default_rng(0)
    samples, points = rng.normal(size=(70, 4)), rng.normal(size=(30, 4)) * 2
    expected = KernelDensity(bandwidth=sigma).fit(samples).score_samples(points)
    found = log_likelihood(torch.from_numpy(points), torch.from_numpy(samples), sigma)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    monkeypatch.setattr(distribution.in_blocks, "__defaults__", (500,))  # several blocks
    again = log_likelihood(torch.from_numpy(points), torch.from_numpy(samples), sigma)
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-9)


def test_bandwidth():
    """One sample at 0 is likeliest for points of variance v when sigma^2 = v."""
    points = torch.tensor([[3.0], [-3.0]])
    tried = (1.0, 2.0, 3.0, 4.0)
    assert best_bandwidth(points, torch.zeros(1, 1), tried) == 3
    with pytest.raises(ValueError, match="sigma over 0"):
        log_likelihood(points, points, 0.0)
    with pytest.raises(ValueError, match="sigma = -1"):
        Parzen(sigma=-1.0)


def test_metric():
    rng = torch.Generator().manual_seed(0)
    output, real = (torch.rand(count, 1, 2, 3, generator=rng) for count in (40, 30))
    fixed, chosen = Parzen(sigma=0.2), Parzen()
    for metric in (fixed, chosen):
        metric.update(output, real)
    flat = [each.flatten(1).double().numpy() for each in (output, real)]
    expected = KernelDensity(bandwidth=0.2).fit(flat[0]).score(flat[1]) / 30
    assert fixed.compute() == pytest.approx(expected)
    sigma = best_bandwidth(real.flatten(1)[::2], output.flatten(1))
    assert 0.01 < sigma < 1
    assert chosen.compute() == pytest.approx(KernelDensity(bandwidth=sigma).fit(flat[0]).score(flat[1][1::2]) / 15)
    few = Parzen()
    few.update(output, real[:1])
    with pytest.raises(ValueError, match="two real images"):
        few.compute()


def test_it_misleads():
    """A hundred blurred centres of clusters beat four times as many real images (Theis et al. 2016, section 3.2)."""
    images = pytest.importorskip("sklearn.datasets").load_digits().data / 16
    images = torch.from_numpy(images[np.random.default_rng(0).permutation(len(images))])
    learnt, choosing, judging = images[:898], images[898:1347], images[1347:]

    def score(samples):
        return log_likelihood(judging, samples, best_bandwidth(choosing, samples)).mean().item()

    means = pytest.importorskip("sklearn.cluster").KMeans(100, n_init=1, random_state=0).fit(learnt).cluster_centers_
    centres = torch.from_numpy(means)
    assert torch.cdist(centres, learnt).min(1).values.mean() > 0.5, "no centre is an image of the set"
    assert score(centres) > score(learnt[:400]) + 0.5
    assert score(centres) > score(learnt[:100]) + 10
