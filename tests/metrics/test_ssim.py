"""SSIM of pictures against scikit-image."""

import numpy as np
import pytest
import skimage.data
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from img2img.metrics import ssim

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def pair():
    target = skimage.data.chelsea()[100:164, 100:190]
    noise = np.random.default_rng(0).normal(0, 15, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_equals_scikit_image(pair, border, channel):
    inner = [x[border : 64 - border, border : 90 - border] for x in pair]
    if channel == "y":
        expected = structural_similarity(*(rgb2ycbcr(x)[..., 0] for x in inner), data_range=255, **WANG)
    else:
        expected = structural_similarity(*inner, channel_axis=2, **WANG)
    assert ssim(*pair, border=border, channel=channel) == pytest.approx(expected, abs=1e-7)
    batch = [torch.from_numpy(x / 255.0).float().permute(2, 0, 1)[None].expand(2, -1, -1, -1) for x in pair]
    found = ssim(*batch, border=border, channel=channel)
    assert found.shape == (2,)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_equal_and_grey(pair):
    assert ssim(pair[1], pair[1]) == pytest.approx(1)
    grey = [x[..., 1] for x in pair]
    assert ssim(*grey) == pytest.approx(structural_similarity(*grey, **WANG), abs=1e-7)


def test_too_small_within_its_border(pair):
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(*pair, border=27)
