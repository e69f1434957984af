"""DCGAN: sizes, starts, and what it refuses."""

import pytest
import torch
from torch import nn

from img2img.networks.dcgan import DCGANDiscriminator, DCGANGenerator, stages
from img2img.networks.mlp import MLP


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32, 40, 48, 64])
def test_sizes(size, channels, norm):
    generator = DCGANGenerator(latent=5, width=2, size=size, channels=channels, norm=norm)
    images = generator(torch.randn(3, 5))
    assert images.shape == (3, channels, size, size) and images.abs().max() <= 1
    critic = DCGANDiscriminator(width=2, size=size, channels=channels, norm=norm)
    assert critic(images).shape == (3, 1)


def test_the_papers_generator():
    """1024-512-256-128 channels at width 128, from 4 x 4; 64 x 64 images."""
    net = DCGANGenerator(width=128, size=64)
    channels = [layer.out_channels for layer in net.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert channels == [1024, 512, 256, 128, 3]
    assert stages(64) == (4, 4) and stages(28) == (2, 7)


def test_start():
    torch.manual_seed(0)
    net = DCGANGenerator(width=32)
    for layer in net.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and not layer.bias.any()


@pytest.mark.parametrize("size", [0, 7, 11, 36, 100])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match=f"image size {size} is none of"):
        DCGANGenerator(size=size)
    with pytest.raises(ValueError, match=f"image size {size} is none of"):
        DCGANDiscriminator(size=size)


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    net = DCGANDiscriminator(width=4, size=16, norm="spectral")
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    for _ in range(30):
        net(torch.randn(4, 3, 16, 16))
    net.eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_mlp():
    net = MLP(12, 2, width=7, depth=3, activation="leaky_relu")
    assert net(torch.randn(4, 3, 2, 2)).shape == (4, 2) and net.latent == 12
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [(7, 12), (7, 7), (7, 7), (2, 7)]
