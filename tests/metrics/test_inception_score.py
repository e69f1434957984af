"""Inception Score against closed forms and scipy's entropies."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from img2img.metrics.distribution import embedding
from img2img.metrics.inception_score import InceptionScore, inception_score


def test_closed_forms():
    sure = torch.eye(5).repeat(4, 1)
    assert inception_score(sure) == pytest.approx(5)
    assert inception_score(sure, splits=4) == pytest.approx(5)
    assert inception_score(sure[:1].expand(9, -1)) == pytest.approx(1)
    assert inception_score(torch.full((8, 5), 0.2)) == pytest.approx(1)
    with pytest.raises(ValueError, match="splits = 30 takes at least 30 images, not 20"):
        inception_score(sure, splits=30)


@pytest.mark.parametrize("splits", [1, 3])
def test_equals_scipy(splits):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.3), 31)
    parts = np.array_split(p, splits)
    expected = np.mean([np.exp(scipy.stats.entropy(part, part.mean(0)[None], axis=1).mean()) for part in parts])
    assert inception_score(torch.from_numpy(p), splits) == pytest.approx(expected)


def test_metric_looks_at_outputs_only():
    class Net(nn.Module):
        def forward(self, images):
            return images.flatten(1), 50 * images.flatten(1)

    net = Net()
    metric = InceptionScore(network=net, splits=2)
    images = torch.eye(4).view(4, 4, 1, 1)
    metric.update(images, None)
    metric.update(images, torch.rand(1, 4, 1, 1))
    assert metric.compute() == pytest.approx(4)
    metric.reset()
    metric.update(images[:2])
    assert metric.compute() == pytest.approx(1)  # two halves of one image
    assert embedding(net).probabilities(images).shape == (4, 4)
    with pytest.raises(ValueError, match="splits = 0"):
        InceptionScore(splits=0)
