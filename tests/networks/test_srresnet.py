"""SRResNet: the sub-pixel convolution, folding, receptive field, the paper's size."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.imaging.tiles import margin_of
from img2img.networks.srresnet import SRGANDiscriminator, SRResNet, SubpixelConv2d


@pytest.mark.parametrize("kernel", [3, 5, 9])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_subpixel_convolution_is_the_plain_one_after_the_shuffle(factor, kernel):
    torch.manual_seed(0)
    conv = SubpixelConv2d(2, 3, kernel, factor).double()
    x = torch.randn(2, 2 * factor**2, 7, 6, dtype=torch.float64, requires_grad=True)
    ours = conv(x)
    theirs = functional.conv2d(functional.pixel_shuffle(x, factor), conv.weight, conv.bias, padding=kernel // 2)
    assert ours.shape == (2, 3, 7 * factor, 6 * factor)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    variables = [x, conv.weight, conv.bias]
    gradients = [torch.autograd.grad((found * weights).sum(), variables) for found in (ours, theirs)]
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain)


def lived(net):
    """Give batch norms statistics and scales that matter, as after training."""
    torch.manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, 0.1, 0.5)
    return net.eval()


@pytest.mark.parametrize("skip", ["none", "nearest"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_deploy_is_the_same_function(scale, norm, skip):
    torch.manual_seed(0)
    net = lived(SRResNet(width=6, blocks=2, scale=scale, norm=norm, skip=skip))
    x = torch.rand(1, 3, 11, 13)
    with torch.no_grad():
        before = net(x)
        deployed = net.deploy()
        assert before.shape == (1, 3, 11 * scale, 13 * scale)
        torch.testing.assert_close(deployed(x), before, atol=1e-5, rtol=1e-5)
    assert not [layer for layer in deployed.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_margin_covers_the_receptive_field(scale, blocks):
    torch.manual_seed(0)
    net = SRResNet(width=4, blocks=blocks, scale=scale).eval()
    measured = margin_of(net, 3, scale)
    assert measured <= net.margin <= measured + 2


def test_the_papers_size():
    """Counted by hand from figure 4 of the paper: k9n64, 16 blocks of two k3n64, k3n64, two k3n256, k9n3."""
    norm = 2 * 64
    conv3 = 64 * 64 * 9 + 64
    head = 3 * 64 * 81 + 64 + 1  # and a PReLU's one slope
    block = 2 * (conv3 + norm) + 1
    up = 64 * 256 * 9 + 256 + 1
    tail = 64 * 3 * 81 + 3
    expected = head + 16 * block + conv3 + norm + 2 * up + tail
    assert expected == 1_549_462
    assert sum(p.numel() for p in SRResNet(norm="batch", skip="none").parameters()) == expected


def test_it_starts_as_an_enlargement():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 12, 12)
    large = functional.interpolate(x, scale_factor=4, mode="nearest")
    with torch.no_grad():
        found = SRResNet(width=16, blocks=4, norm="none", skip="nearest")(x)
    assert (found - large).abs().mean() < 0.1


def test_unknown_scale():
    with pytest.raises(ValueError, match="scale 5 is none of 1, 2, 3, 4, 8"):
        SRResNet(scale=5)


def test_discriminator():
    """The paper's: eight convolutions, 512 channels at a sixteenth of the size, dense 1024, one logit."""
    net = SRGANDiscriminator(width=4, size=32, hidden=16)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 1)
    assert net.features(torch.rand(2, 3, 32, 32)).shape == (2, 32, 2, 2)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net.eval().classifier(net.features(x)), net(x)), "features are those that it judges by"
    whole = SRGANDiscriminator()
    convolutions = [layer for layer in whole.layers if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [conv.stride[0] for conv in convolutions] == [1, 2] * 4
    assert whole.classifier[1].weight.shape == (1024, 512 * 6 * 6)
    with pytest.raises(ValueError, match="size 100 is not a multiple of 16; choose 96"):
        SRGANDiscriminator(size=100)
