"""Neural-net distance against the total variation of Gaussians, which bounds and nearly equals it."""

import pytest
import scipy.stats
import torch

from img2img.metrics.neural_distance import NeuralDistance, neural_distance


def sets(shift, count=3000, dimensions=2):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, count, dimensions, generator=generator)
    return x, y + shift / dimensions**0.5


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 8.0])
def test_total_variation_of_shifted_gaussians(shift):
    """2 Phi(shift / 2) - 1; the standard error of the estimate is under 0.02."""
    expected = 2 * scipy.stats.norm.cdf(shift / 2) - 1
    assert neural_distance(*sets(shift)) == pytest.approx(expected, abs=0.05)


def test_what_was_learnt_by_heart_does_not_count():
    """200 dimensions and 40 vectors: any network tells the training halves apart, and nothing about the others."""
    x, y = sets(0.0, 40, 200)
    assert abs(neural_distance(x, y)) < 0.4
    both = torch.cat([x, x])  # every vector trains and judges
    other = torch.cat([y, y])
    order = torch.arange(80).view(2, 40).T.flatten()
    assert neural_distance(both[order], other[order]) > 0.9


def test_repeats_and_leaves_the_random_state_alone():
    x, y = sets(1.0, 100)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.no_grad():
        found = neural_distance(x, y, steps=20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert neural_distance(x, y, steps=20) == found != neural_distance(x, y, steps=20, seed=1)
    metric = NeuralDistance(network="pixels", steps=20)
    metric.update(y.view(100, 2, 1, 1), x.view(100, 2, 1, 1))
    assert metric.compute() == found
    with pytest.raises(ValueError, match="at least 4 images, not 3"):
        neural_distance(x[:3], y)
