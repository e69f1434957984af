"""Instance norm against PyTorch's own, and statistics that tiles share."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.networks.norms import InstanceNorm, NotGathered, Statistics, frozen, gathering, normalisation

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
    with gathering(stats, 1):
        InstanceNorm()(x)
    with frozen(stats):
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
    with gathering(whole, 1):
        InstanceNorm()(x)
    for left, right in ((0, 3), (3, 12), (12, 20)):
        each = Statistics()
        with gathering(each, 1):
            InstanceNorm()(x[..., left:right])
        parts.add(each)
    for a, b in zip(whole.calls[0], parts.calls[0], strict=True):
        assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-5)
    assert torch.allclose(whole.calls[0].variance, x.double().var((2, 3), correction=0).float(), rtol=1e-4)


def network():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 1), InstanceNorm(), nn.ReLU(), nn.Conv2d(4, 2, 1), InstanceNorm()]
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patches_are_normalised_as_the_images_they_make_up(layout):
    net, x, stats = network(), sample(2, 3, 8, 12), Statistics()
    patches = torch.cat(x.split(4, dim=3)).contiguous(memory_format=layout)  # three of the one and of the other
    with gathering(stats, 3):
        found = net(patches)
    assert len(stats.calls) == 2 and stats.calls[0].mean.shape == (2, 4) and stats.calls[0].count == 96
    assert torch.allclose(torch.cat(found.split(2), 3), net(x), atol=1e-5)


def test_parts_by_known_statistics_are_parts_of_the_whole():
    net, x, stats = network(), sample(2, 3, 8, 10), Statistics()
    with gathering(stats, 1):
        whole = net(x)
    assert torch.allclose(whole, net(x), atol=1e-6)
    for columns in (slice(0, 4), slice(4, 10), slice(3, 4)):
        with frozen(stats):
            part = net(x[..., columns])
        assert torch.allclose(part, whole[..., columns], atol=1e-5)
        assert not torch.allclose(net(x[..., columns]), whole[..., columns], atol=1e-2)


def test_a_part_without_statistics_is_refused():
    with pytest.raises(NotGathered), frozen(None):
        network()(sample(1, 3, 4, 4))
    with frozen(None):
        nn.Conv2d(3, 3, 1)(sample(1, 3, 4, 4))  # nothing to know
    network()(sample(1, 3, 4, 4))  # and the refusal ends with its block
