"""Winograd's convolution against PyTorch's own, by finite differences, and where it is used."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.networks import winograd
from img2img.networks.resnet import ResNet
from img2img.networks.winograd import CHANNELS, Conv3x3, convolution

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def operands(shape, outputs, kind=torch.float64, layout=torch.contiguous_format):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=kind), torch.randn(outputs, shape[1], 3, 3, dtype=kind)
    return [each.contiguous(memory_format=layout).requires_grad_() for each in (x, weight)]


def away(found, wanted):
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (2, 4, 10, 14), (1, 3, 3, 3), (3, 2, 5, 9), (2, 5, 12, 7)])
@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_equals_pytorchs_with_gradients(shape, layout, kind, bound):
    given = operands(shape, 5, kind, layout)
    exact = [each.detach().double().requires_grad_() for each in given]
    found, wanted = convolution(*given), functional.conv2d(*exact)
    assert found.shape == wanted.shape and found.dtype == kind and away(found, wanted) < bound
    slope = torch.randn(wanted.shape, dtype=torch.float64)
    mine = torch.autograd.grad(found, given, slope.to(kind))
    for a, b in zip(mine, torch.autograd.grad(wanted, exact, slope.to(kind).double()), strict=True):
        assert a.shape == b.shape and away(a, b) < bound


def test_error_in_fp32_of_a_wide_layer():
    x, weight = operands((1, 256, 34, 34), 256, torch.float32, torch.channels_last)
    wanted = functional.conv2d(x.double(), weight.double())
    assert away(convolution(x, weight), wanted) < 4e-6  # measured: 2.4e-6, and 0.9e-6 for the plain sum


@pytest.mark.parametrize("shape", [(2, 2, 6, 6), (1, 2, 4, 7)])
def test_gradients_by_finite_differences(shape):
    given = operands(shape, 2)
    assert torch.autograd.gradcheck(convolution, given)
    assert torch.autograd.gradgradcheck(convolution, given)  # as gradient penalties need


@pytest.mark.parametrize("which", [0, 1])
def test_one_gradient_alone(which):
    given = operands((1, 3, 6, 6), 4)
    given[1 - which].requires_grad_(False)
    for graph in (False, True):
        (found,) = torch.autograd.grad(convolution(*given).square().sum(), given[which], create_graph=graph)
        (wanted,) = torch.autograd.grad(functional.conv2d(*given).square().sum(), given[which])
        assert away(found, wanted) < 1e-13


@pytest.fixture
def used(monkeypatch):
    """Return the shapes that the transforms were used on, a list that grows."""
    shapes = []

    def noting(x, weight):
        shapes.append(tuple(x.shape))
        return convolution(x, weight)

    monkeypatch.setattr(winograd, "convolution", noting)
    return shapes


def pair(inputs=CHANNELS, outputs=CHANNELS, mode="reflect", bias=True):
    torch.manual_seed(0)
    mine = Conv3x3(inputs, outputs, mode, bias)
    theirs = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=mode, bias=bias)
    theirs.load_state_dict(mine.state_dict())  # the same keys and shapes
    return mine.requires_grad_(False), theirs.requires_grad_(False)


def image(channels=CHANNELS, size=(46, 47)):
    torch.manual_seed(1)
    return torch.randn(1, channels, *size).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("mode", "bias"), [("zeros", True), ("reflect", False), ("replicate", True)])
def test_the_layer_is_pytorchs(used, mode, bias):
    mine, theirs = pair(mode=mode, bias=bias)
    x = image()
    found = mine(x)
    assert used == [(1, CHANNELS, 48, 49)]
    assert away(found, theirs.double()(x.double())) < 5e-6
    with torch.inference_mode():
        assert torch.equal(mine(x), found)


def test_elsewhere_it_is_the_plain_convolution(used):
    mine, theirs = pair()
    for x in (image().contiguous(), image(size=(40, 40))):
        assert torch.equal(mine(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mine(image()), theirs(image())) and mine(image()).dtype == torch.bfloat16
    for kind in (torch.bfloat16, torch.float64):
        assert torch.equal(mine.to(kind)(image().to(kind)), theirs.to(kind)(image().to(kind)))
    for narrow in ((CHANNELS - 1, CHANNELS), (CHANNELS, CHANNELS - 1)):
        mine, theirs = pair(*narrow)
        assert torch.equal(mine(image(narrow[0])), theirs(image(narrow[0])))
    assert not used


def test_exporters_and_compilers_see_one_operator(used):
    mine, _ = pair()
    program = torch.export.export(mine, (image(),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert len(names) == 2 and names[1] == "aten.conv2d.default"  # the padding before it
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(mine, backend=backend)(image())
    assert any("conv2d" in name for name in seen)
    assert not used


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_trace_sees_one_operator(used):
    traced = torch.jit.trace(pair()[0], image(), check_trace=False)
    assert "aten::_convolution" in str(traced.graph) and not used


def test_the_translator_uses_it_and_stays_what_it_was(used, monkeypatch):
    torch.manual_seed(0)
    net = ResNet(width=64, blocks=1).to(memory_format=torch.channels_last)
    assert [name for name in net.state_dict() if name.startswith("down.3.")] == [
        f"down.3.layers.{place}.weight" for place in (0, 3)
    ]
    x = image(3, (192, 196))
    found = net(x)
    mine = torch.autograd.grad(found.square().mean(), list(net.parameters()))
    assert used == [(1, 256, 50, 51)] * 2
    monkeypatch.setattr(winograd, "CHANNELS", 1000)
    wanted = net(x)
    assert (found - wanted).abs().max() < 1e-4
    theirs = torch.autograd.grad(wanted.square().mean(), list(net.parameters()))
    # Rounding moves values across the kinks of ReLU: both are 1e-4 to 2e-4 from the gradient in double precision.
    assert away(*(torch.cat([each.flatten() for each in slopes]) for slopes in (mine, theirs))) < 2e-3
    assert len(used) == 2
