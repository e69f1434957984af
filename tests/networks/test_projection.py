"""Enlargements that reduce to their inputs: against Pillow's reduction and the projection of linear algebra."""

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.imaging.tiles import margin_of
from img2img.networks.fast import Fast
from img2img.networks.projection import Projection


def pillows(values, height, width):
    """Return (N, C, H, W) floats reduced by Pillow."""
    planes = values.flatten(0, 1).numpy()
    found = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in found])).view(*values.shape[:2], height, width)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(17, 12), (5, 4), (1, 1)])
def test_reduction_is_pillows(scale, size):
    y = torch.rand(2, 3, *(side * scale for side in size), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Projection(scale).reduce(y), pillows(y, *size), atol=2e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_projection_is_that_of_linear_algebra(scale):
    """The nearest solution of least squares: along rows and columns the reduction is a matrix, inverted by NumPy."""
    generator = torch.Generator().manual_seed(scale)
    y, x = torch.rand(1, 1, 12 * scale, 10 * scale, generator=generator), torch.rand(1, 1, 12, 10, generator=generator)
    down, across = (
        pillows(torch.eye(side * scale)[None, None], side, side * scale)[0, 0].double().numpy() for side in (12, 10)
    )
    plain = y[0, 0].double().numpy()
    missing = x[0, 0].double().numpy() - down @ plain @ across.T
    wanted = plain + np.linalg.pinv(down) @ missing @ np.linalg.pinv(across).T
    assert np.abs(Projection(scale)(y, x)[0, 0].numpy() - wanted).max() < 3e-3 < np.abs(plain - wanted).max() / 100


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(20, 31), (6, 5)])
def test_output_reduces_to_the_input(scale, size):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *size, generator=generator)
    y = torch.rand(2, 3, *(side * scale for side in size), generator=generator)
    found = Projection(scale)(y, x)
    assert (pillows(found, *size) - x).abs().max() < 2e-3  # y is noise: an enlargement is nearer by far
    near = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic")
    assert (pillows(Projection(scale)(near, x), *size) - x).abs().max() < 5e-4
    assert torch.allclose(Projection(scale)(found, x), found, atol=2e-3), "what fits already stays"


def test_a_consistent_upscaler():
    torch.manual_seed(0)
    network = Fast(4, 1, 4, consistent=True).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    x = torch.rand(1, 3, 33, 29)
    with torch.no_grad():
        found = network(x)
        assert (pillows(found, 33, 29) - x).abs().max() < 1e-3
        assert torch.allclose(network.deploy()(x), found, atol=1e-5)
    assert network.precise and not Fast(4, 1, 4).precise
    assert 2 < margin_of(network, 3, 4) <= network.margin
