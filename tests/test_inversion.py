"""Latents of images, and edits, against the closed forms of a linear generator; and directions that mean something."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.inversion import concepts, edit, invert
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


def test_an_edit_is_a_ridge(pipe):
    """Weighted least squares around the start; what is painted off the mask is not read."""
    z = pipe.latents(2, seed=3).clamp(-2, 2)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2], mask[1, :, :, 1] = 1, 0.5
    painted = torch.full((2, 1, 4, 4), 0.6)
    found = edit(pipe, z, painted, mask, steps=800, rate=0.03, keep=0.2, stay=0.01)
    a = pipe.network.matrix.numpy().astype(np.float64)
    for start, soft, made in zip(z.numpy(), mask.view(2, 16).numpy(), found, strict=True):
        was = a @ start
        wanted = was + soft * (0.2 - was)
        weights = soft / soft.sum() + 0.2 * (1 - soft) / (1 - soft).sum()
        left = a.T @ (weights[:, None] * a) + 0.01 * np.eye(3)
        assert np.allclose(made, np.linalg.solve(left, a.T @ (weights * wanted) + 0.01 * start), atol=1e-3)
    other = torch.where(mask > 0, painted, torch.rand(2, 1, 4, 4))
    assert torch.equal(found, edit(pipe, z, other, mask, steps=800, rate=0.03, keep=0.2, stay=0.01))


def test_edits_that_change_nothing(pipe):
    z = pipe.latents(3, seed=4)
    painted = torch.zeros(3, 1, 4, 4)
    assert torch.allclose(edit(pipe, z, painted, torch.zeros(1, 1, 4, 4), steps=200), z, atol=0.01)
    assert torch.allclose(edit(pipe, z, painted, torch.ones(1, 1, 4, 4), steps=300, stay=1e3), z, atol=0.01)


def test_edits_of_wrong_shapes(pipe):
    z, images, mask = torch.zeros(2, 3), torch.zeros(2, 1, 4, 4), torch.ones(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"latents must be \(2, 3\), not \(1, 3\)"):
        edit(pipe, z[:1], images, mask)
    with pytest.raises(ValueError, match=r"images are \(2, 3, 4, 4\), and the generator makes \(2, 1, 4, 4\)"):
        edit(pipe, z, images.expand(2, 3, 4, 4), mask)
    with pytest.raises(ValueError, match=r"a mask must be \(2, 1, 4, 4\), not \(4, 4\)"):
        edit(pipe, z, images, mask[0, 0])


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
