"""Terms on the discriminator's features."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.adversarial.matching import feature_matching, pulling_away
from img2img.networks.dcgan import DCGANDiscriminator


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8, requires_grad=True)


def test_feature_matching(images):
    real, fake = images
    net = DCGANDiscriminator(width=2, size=8, norm="none")
    found = feature_matching(net.features, real, fake)
    ours, theirs = net.features(fake).detach().numpy(), net.features(real).detach().numpy()
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum()
    np.testing.assert_allclose(found.detach().numpy(), np.full(5, expected), rtol=1e-5)
    assert feature_matching(net.features, real, real.flip(0)).max() < 1e-10, "only the means count"
    found.sum().backward()
    assert fake.grad.abs().sum() > 0


def test_paired_feature_matching_of_several_layers(images):
    real, fake = images
    net = nn.Conv2d(3, 2, 3)
    layers = lambda x: [net(x), net(x).flatten(1)[:, :7]]  # noqa: E731
    found = feature_matching(layers, real, fake, paired=True)
    apart = (net(fake) - net(real)).abs().detach().flatten(1).numpy()
    np.testing.assert_allclose(found.detach().numpy(), apart.mean(1) + apart[:, :7].mean(1), rtol=1e-5)


def test_pulling_away(images):
    real, fake = images
    net = DCGANDiscriminator(width=2, size=8, norm="none")
    found = pulling_away(net.features, real, fake)
    rows = net.features(fake).detach().double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for i in range(5):
        expected = np.mean([(rows[i] @ rows[j]) ** 2 for j in range(5) if j != i])
        assert found[i].item() == pytest.approx(expected, rel=1e-5)
    same = pulling_away(net.features, real, fake[:1].expand(5, -1, -1, -1))
    torch.testing.assert_close(same, torch.ones(5), msg="a collapsed batch")
    orthogonal = pulling_away(lambda x: torch.eye(5), real, fake)
    assert orthogonal.abs().max() == 0


def test_float32_under_autocast(images):
    net = DCGANDiscriminator(width=2, size=8, norm="none")
    with torch.autocast("cpu", torch.bfloat16):
        for term in (feature_matching, pulling_away):
            found = term(net.features, *images)
            assert found.dtype == torch.float32 and found.shape == (5,)
