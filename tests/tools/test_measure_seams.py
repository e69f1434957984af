"""The seam's closed form: 1 on noise, and as much more as the borders are steeper."""

import measure_seams as seams
import numpy as np
import pytest


def test_noise_has_no_seam():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    assert seams.seam(noise, 64) == pytest.approx(1, abs=0.02)


def test_a_step_at_each_border_counts():
    slope = np.arange(128)[:, None] + np.arange(128)[None, :]  # every step is 1
    stairs = slope + 4 * (np.arange(128)[:, None] // 32 + np.arange(128)[None, :] // 32)  # those across borders are 5
    assert seams.seam(slope[..., None].astype(np.uint16), 32) == pytest.approx(1)
    assert seams.seam(stairs[..., None].astype(np.uint16), 32) == pytest.approx(5)
