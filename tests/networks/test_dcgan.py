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


def test_infogans_players_for_digits():
    """Chen et al. 2016, table 1: 1,024 units, 7 x 7 x 128, 64, 1 in the generator, and back in the discriminator."""
    drawing = 74 * 1024 + 1024 * 128 * 49 + 128 * 64 * 16 + 64 * 16
    judging = 64 * 16 + 64 * 128 * 16 + 128 * 49 * 1024 + 1024
    generator = DCGANGenerator(latent=74, width=64, size=28, channels=1, hidden=1024)
    discriminator = DCGANDiscriminator(width=64, size=28, channels=1, hidden=1024)
    for net, expected in ((generator, drawing), (discriminator, judging)):
        layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
        assert sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, layers)) == expected
    images = generator(torch.randn(3, 74))
    assert images.shape == (3, 1, 28, 28) and discriminator.features(images).shape == (3, 1024)


@pytest.mark.parametrize("norm", ["batch", "none", "virtual"])
def test_hidden_layer_with_every_norm(norm):
    generator = DCGANGenerator(latent=5, width=2, size=8, norm=norm, hidden=6, classes=3)
    assert generator(torch.randn(3, 5), torch.tensor([0, 1, 2])).shape == (3, 3, 8, 8)
    if norm != "virtual":
        assert DCGANDiscriminator(width=2, size=8, norm=norm, hidden=6)(torch.randn(3, 3, 8, 8)).shape == (3, 1)


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


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("condition", ["concatenate", "norm"])
def test_labelled_generator(size, condition):
    torch.manual_seed(0)
    net = DCGANGenerator(latent=5, width=2, size=size, channels=1, classes=3, condition=condition).eval()
    z = torch.randn(2, 5)
    found = [net(z, torch.full((2,), label)) for label in (0, 1)]
    assert found[0].shape == (2, 1, size, size) and not torch.allclose(*found, atol=1e-8, rtol=0)
    with pytest.raises(ValueError, match="3 classes"):
        net(z)


@pytest.mark.parametrize("condition", ["projection", "concatenate"])
@pytest.mark.parametrize("minibatch", ["none", "std", "discrimination"])
def test_labelled_discriminator(condition, minibatch):
    torch.manual_seed(0)
    options = {"minibatch": minibatch, "classes": 3, "condition": condition, "outputs": 4}
    net = DCGANDiscriminator(width=4, size=16, norm="none", **options).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    found = net(x, labels)
    assert found.shape == (4, 4) and not torch.allclose(found, net(x, labels.flip(0)), atol=1e-9, rtol=0)
    assert net.features(x, labels).shape[0] == 4 and net.features(x, labels).dim() == 2
    # Whether a sample's logit depends on the others of its batch.
    other = torch.cat([x[:2], torch.randn(2, 3, 16, 16) * 30])
    assert torch.equal(net(other, labels)[:2], found[:2]) == (minibatch == "none")


def test_virtual_batch_norm_keeps_samples_apart():
    torch.manual_seed(0)
    virtual, batch = (DCGANGenerator(latent=5, width=2, size=8, norm=norm) for norm in ("virtual", "batch"))
    z, other = torch.randn(4, 5), torch.randn(4, 5) * 3
    mixed = torch.cat([z[:2], other[2:]])
    assert torch.allclose(virtual(z)[:2], virtual(mixed)[:2], atol=1e-6)
    assert not torch.allclose(batch(z)[:2], batch(mixed)[:2], atol=1e-6)
    assert "reference" in virtual.state_dict(), "the reference batch is the same after a checkpoint"
    labelled = DCGANGenerator(latent=5, width=2, size=8, norm="virtual", classes=3)
    assert labelled(z, torch.tensor([0, 1, 2, 0])).shape == (4, 3, 8, 8)
    with pytest.raises(ValueError, match="needs norm = 'batch'"):
        DCGANGenerator(norm="virtual", classes=3, condition="norm")


def test_mixture_latent():
    net = DCGANGenerator(latent=5, width=2, size=8, mixture=7)
    assert net.latent == 6 and net(torch.randn(3, 6)).shape == (3, 3, 8, 8)
    assert net.prior.mean.shape == (7, 5)


def test_a_gradient_of_the_gradient_reaches_every_weight():
    torch.manual_seed(0)
    net = DCGANDiscriminator(width=2, size=8, norm="none", classes=2)
    x = torch.randn(3, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x, torch.tensor([0, 1, 1])).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in net.named_parameters() if name.endswith("weight"))
