"""PSNR against scikit-image and torchmetrics, and what both metrics refuse."""

import math

import numpy as np
import pytest
import skimage.data
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from img2img.metrics import psnr, ssim


@pytest.fixture
def pair():
    target = skimage.data.coffee()[100:164, 200:290]
    noise = np.random.default_rng(0).normal(0, 15, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def tensors(*pictures):
    return [torch.from_numpy(picture / 255.0).permute(2, 0, 1)[None] for picture in pictures]


@pytest.mark.parametrize("border", [0, 1, 4])
def test_equals_scikit_image(pair, border):
    inner = [x[border : 64 - border, border : 90 - border] for x in pair]
    expected = peak_signal_noise_ratio(inner[1], inner[0])
    assert psnr(*pair, border=border) == pytest.approx(expected, abs=1e-9)
    assert psnr(*tensors(*pair), border=border).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("border", [0, 4])
def test_luma_equals_scikit_image(pair, border):
    """scikit-image's YCbCr is the one of MATLAB and BasicSR: Y in [16, 235]."""
    y = [rgb2ycbcr(x)[border : 64 - border, border : 90 - border, 0] for x in pair]
    expected = peak_signal_noise_ratio(y[1], y[0], data_range=255)
    assert psnr(*pair, border=border, channel="y") == pytest.approx(expected, abs=1e-6)
    assert psnr(*tensors(*pair), border=border, channel="y").item() == pytest.approx(expected, abs=1e-6)


def test_luma_of_known_colours():
    """White is 235, black 16 of 255: 20 log10(255 / 219) dB apart; a pure green error of 1 weighs 128.553 / 255."""
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr(white, black, channel="y") == pytest.approx(20 * math.log10(255 / 219), abs=1e-4)
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    assert psnr(green, black, channel="y") == pytest.approx(20 * math.log10(255 / 128.553), abs=1e-4)


def test_each_sample_has_its_own(pair):
    batch = torch.cat(tensors(*pair)).float()
    target = batch[1:].expand(2, -1, -1, -1)
    found = psnr(batch, target)
    assert found.shape == (2,) and found[1] == math.inf
    assert found[0].item() == pytest.approx(torchmetrics_psnr(batch[:1], target[:1], data_range=1.0).item(), abs=1e-3)


def test_grey_and_sixteen_bits(pair):
    grey = [x[..., 0] for x in pair]
    expected = peak_signal_noise_ratio(grey[1], grey[0])
    assert psnr(*grey) == pytest.approx(expected)
    assert psnr(*(x[..., None] for x in grey)) == pytest.approx(expected)
    assert psnr(*(x.astype(np.uint16) * 257 for x in grey)) == pytest.approx(expected)
    colours = [np.repeat(x[..., None], 3, 2) for x in grey]
    assert psnr(*grey, channel="y") == pytest.approx(psnr(*colours, channel="y"))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_errors(metric, pair):
    output, target = pair
    for bad, words in (
        ((output, target[:-1]), "same shape"),
        ((output / 255.0, target), "uint8 or uint16"),
        ((np.dstack([output, output[..., 0]]), np.dstack([target, target[..., 0]])), "alpha"),
        ((torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)), r"\(N, C, H, W\)"),
        ((torch.zeros(1, 3, 4, 4, dtype=torch.uint8),) * 2, "float"),
    ):
        with pytest.raises(ValueError, match=words):
            metric(*bad)
    with pytest.raises(ValueError, match="leaves nothing of an image of 90x64"):
        metric(output, target, border=32)
    with pytest.raises(ValueError, match="'rgb' or 'y'"):
        metric(output, target, channel="luma")
