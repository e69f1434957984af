"""How far reduced enlargements are from their inputs: against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.metrics.consistency import Consistency


def test_against_pillow():
    generator = torch.Generator().manual_seed(0)
    output, given = torch.rand(3, 1, 24, 32, generator=generator), torch.rand(3, 1, 6, 8, generator=generator)
    wanted = [
        np.abs(
            np.asarray(Image.fromarray(large[0].numpy()).resize((8, 6), Image.Resampling.BICUBIC)) - small[0].numpy()
        )
        for large, small in zip(output, given, strict=True)
    ]
    found = Consistency()
    found.update(output[:2], given[:2])
    found.update(output[2:], given[2:])
    assert found.compute() == pytest.approx(np.mean(wanted), abs=1e-6)
    for size in ((24, 31), (5, 8)):
        with pytest.raises(ValueError, match="is no enlargement of"):
            found.update(torch.zeros(1, 1, *size), given[:1])
