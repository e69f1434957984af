"""SSIM against scikit-image and torchmetrics."""

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from img2img.fidelity.structural import similarity, ssim


@pytest.fixture
def pair():
    photo = skimage.data.astronaut()[100:180, 150:260] / 255.0
    noise = np.random.default_rng(0).normal(0, 0.1, photo.shape)
    target = torch.from_numpy(photo).permute(2, 0, 1)
    output = torch.from_numpy(np.clip(photo + noise, 0, 1)).permute(2, 0, 1)
    return torch.stack([output, target.flip(1)]), torch.stack([target, target])


@pytest.mark.parametrize(("window", "sigma"), [(11, 1.5), (9, 1.0), (15, 2.0)])  # scikit-image cuts at 3.5 sigma
def test_equals_scikit_image(pair, window, sigma):
    found = similarity(*pair, window=window, sigma=sigma).numpy()
    for value, output, target in zip(found, *pair, strict=True):
        expected = structural_similarity(
            output.numpy(), target.numpy(), channel_axis=0, data_range=1, gaussian_weights=True, sigma=sigma,
            use_sample_covariance=False,
        )  # fmt: skip
        assert value == pytest.approx(expected, abs=1e-10)


def test_equals_torchmetrics(pair):
    """Where the window fits: torchmetrics averages over a reflected margin too."""
    _, full = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none", return_full_image=True)
    torch.testing.assert_close(similarity(*pair), full[..., 5:-5, 5:-5].mean((1, 2, 3)), rtol=0, atol=1e-8)


def test_single_precision_is_enough(pair):
    torch.testing.assert_close(similarity(*(x.float() for x in pair)).double(), similarity(*pair), rtol=0, atol=5e-5)


def test_loss(pair):
    torch.testing.assert_close(ssim(*pair), 1 - similarity(*pair))
    torch.testing.assert_close(ssim(pair[1], pair[1]), torch.zeros(2, dtype=torch.float64))


def test_loss_of_images_in_another_range(pair):
    moved = [2 * x - 1 for x in pair]
    torch.testing.assert_close(ssim(*moved, range=(-1.0, 1.0)), ssim(*pair))


def test_constant_images_have_a_closed_form():
    """No variance: only the luminance factor (2 a b + C1) / (a^2 + b^2 + C1) is left."""
    a, b = 0.2, 0.6
    found = similarity(torch.full((1, 1, 12, 12), a).double(), torch.full((1, 1, 12, 12), b).double()).item()
    assert found == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))


def test_gradient():
    torch.manual_seed(0)
    x, y = (torch.rand(1, 2, 6, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, window=5, sigma=1.0), (x, y))


def test_descending_it_restores_the_target(pair):
    target = pair[1][:1, :, :24, :24]
    x = torch.full_like(target, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([x], 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = ssim(x, target).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_autocast_changes_nothing(pair):
    pair = [x.float() for x in pair]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ssim(*pair)
    assert torch.equal(mixed, ssim(*pair))


def test_errors():
    small = torch.zeros(1, 3, 10, 20)
    with pytest.raises(ValueError, match="20x10 pixels is smaller than the window of 11"):
        ssim(small, small)
    with pytest.raises(ValueError, match="must be odd"):
        ssim(small, small, window=4)
    with pytest.raises(ValueError, match="same shape"):
        ssim(small, small[:, :1])
