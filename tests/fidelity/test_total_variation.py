"""Total variation against closed forms."""

import numpy as np
import pytest
import torch

from img2img.fidelity.total_variation import total_variation


def test_ramps():
    """On x -> (3 i + 4 j) / 100 the gradient's length is 5 / 100 away from the last row and column."""
    i, j = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    ramp = ((3 * i + 4 * j) / 100).double()[None, None]
    inner, last_row, last_column = 19 * 29 * 0.05, 29 * 0.04, 19 * 0.03
    expected = (inner + last_row + last_column) / 600
    assert total_variation(ramp, ramp, epsilon=1e-9).item() == pytest.approx(expected, rel=1e-6)


def test_against_numpy():
    torch.manual_seed(0)
    x = torch.rand(3, 2, 5, 6, dtype=torch.float64)
    across = np.diff(x.numpy(), axis=3, append=x.numpy()[..., :, -1:])
    down = np.diff(x.numpy(), axis=2, append=x.numpy()[..., -1:, :])
    expected = (np.sqrt(across**2 + down**2 + 1e-6) - 1e-3).mean((1, 2, 3))
    np.testing.assert_allclose(total_variation(x, x).numpy(), expected, rtol=1e-12)


def test_target_is_ignored():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(total_variation(x, x), total_variation(x, torch.zeros(2, 3, 8, 8)))


def test_flat_images():
    x = torch.full((2, 3, 8, 8), 0.7, requires_grad=True)
    found = total_variation(x, x)
    found.sum().backward()
    assert found.abs().max() < 1e-9 and x.grad.isfinite().all()
    assert total_variation(torch.rand(1, 3, 1, 1), x).item() == pytest.approx(0, abs=1e-9)


def test_gradient():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: total_variation(x, x), (x,))
