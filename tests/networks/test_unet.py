"""pix2pix's U-Net: shapes, levels, skips."""

import pytest
import torch
from torch import nn

from img2img.imaging import tiles
from img2img.networks.unet import Level, UNet


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("size", [16, 48, 64])
def test_shapes(size, norm):
    net = UNet(width=4, size=size, channels=1, input_channels=3, norm=norm)
    assert net.multiple == size & -size
    found = net(torch.randn(2, 3, size, size * 2))
    assert found.shape == (2, 1, size, size * 2) and found.abs().max() <= 1
    assert UNet(width=4, size=16, channels=1)(torch.randn(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_the_papers_generator():
    """C64-C128-C256-C512 x 5 down to one pixel; dropout in the three levels above it."""
    net = UNet().eval()
    levels = [module for module in net.modules() if isinstance(module, Level)]
    assert [level.down[1].out_channels for level in levels] == [128, 256, 512, 512, 512, 512, 512]
    assert [any(isinstance(m, nn.Dropout) for m in level.up) for level in levels] == [False] * 3 + [True] * 3 + [False]
    count = sum(p.numel() for p in net.parameters())
    # The reference implementation's, and the 64 biases of the first convolution, which it leaves out.
    assert count == 54_413_955 + 64


def test_the_input_reaches_the_output_past_the_bottleneck():
    torch.manual_seed(0)
    net = UNet(width=4, size=16, norm="none", dropout=0.0).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = net(x)
        deepest = [module for module in net.modules() if isinstance(module, Level)][-1]
        for parameter in deepest.parameters():
            parameter.zero_()
        after = net(x)
    assert not torch.equal(before, after)  # the bottleneck matters
    x.requires_grad_()
    net(x)[0, :, 8, 8].sum().backward()
    assert x.grad.abs().max() > 0  # and is not the only way


def test_dropout_is_the_noise_of_training():
    torch.manual_seed(0)
    net = UNet(width=4, size=64, norm="none", dropout=0.5)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_margin_is_the_measured_radius(depth, norm, upsample):
    torch.manual_seed(0)
    net = UNet(width=2, depth=depth, size=16, channels=1, norm=norm, upsample=upsample).eval()
    assert net.margin == tiles.margin_of(net, 1, multiple=net.multiple)


@pytest.mark.parametrize(("size", "depth"), [(28, 2), (30, 1), (32, 5), (96, 5)])
def test_as_many_halvings_as_the_size_allows(size, depth):
    net = UNet(width=2, size=size)
    assert net.multiple == 2**depth and net(torch.randn(1, 3, size, size)).shape == (1, 3, size, size)


@pytest.mark.parametrize("depth", [-1, 5, 17])
def test_depths_that_cannot_be(depth):
    with pytest.raises(ValueError, match=f"size 16 cannot be halved {depth} times"):
        UNet(size=16, depth=depth)


@pytest.mark.parametrize(("size", "times", "near"), [(150, 1, 160), (200, 3, 192), (250, 1, 256)])
def test_sizes_that_make_a_shallow_network_are_chosen_on_purpose(size, times, near):
    with pytest.raises(ValueError, match=f"can be halved {times} times only.*e.g. {near}, or set depth"):
        UNet(width=2, size=size)
    assert UNet(width=2, size=size, depth=times).multiple == 2**times


def test_odd_sizes_cannot_be():
    with pytest.raises(ValueError, match="size 27 cannot be halved 1 times"):
        UNet(size=27)


def test_a_fresh_network_keeps_the_strength_of_what_goes_through():
    """As He et al. 2015 mean it: what comes out of each layer varies as much as what went in, within a factor."""
    torch.manual_seed(0)
    network, strengths = UNet(32, size=64, norm="none", dropout=0.0), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda layer, given, found: strengths.append(found.std() / given[0].std()))
    network(torch.rand(4, 3, 64, 64) * 2 - 1)
    assert len(strengths) == 12 and all(0.5 < each < 2 for each in strengths)
