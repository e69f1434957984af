"""Modes counted against what was put in, and KL against scipy."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from img2img.metrics.modes import Confident, ModeDivergence, Modes, class_modes, grid, mixture_modes, ring


def test_class_modes():
    labels = np.random.default_rng(0).choice(10, 200, p=np.arange(10) / 45)
    covered, divergence = class_modes(torch.from_numpy(labels), 10)
    shares = np.bincount(labels, minlength=10) / 200
    assert covered == (shares > 0).sum() == 9
    assert divergence == pytest.approx(scipy.stats.entropy(shares, np.full(10, 0.1)))
    assert class_modes(torch.arange(1000), 1000) == (1000, pytest.approx(0, abs=1e-12))
    assert class_modes(torch.full((7,), 3), 1000) == (1, pytest.approx(np.log(1000)))
    for bad in ([], [10], [-1]):
        with pytest.raises(ValueError, match="labels from 0 to 9"):
            class_modes(torch.tensor(bad, dtype=torch.long), 10)


def test_divergence_of_even_labels():
    """Its mean over draws is (classes - 1) / 2N: 2N KL is chi-squared, as a likelihood ratio."""
    rng = np.random.default_rng(0)
    found = [class_modes(torch.from_numpy(rng.integers(10, size=500)), 10)[1] for _ in range(300)]
    assert np.mean(found) == pytest.approx(9 / 1000, rel=0.1)


def test_mixtures():
    assert ring().norm(dim=1).tolist() == pytest.approx([2] * 8) and len(ring(5, 1.0)) == 5
    centres = grid()
    assert sorted(set(centres[:, 0].tolist())) == [-4, -2, 0, 2, 4] and len(centres.unique(dim=0)) == 25
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(20, (5000,), generator=generator)
    points = centres[chosen] + 0.05 * torch.randn(5000, 2, generator=generator, dtype=torch.float64)
    covered, share = mixture_modes(points, centres, 0.05)
    # In two dimensions, the share within 3 sigma is 1 - exp(-9/2).
    assert covered == 20 and share == pytest.approx(1 - np.exp(-4.5), abs=0.005)
    assert mixture_modes(points, centres, 0.05, reach=1.0)[1] == pytest.approx(1 - np.exp(-0.5), abs=0.02)
    between = centres[:1] + 1.0
    assert mixture_modes(between, centres, 0.05) == (0, 0.0)
    with pytest.raises(ValueError, match=r"must be \(N, 2\)"):
        mixture_modes(torch.zeros(3, 3), centres, 0.05)


class Sure(nn.Module):
    """Takes the place of the brightest of ten pixels for the class, with its brightness for certainty."""

    def forward(self, images):
        values = images.flatten(1)
        return values, 10 * values


def test_metrics():
    images = torch.eye(10)[[0, 0, 1, 2]].view(4, 1, 2, 5)
    doubtful = images[:1] * 0.1
    net = Sure()
    modes, divergence, confident = Modes(network=net), ModeDivergence(network=net), Confident(network=net)
    for metric in (modes, divergence, confident):
        metric.update(images[:2], None)
        metric.update(images[2:], images)
        metric.update(doubtful)
    assert modes.compute() == 3 and modes.against == "real"
    assert divergence.compute() == pytest.approx(scipy.stats.entropy([0.6, 0.2, 0.2] + [0] * 7, [0.1] * 10))
    assert confident.compute() == pytest.approx(0.8)
    modes.reset()
    modes.update(images[:1])
    assert modes.compute() == 1
