"""Cross entropy against scikit-learn's log loss and the uniform closed form."""

import math

import pytest
import torch
from sklearn.metrics import log_loss

from img2img.fidelity.classification import cross_entropy


def test_cross_entropy():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 1, 1])
    found = cross_entropy(logits, labels)
    assert found.shape == (6,)
    assert found.mean().item() == pytest.approx(log_loss(labels, logits.softmax(1), labels=[0, 1, 2, 3]), rel=1e-5)
    assert cross_entropy(torch.zeros(1, 10), torch.tensor([3])).item() == pytest.approx(math.log(10))
    assert torch.allclose(cross_entropy(logits, torch.eye(4)[labels]), found)


def test_smoothing():
    sure = torch.tensor([[30.0, 0.0]])
    # 0.1 spread over two classes: the wrong one gets 0.05, and costs 30 nats.
    assert cross_entropy(sure, torch.tensor([0]), smoothing=0.1).item() == pytest.approx(0.05 * 30, rel=1e-4)
