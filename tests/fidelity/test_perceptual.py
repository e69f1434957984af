"""Perceptual distance with networks built here, so that no weights are fetched."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from img2img.fidelity.perceptual import Perceptual


class Two(nn.Module):
    """Two maps of different depth."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        first = self.first(x).tanh()
        return [first, self.drop(self.second(first))]


class Same(nn.Module):
    """The image itself as its only map."""

    def forward(self, x):
        return [x]


@pytest.fixture
def pair():
    torch.manual_seed(1)
    return torch.rand(2, 3, 9, 8), torch.rand(2, 3, 9, 8)


def test_identity_network_gives_pixel_distances(pair):
    difference = (pair[0] - pair[1]).double().numpy()
    for name, formula in (("mse", np.square), ("l1", np.abs)):
        expected = formula(difference).mean((1, 2, 3))
        np.testing.assert_allclose(Perceptual(Same(), distance=name)(*pair).numpy(), expected, rtol=1e-5)


def test_layers_are_averaged(pair):
    net = Two().eval()
    expected = np.mean(
        [(a - b).square().mean((1, 2, 3)).detach().numpy() for a, b in zip(*map(net, pair), strict=True)], axis=0
    )
    np.testing.assert_allclose(Perceptual(copy.deepcopy(net))(*pair).detach().numpy(), expected, rtol=1e-5)


def test_normalize_is_the_formula_of_lpips(pair):
    net, expected = Two().eval(), 0
    for a, b in zip(*map(net, pair), strict=True):
        a, b = a.detach().double().numpy(), b.detach().double().numpy()
        unit = [x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (a, b)]
        expected = expected + ((unit[0] - unit[1]) ** 2).sum(1).mean((1, 2)) / 2
    np.testing.assert_allclose(Perceptual(net, normalize=True)(*pair).numpy(), expected, rtol=1e-5)


def test_range(pair):
    plain = Perceptual(Two())(*pair)
    wide = Perceptual(Two(), range=(-1.0, 1.0))(*(2 * x - 1 for x in pair))
    torch.testing.assert_close(plain, wide)
    with pytest.raises(ValueError, match="black, white"):
        Perceptual(Two(), range=(1.0, 0.0))


def test_network_is_no_part_of_the_parent():
    parent = nn.Module()
    parent.term = Perceptual(Two())
    parent.own = nn.Linear(1, 1)
    assert set(parent.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(parent.parameters())) == 2
    parent.train()
    assert not parent.term.network[0].training  # dropout would make it random
    assert not any(p.requires_grad for p in parent.term.network[0].parameters())


def test_gradient_reaches_the_output_only(pair):
    output, target = (x.clone().requires_grad_() for x in pair)
    Perceptual(Two())(output, target).sum().backward()
    assert output.grad.abs().sum() > 0 and target.grad is None


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("distance", ["mse", "l1"])
def test_gradient(pair, normalize, distance):
    term = Perceptual(Two().double(), normalize=normalize, distance=distance)
    target = pair[1][:1, :, :6, :6].double()
    output = pair[0][:1, :, :6, :6].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(x, target), (output,))


def test_black_has_a_gradient_when_normalized():
    """All features zero: LPIPS' square root has no derivative there."""
    output = torch.zeros(1, 3, 4, 4, requires_grad=True)
    Perceptual(Same(), normalize=True)(output, torch.rand(1, 3, 4, 4)).sum().backward()
    assert output.grad.isfinite().all()


def test_equal_images_and_channels_last(pair):
    term = Perceptual(Two())
    assert torch.equal(term(pair[0], pair[0]), torch.zeros(2))
    layout = [x.to(memory_format=torch.channels_last) for x in pair]
    torch.testing.assert_close(term(*layout), term(*pair))


def test_distances_stay_single_under_autocast(pair):
    with torch.autocast("cpu", torch.bfloat16):
        found = Perceptual(Two())(*pair)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Perceptual(Two())(*pair), rtol=0.05, atol=0)


def test_errors(pair):
    with pytest.raises(ValueError, match="same shape"):
        Perceptual(Two())(pair[0], pair[1][:1])
    with pytest.raises(ValueError, match="a module already"):
        Perceptual(Two(), layers=("conv1_1",))
    with pytest.raises(ValueError, match="did you mean 'vgg19'"):
        Perceptual("vgg91")
