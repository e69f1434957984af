"""The fast upscaler: merged branches, receptive field, and its twin in Real-ESRGAN."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.imaging.tiles import margin_of
from img2img.networks.fast import Fast, RepConv2d


def loud(net):
    """Make every branch matter, as after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.eval()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("expand", [0, 2])
def test_merged_kernel_is_the_sum_of_its_branches(expand, residual):
    torch.manual_seed(0)
    conv = loud(RepConv2d(4, 4, expand, residual)).double()
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    expected = functional.conv2d(x, conv.weight, conv.bias, padding=1)
    if expand:
        wide = 4 * expand
        expected = expected + wide**-0.5 * functional.conv2d(
            functional.conv2d(x, conv.widen[:, :, None, None]), conv.narrow, padding=1
        )
    if residual:
        expected = expected + x
    torch.testing.assert_close(conv(x), expected)
    plain = conv.plain()
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), expected)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: conv(x), tuple(conv.parameters()))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("expand", "residual", "activation"), [(2, True, "relu"), (0, False, "prelu"), (1, True, "prelu")]
)
def test_deploy_is_the_same_function(scale, expand, residual, activation):
    net = loud(Fast(8, 3, scale, expand=expand, residual=residual, activation=activation))
    x = torch.rand(2, 3, 9, 14)
    with torch.no_grad():
        before = net(x)
        assert before.shape == (2, 3, 9 * scale, 14 * scale)
        after = net.deploy()
        torch.testing.assert_close(after(x), before, atol=1e-5, rtol=1e-5)
    assert not [layer for layer in after.modules() if isinstance(layer, RepConv2d)]
    assert len(after.state_dict()) == 2 * 5 + (4 if activation == "prelu" else 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [0, 2, 8])
def test_margin_covers_the_receptive_field(depth, channels):
    net = loud(Fast(6, depth, 2, channels))
    measured = margin_of(net, channels, 2)
    assert measured <= net.margin <= measured + 2


def test_twin_of_srvggnetcompact():
    module = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    theirs = module.SRVGGNetCompact(num_feat=8, num_conv=4, upscale=4, act_type="prelu").eval()
    ours = Fast(8, 4, 4, expand=0, residual=False, activation="prelu").eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.uniform_(parameter, -0.2, 0.2)
    state = {key.replace("body.", "layers."): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state)
    x = torch.rand(1, 3, 10, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)


def test_it_starts_near_the_nearest_enlargement():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        found = Fast(32, 12)(x)
    error = (found - functional.interpolate(x, scale_factor=4, mode="nearest")).abs().mean()
    assert error < 0.2
