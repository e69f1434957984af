"""PatchGAN: how far a logit sees."""

import pytest
import torch
from torch import nn

from img2img.networks.norms import InstanceNorm
from img2img.networks.patchgan import PatchGAN


@pytest.mark.parametrize(("layers", "field"), [(0, 1), (1, 16), (2, 34), (3, 70)])
def test_receptive_field(layers, field):
    torch.manual_seed(0)
    net = PatchGAN(inputs=2, width=2, layers=layers, norm="none").double().eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, 0.5, 1)  # positive: nothing cancels
    x = torch.rand(1, 2, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = x.grad[0].abs().sum(0) > 0
    assert seen.any(1).sum() == seen.any(0).sum() == field


@pytest.mark.parametrize("norm", ["batch", "instance", "spectral", "none"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_shapes(layers, norm):
    net = PatchGAN(inputs=6, width=4, layers=layers, norm=norm)
    found = net(torch.randn(2, 6, 64, 48))
    height, width = (64, 48) if layers == 0 else (64 // 2**layers - 2, 48 // 2**layers - 2)
    assert found.shape == (2, 1, height, width)
    kinds = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}
    assert any(isinstance(m, kinds.get(norm, ())) for m in net.modules()) == (norm in kinds)
    assert any("parametrizations" in name for name, _ in net.named_parameters()) == (norm == "spectral")


def test_the_papers_discriminator():
    """C64-C128-C256-C512, 2,768,705 parameters as in the reference implementation."""
    assert sum(p.numel() for p in PatchGAN(inputs=6).parameters()) == 2_768_705


@pytest.mark.parametrize(("size", "field"), [(256, 286), (128, 142), (70, 70), (16, 16), (8, 16)])
def test_a_patch_as_large_as_the_image(size, field):
    net = PatchGAN(inputs=1, width=1, layers="image", size=size, norm="none")
    kernels = [(layer.kernel_size[0], layer.stride[0]) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    seen = 1
    for kernel, stride in reversed(kernels):
        seen = (seen - 1) * stride + kernel
    assert seen == field
    logits = net(torch.randn(2, 1, size, size))
    assert logits.shape[:2] == (2, 1) and logits.numel() > 0


def test_what_it_sees():
    assert PatchGAN(channels=1, width=2, layers=1)(torch.randn(1, 1, 16, 16)).shape == (1, 1, 6, 6)
    assert PatchGAN(inputs=3, channels=1, width=2, layers=1)(torch.randn(1, 3, 16, 16)).shape == (1, 1, 6, 6)


def test_layers_that_cannot_be():
    with pytest.raises(ValueError, match="layers = -1 must be 0 to 16"):
        PatchGAN(layers=-1)
