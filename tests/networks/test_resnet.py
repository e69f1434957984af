"""CycleGAN's generator: shapes, size, reach, features."""

import pytest
import torch
from torch import nn

from img2img.imaging import tiles
from img2img.networks.norms import InstanceNorm
from img2img.networks.resnet import Block, ResNet


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_shapes(norm):
    net = ResNet(width=4, blocks=2, channels=1, input_channels=3, norm=norm)
    found = net(torch.randn(2, 3, 16, 28))
    assert found.shape == (2, 1, 16, 28) and found.abs().max() <= 1
    kinds = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | InstanceNorm)]
    assert len(norms) == (0 if norm == "none" else 5 + 2 * 2)
    assert all(isinstance(m, kinds[norm]) for m in norms)
    assert ResNet(width=4, blocks=0, channels=2)(torch.randn(1, 2, 8, 8)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(("blocks", "reference"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_papers_generators(blocks, reference):
    """Parameters as in the reference implementation, less the biases that its instance norms take away."""
    with torch.device("meta"):
        net = ResNet(blocks=blocks)
    biases = 64 + 128 + 256 + 2 * blocks * 256 + 128 + 64
    assert sum(p.numel() for p in net.parameters()) == reference - biases
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    plan = [64, 128, 256, *[256] * 2 * blocks, 128, 64, 3]
    assert [layer.out_channels for layer in convolutions] == plan


def test_weights_start_small_and_normal():
    torch.manual_seed(0)
    weight = ResNet(width=32, blocks=1).down[3].layers[0].weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02) and weight.mean().abs() < 1e-3


@pytest.mark.parametrize("blocks", [0, 1, 3])
@pytest.mark.parametrize("upsample", ["transposed", "resize"])
def test_margin_is_the_measured_radius(blocks, upsample):
    torch.manual_seed(0)
    net = ResNet(width=2, blocks=blocks, channels=1, norm="none", upsample=upsample)
    assert net.margin == tiles.margin_of(net, 1, multiple=4)
    assert ResNet(width=2, blocks=6).margin == 60 and ResNet(width=2, blocks=9).margin == 84


def test_borders_are_reflected():
    """A flat image stays flat at its border, up to the zeros of the halvings and doublings."""
    net = ResNet(width=4, blocks=0, norm="none").double()
    inside = net.down[0](torch.full((1, 3, 16, 16), 0.7, dtype=torch.float64))
    assert (inside.amax((2, 3)) - inside.amin((2, 3))).max() < 1e-12
    block = Block(4, "none", 0.0).double()
    same = block(torch.full((1, 4, 8, 8), 0.7, dtype=torch.float64))
    assert (same.amax((2, 3)) - same.amin((2, 3))).max() < 1e-12


def test_resizing_leaves_no_dots():
    """Of a flat image transposed convolutions make pixels that differ by their places, resizing does not."""
    torch.manual_seed(0)
    flat = torch.full((1, 3, 64, 64), 0.3)
    spread = {}
    for upsample in ("transposed", "resize"):
        net = ResNet(width=16, blocks=0, norm="none", upsample=upsample)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            drawn = net.up[:-1](net.down(flat))[..., 24:40, 24:40]
        spread[upsample] = (drawn.std((2, 3)) / drawn.abs().mean()).max().item()
    assert spread["resize"] < 1e-6 < 1e-3 < spread["transposed"]


def test_residual_adds_what_it_draws():
    torch.manual_seed(0)
    net, x = ResNet(width=4, blocks=1, residual=True).eval(), torch.randn(2, 3, 16, 16)
    drawn = net(x) - x
    torch.testing.assert_close(drawn, net.up(net.down(x)))
    torch.testing.assert_close(net.described(x)[0], net(x))
    nn.init.zeros_(net.up[-2].weight)
    assert torch.equal(net(x), x)
    with pytest.raises(ValueError, match="residual = true needs as many input_channels"):
        ResNet(width=4, blocks=1, input_channels=1, residual=True)


def test_dropout_rests_in_evaluation():
    torch.manual_seed(0)
    net, x = ResNet(width=4, blocks=2, dropout=0.5), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.equal(net(x), net(x))
        assert torch.equal(net.eval()(x), net(x))


def test_features_are_the_generators_own():
    torch.manual_seed(0)
    net, x = ResNet(width=4, blocks=6), torch.randn(2, 3, 32, 32)
    found = net.features(x)
    assert [tuple(each.shape) for each in found] == [
        (2, 3, 32, 32),
        (2, 8, 16, 16),
        (2, 16, 8, 8),
        (2, 16, 8, 8),
        (2, 16, 8, 8),
    ]
    assert net.feature_channels() == [each.shape[1] for each in found]
    seen = []
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    hooks = [blocks[place].register_forward_hook(lambda *given: seen.append(given[2])) for place in (0, 4)]
    net(x)
    [hook.remove() for hook in hooks]
    assert torch.equal(found[0], x) and torch.equal(found[3], seen[0]) and torch.equal(found[4], seen[1])
    assert torch.equal(net.up(net.features(x, [9])[0]), net(x))


def test_features_compute_no_more_than_asked():
    net = ResNet(width=4, blocks=6)
    net.down[4].forward = None  # the second block
    assert len(net.features(torch.randn(1, 3, 16, 16), [3, 0, 4])) == 3
    with pytest.raises(TypeError):
        net.features(torch.randn(1, 3, 16, 16), [5])


def test_what_cannot_be():
    with pytest.raises(ValueError, match="blocks = -1 must be 0 to 1000"):
        ResNet(blocks=-1)
    net = ResNet(width=2, blocks=1)
    with pytest.raises(ValueError, match="layer 5 is none of 0 to 4"):
        net.features(torch.randn(1, 3, 16, 16), [5])
    assert net.encoder == (0, 2, 3, 4)


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_exports_for_any_size(norm):
    side = torch.export.Dim("side")
    net = ResNet(width=2, blocks=1, norm=norm).eval()
    program = torch.export.export(net, (torch.randn(1, 3, 16, 24),), dynamic_shapes=({2: 4 * side, 3: 24},))
    x = torch.randn(1, 3, 40, 24)
    assert torch.allclose(program.module()(x), net(x), atol=1e-5)
