"""Shaped latents against scipy's distributions."""

import numpy as np
import pytest
import torch
from scipy import stats

from img2img.adversarial.latent import Mixture, truncate


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 2.0, 6.0])
def test_truncate_maps_quantiles(threshold):
    z = torch.linspace(-7, 7, 401, dtype=torch.float64)
    found = truncate(z, threshold).numpy()
    expected = stats.truncnorm.ppf(stats.norm.cdf(z.numpy()), -threshold, threshold)
    middle = np.abs(z.numpy()) < 5  # further out scipy's own quantiles have no digits
    np.testing.assert_allclose(found[middle], expected[middle], atol=1e-8)
    assert np.abs(found).max() <= threshold and (np.diff(found) >= 0).all()


def test_truncate_has_the_truncated_normal_distribution():
    torch.manual_seed(0)
    found = truncate(torch.randn(20000), 0.8)
    assert found.dtype == torch.float32
    assert stats.kstest(found.numpy(), stats.truncnorm(-0.8, 0.8).cdf).pvalue > 0.01


def test_truncate_by_nothing():
    z = torch.randn(100)
    torch.testing.assert_close(truncate(z, float("inf")), z)
    with pytest.raises(ValueError, match="threshold = 0"):
        truncate(z, 0)


def test_mixture_is_the_mixture():
    torch.manual_seed(1)
    prior = Mixture(1, 3, sigma=0.5)
    with torch.no_grad():
        prior.mean.copy_(torch.tensor([[-2.0], [0.0], [3.0]]))
        found = prior(torch.randn(20000, prior.latent))
    cdf = lambda x: sum(stats.norm.cdf(x, m, 0.5) for m in (-2, 0, 3)) / 3  # noqa: E731
    assert found.shape == (20000, 1) and stats.kstest(found[:, 0].numpy(), cdf).pvalue > 0.01


def test_mixture_learns_and_repeats():
    prior, z = Mixture(2, 4), torch.randn(64, 3)
    assert torch.equal(prior(z), prior(z))
    prior(z).square().sum().backward()
    assert prior.mean.grad.abs().min() > 0 and prior.sigma.grad.abs().min() > 0
    assert set(prior.state_dict()) == {"mean", "sigma"}
    assert prior(torch.tensor([[0.0, 0.0, 40.0]])).isfinite().all(), "the last component's far end"
    with pytest.raises(ValueError, match="components = 0"):
        Mixture(2, 0)
