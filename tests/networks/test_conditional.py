"""Labels in networks, attention, and layers that compare samples: each against a formula written out."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.networks.attention import SelfAttention
from img2img.networks.conditional import ConditionalBatchNorm, Conditioned, Head, one_hot, planes
from img2img.networks.minibatch import MinibatchDiscrimination, MinibatchStd
from img2img.networks.virtual_norm import VirtualBatchNorm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_one_hot():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    assert one_hot(soft, 3).equal(soft)
    with pytest.raises(ValueError, match="give it labels"):
        one_hot(None, 3)
    with pytest.raises(ValueError, match="2 columns"):
        one_hot(torch.zeros(4, 2), 3)


def test_planes():
    found = planes(torch.zeros(2, 3, 4, 5), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert found.shape == (2, 5, 4, 5)
    assert found[1, 3].unique().tolist() == [3] and found[0, 4].unique().tolist() == [2]


def test_conditional_batch_norm_is_batch_norm_with_each_classs_gain():
    layer = ConditionalBatchNorm(3, 4)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    x, labels = torch.randn(5, 3, 4, 4), torch.tensor([0, 3, 1, 1, 2])
    found = layer(x, one_hot(labels, 4))
    plain = nn.functional.batch_norm(x, None, None, training=True)
    for sample, label in enumerate(labels):
        gain, bias = 1 + layer.gain.weight[:, label], layer.bias.weight[:, label]
        torch.testing.assert_close(found[sample], plain[sample] * gain[:, None, None] + bias[:, None, None])


def test_conditioned_hands_the_condition_to_those_that_want_it():
    layers = Conditioned(nn.Conv2d(3, 2, 1), Conditioned(ConditionalBatchNorm(2, 2), nn.ReLU()))
    assert layers(torch.randn(4, 3, 2, 2), torch.randn(4, 2)).shape == (4, 2, 2, 2)


def test_head_is_the_projection():
    """Miyato & Koyama 2018, equation 3: v . phi + b + phi . V y."""
    head = Head(6, 2, classes=3)
    phi, labels = torch.randn(4, 6), torch.tensor([0, 2, 1, 2])
    found = head(phi, labels)
    plain = phi @ head.linear.weight.T + head.linear.bias
    for sample, label in enumerate(labels):
        torch.testing.assert_close(found[sample, 0], plain[sample, 0] + phi[sample] @ head.project.weight[:, label])
    torch.testing.assert_close(found[:, 1], plain[:, 1])


def test_attention_starts_as_nothing_and_is_the_formula():
    layer, x = SelfAttention(16).double(), torch.randn(2, 16, 4, 6, dtype=torch.float64)
    assert layer(x).equal(x)
    nn.init.constant_(layer.gamma, 0.5)
    found = layer(x)[1].detach().numpy()
    weights = {
        name: getattr(layer, name).weight.detach().numpy()[:, :, 0, 0] for name in ("query", "key", "value", "out")
    }
    image = x[1].numpy()
    pool = lambda m: m.reshape(len(m), 2, 2, 3, 2).max((2, 4)).reshape(len(m), -1)  # noqa: E731
    flat = image.reshape(16, -1)
    key, value = (pool((weights[name] @ flat).reshape(-1, 4, 6)) for name in ("key", "value"))
    scores = np.exp((weights["query"] @ flat).T @ key)
    scores /= scores.sum(1, keepdims=True)
    expected = flat + 0.5 * weights["out"] @ (value @ scores.T)
    np.testing.assert_allclose(found.reshape(16, -1), expected, atol=1e-12)


def test_attention_can_be_differentiated_twice():
    layer, x = SelfAttention(8).double(), torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    nn.init.constant_(layer.gamma, 0.7)
    assert torch.autograd.gradgradcheck(layer, x)


def test_minibatch_discrimination():
    layer, x = MinibatchDiscrimination(5, kernels=3, dims=2), torch.randn(4, 5)
    found = layer(x).detach().numpy()
    rows = (x.numpy() @ layer.table.detach().numpy()).reshape(4, 3, 2)
    for i in range(4):
        for b in range(3):
            expected = sum(np.exp(-np.abs(rows[i, b] - rows[j, b]).sum()) for j in range(4))
            assert found[i, 5 + b] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(found[:, :5], x.numpy())
    same = layer(x[:1].expand(4, 5))[:, 5:]
    torch.testing.assert_close(same, torch.full((4, 3), 4.0), msg="a collapsed batch is as near as can be")


@pytest.mark.parametrize(("count", "group"), [(8, 4), (6, 3), (7, 1), (4, 4), (2, 2)])
def test_minibatch_std(count, group):
    x = torch.randn(count, 3, 4, 4)
    found = MinibatchStd(4)(x)
    assert found.shape == (count, 4, 4, 4) and found[:, :3].equal(x)
    groups = count // group
    for sample in range(count):
        members = x[sample % groups :: groups].numpy()
        assert len(members) == group
        expected = np.sqrt(members.var(0) + 1e-8).mean()
        np.testing.assert_allclose(found[sample, 3].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("count", [4, 5])
def test_minibatch_std_has_gradients_in_half_precision(count):
    """Of samples that are alike, or a group of one: a variance of nought, plus what half precision rounds to nought."""
    x = torch.ones(count, 2, 3, 3, dtype=torch.float16, requires_grad=True)
    MinibatchStd(4)(x).sum().backward()
    assert x.grad.isfinite().all()


def test_virtual_batch_norm():
    layer, x = VirtualBatchNorm(2, reference=3), torch.randn(5, 2, 4, 4) * 3 + 1
    nn.init.normal_(layer.gain)
    nn.init.normal_(layer.bias)
    found = layer(x).detach().numpy()
    array, gain, bias = x.double().numpy(), layer.gain.detach().numpy(), layer.bias.detach().numpy()
    for sample in range(5):
        # The reference batch, and for the others themselves as one more of its kind.
        seen = array[:3] if sample < 3 else np.concatenate([array[:3], array[sample : sample + 1]])
        mean, std = seen.mean((0, 2, 3)), np.sqrt(seen.var((0, 2, 3)) + 1e-5)
        expected = (array[sample] - mean[:, None, None]) / std[:, None, None] * gain[:, None, None] + bias[
            :, None, None
        ]
        np.testing.assert_allclose(found[sample], expected, atol=1e-4)
