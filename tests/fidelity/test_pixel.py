"""Pixel-wise distances against numpy."""

import numpy as np
import pytest
import torch

from img2img.fidelity.pixel import charbonnier, l1, mse

FORMULAS = {
    l1: lambda d: np.abs(d),
    mse: lambda d: d**2,
    charbonnier: lambda d: np.sqrt(d**2 + 1e-6),
}
terms = pytest.mark.parametrize("term", FORMULAS)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.rand(4, 3, 6, 5, dtype=torch.float64), torch.rand(4, 3, 6, 5, dtype=torch.float64)


@terms
def test_closed_form(term, pair):
    difference = (pair[0] - pair[1]).numpy()
    expected = [FORMULAS[term](sample).mean() for sample in difference]
    np.testing.assert_allclose(term(*pair).numpy(), expected, rtol=1e-12)


@terms
def test_gradient(term, pair):
    assert torch.autograd.gradcheck(term, [each[:2, :, :2, :2].clone().requires_grad_() for each in pair])


@terms
def test_equal_images(term, pair):
    nothing = 1e-3 if term is charbonnier else 0.0
    torch.testing.assert_close(term(pair[0], pair[0]), torch.full((4,), nothing, dtype=torch.float64))
    x = pair[0].clone().requires_grad_()
    term(x, pair[0]).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_charbonnier_epsilon():
    zero = torch.zeros(1, 1, 2, 2)
    assert charbonnier(zero + 3, zero, epsilon=4.0).item() == pytest.approx(5)


@terms
def test_shapes_must_agree(term):
    with pytest.raises(ValueError, match="same shape"):
        term(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


@terms
def test_half_precision_is_widened(term):
    x = torch.rand(2, 3, 64, 64)
    found = term(x.bfloat16(), x.bfloat16() + 1)
    assert found.dtype == torch.float32 and found.shape == (2,)
