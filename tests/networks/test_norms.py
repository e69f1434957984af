"""Instance norm against PyTorch's own, and statistics that tiles share."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.networks.norms import InstanceNorm, Statistics, Window, normalisation, sharing

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def sample(*shape, layout=torch.contiguous_format, kind=torch.float32):
    torch.manual_seed(0)
    return (torch.randn(shape) * 3 + 7).to(kind).contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 5, 7, 9), (3, 4, 6, 5), (2, 1, 8, 8), (3, 5, 1, 2)])
def test_equals_pytorchs_with_gradients(shape, layout):
    x = sample(*shape, layout=layout, kind=torch.float64)
    weight = torch.randn(shape, dtype=torch.float64)
    found = []
    for function in (InstanceNorm(), functional.instance_norm):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = function(given)
        (out * weight).sum().backward()
        found.append((out.detach(), given.grad))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9) and theirs.abs().max() > 0.01


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_by_finite_differences(layout, count):
    x = sample(count, 2, 3, 4, layout=layout, kind=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(InstanceNorm(), x)
    assert torch.autograd.gradgradcheck(InstanceNorm(), x)  # as gradient penalties need


@pytest.mark.parametrize("count", [1, 3])
def test_channels_last_images_stay_so(count):
    x = sample(count, 8, 6, 6, layout=torch.channels_last)
    assert InstanceNorm()(x).is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_computed_from_exact_statistics():
    x = sample(2, 4, 32, 32, layout=torch.channels_last, kind=torch.bfloat16)
    found = InstanceNorm()(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - functional.instance_norm(x.float())).abs().max() < 0.02
    stats = Statistics()
    with sharing(gather=stats):
        InstanceNorm()(x)
    with sharing(known=stats):
        shared = InstanceNorm()(x)
    assert shared.dtype == torch.bfloat16 and (shared.float() - found.float()).abs().max() < 0.02


def test_no_parameters_and_no_buffers():
    assert not InstanceNorm().state_dict()


def test_exports_as_one_operator():
    program = torch.export.export(InstanceNorm(), (torch.randn(2, 3, 8, 8),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["aten.instance_norm.default"]


def test_normalisation_by_name():
    (batch,) = normalisation("batch", 5)
    assert isinstance(batch, nn.BatchNorm2d) and batch.num_features == 5
    (instance,) = normalisation("instance", 5)
    assert isinstance(instance, InstanceNorm)
    assert normalisation("none", 5) == normalisation("spectral", 5) == []


def test_moments_of_parts_are_those_of_the_whole():
    x = sample(2, 3, 12, 20) + 1e3  # a mean far from 0, where sums of squares cancel
    whole, parts = Statistics(), Statistics()
    with sharing(gather=whole):
        InstanceNorm()(x)
    for left, right in ((0, 3), (3, 12), (12, 20)):
        each = Statistics()
        with sharing(gather=each):
            InstanceNorm()(x[..., left:right])
        parts.add(each)
    for a, b in zip(whole.calls[0], parts.calls[0], strict=True):
        assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-5)
    assert torch.allclose(whole.calls[0].variance, x.double().var((2, 3), correction=0).float(), rtol=1e-4)


def test_a_window_leaves_the_context_out_at_every_resolution():
    window = Window(4, 12, 16, 0, 8, 12)
    x = torch.arange(16 * 12.0).view(1, 1, 16, 12)
    assert torch.equal(window.of(x), x[:, :, 4:12, 0:8])
    assert torch.equal(window.of(x[:, :, ::4, ::4]), x[:, :, ::4, ::4][:, :, 1:3, 0:2])
    gathered = Statistics()
    with sharing(gather=gathered, window=window):
        InstanceNorm()(x)
    assert gathered.calls[0].pixels == 64
    assert gathered.calls[0].mean.item() == pytest.approx(x[:, :, 4:12, 0:8].mean().item())


def test_parts_by_known_statistics_are_parts_of_the_whole():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), InstanceNorm(), nn.ReLU(), nn.Conv2d(4, 2, 1), InstanceNorm()).eval()
    x = sample(2, 3, 8, 10)
    stats = Statistics()
    with torch.no_grad():
        with sharing(gather=stats):
            whole = network(x)
        assert torch.equal(whole, network(x)) and len(stats.calls) == 2
        for columns in (slice(0, 4), slice(4, 10)):
            with sharing(known=stats):
                part = network(x[..., columns])
            assert torch.allclose(part, whole[..., columns], atol=1e-5)
            assert not torch.allclose(network(x[..., columns]), whole[..., columns], atol=1e-2)


def test_sharing_ends_with_its_block():
    x, stats = sample(1, 3, 4, 4), Statistics()
    with pytest.raises(RuntimeError), sharing(gather=stats):
        raise RuntimeError
    InstanceNorm()(x)
    assert not stats
