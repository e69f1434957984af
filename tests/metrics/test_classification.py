"""Classifiers' readings, and linear support vector machines against scikit-learn's."""

import numpy as np
import pytest
import torch
from torch import nn

from img2img.metrics.classification import LabelKept, accuracy, classifier_accuracy_score, linear_svm

load_digits = pytest.importorskip("sklearn.datasets").load_digits
LinearSVC = pytest.importorskip("sklearn.svm").LinearSVC


class Brightest(nn.Module):
    """Takes the place of the brightest pixel for the class."""

    def forward(self, images):
        values = images.flatten(1)
        return values, values


def test_accuracy():
    images = torch.eye(4).view(4, 1, 2, 2).repeat(40, 1, 1, 1)
    labels = torch.arange(4).repeat(40)
    assert accuracy(images, labels, Brightest()) == 1
    labels[::4] = 3
    assert accuracy(images, labels, Brightest()) == 0.75
    with pytest.raises(ValueError, match="160 images and 2 labels"):
        accuracy(images, labels[:2], Brightest())


def test_label_kept():
    images = torch.eye(4).view(4, 1, 2, 2)
    metric = LabelKept(network=Brightest())
    with pytest.raises(ValueError, match="no output"):
        metric.compute()
    metric.update(images * 0.5 + 0.1, images)
    metric.update(images.flip(0), images)
    assert metric.compute() == 0.5 and metric.against == "input"
    metric.reset()
    metric.update(images, images)
    assert metric.compute() == 1


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data[:600] / 16, found.target[:600]


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_equals_scikit_learn(digits, c):
    """liblinear minimises the same function: compared are its value and the scores."""
    x, y = digits
    theirs = LinearSVC(C=c, loss="squared_hinge", dual=False, tol=1e-8, max_iter=10_000).fit(x[:400], y[:400])
    ours = linear_svm(torch.from_numpy(x[:400]), torch.from_numpy(y[:400]), regularisation=c)
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=2e-3)
    scores = ours(torch.from_numpy(x[400:])).numpy()
    np.testing.assert_allclose(scores, theirs.decision_function(x[400:]), atol=1e-2)


def test_score(digits):
    x, y = (torch.from_numpy(each) for each in digits)
    expected = LinearSVC(dual=False, tol=1e-8).fit(x[:400], y[:400]).score(x[400:], y[400:])
    assert classifier_accuracy_score(x[:400], y[:400], x[400:], y[400:]) == pytest.approx(expected, abs=0.011)
    # Outputs of wrong labels teach nothing.
    assert classifier_accuracy_score(x[:400], y[:400].roll(1), x[400:], y[400:]) < 0.3
