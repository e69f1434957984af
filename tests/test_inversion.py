"""Latents of images against the closed forms of a linear generator, and directions that mean something."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.inversion import concepts, invert
from img2img.pipeline import Pipeline


class Linear(nn.Module):
    """A generator of 1 x 4 x 4 images that is a matrix."""

    latent = 3

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)) / 10)

    def forward(self, z):
        return (z @ self.matrix.T).view(-1, 1, 4, 4)


@pytest.fixture
def pipe():
    found = Pipeline(Linear(), "x", task="generate", scale=1, channels=1, span=(-1.0, 1.0), verb="synthesize")
    return found.to("cpu", "fp32")


def test_the_latents_that_made_images(pipe):
    z = pipe.latents(4, seed=5).clamp(-2, 2)
    assert torch.allclose(invert(pipe, pipe.draw(z), steps=400), z, atol=1e-3)


def test_least_squares_and_ridge(pipe):
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    a, x = pipe.network.matrix.numpy(), (images * 2 - 1).view(2, 16).numpy()
    wanted = np.linalg.lstsq(a, x.T, rcond=None)[0].T
    assert np.allclose(invert(pipe, images, steps=600, rate=0.03), wanted, atol=1e-3)
    # The mean of 16 squares and prior |z|^2 / 2.
    ridge = np.linalg.solve(a.T @ a / 16 + 0.01 / 2 * np.eye(3), a.T @ x.T / 16).T
    assert np.allclose(invert(pipe, images, steps=600, rate=0.03, prior=0.01), ridge, atol=1e-3)


def test_a_good_start_is_kept(pipe):
    z = pipe.latents(3, seed=2).clamp(-2, 2)
    images = pipe.draw(z)
    assert torch.allclose(invert(pipe, images, start=z, steps=1), z, atol=0.2)
    apart = [(pipe.draw(invert(pipe, images, start=s, steps=5)) - images).abs().mean() for s in (z, None)]
    assert apart[0] < 0.5 * apart[1]


def test_clipped_numbers_are_drawn_anew(pipe):
    """What lies outside lands anywhere inside, not on the border."""
    far = torch.full((200, 3), 9.0)
    found = invert(pipe, torch.full((200, 1, 4, 4), 0.5), start=far, steps=1, limit=1.5)
    assert found.abs().max() <= 1.5 and (found.abs() < 1.4).float().mean() > 0.7
    assert not torch.equal(found, invert(pipe, torch.full((200, 1, 4, 4), 0.5), start=far, steps=1, limit=1.5, seed=1))


def test_wrong_shapes(pipe):
    with pytest.raises(ValueError, match=r"images are \(1, 3, 4, 4\), and the generator makes \(1, 1, 4, 4\)"):
        invert(pipe, torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"start: latents must be \(2, 3\), not \(2, 4\)"):
        invert(pipe, torch.zeros(2, 1, 4, 4), start=torch.zeros(2, 4))


def test_concepts_are_differences_of_means(pipe):
    z = pipe.latents(300, seed=0)
    labels = z.argmax(1)
    found = concepts(z, labels)
    for place in range(3):
        chosen = labels.numpy() == place
        assert np.allclose(found[place], z.numpy()[chosen].mean(0) - z.numpy()[~chosen].mean(0), atol=1e-6)
    attributes = torch.stack([z[:, 0] > 0, z[:, 1] > 0.5], 1)
    found = concepts(z, attributes)
    assert found.shape == (2, 3) and found.abs().argmax(1).tolist() == [0, 1]
    # Along a concept the class becomes ever more certain.
    shares = [float(((z + step * found[0])[:, 0] > 0).float().mean()) for step in (-1, 0, 1)]
    assert shares[0] < 0.2 < shares[1] < 0.8 < shares[2]


def test_concepts_that_cannot_be():
    with pytest.raises(ValueError, match="3 latents and 2 labels must be as many"):
        concepts(torch.zeros(3, 2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="class 1 has 0 of 3 latents"):
        concepts(torch.zeros(3, 2), torch.tensor([0, 2, 2]))
