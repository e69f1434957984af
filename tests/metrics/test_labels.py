"""Whether the class that was asked for is shown, against scikit-learn and against every order of the classes."""

from itertools import permutations

import numpy as np
import pytest
import torch

from img2img.evaluation import is_better, metric
from img2img.metrics.labels import Accuracy, AssignedAccuracy, TargetAccuracy
from img2img.registry import part

accuracy_score = pytest.importorskip("sklearn.metrics").accuracy_score


class Level(torch.nn.Module):
    """Reads the class off an image's grey level, in tenths."""

    def forward(self, images):
        values = images.flatten(1).mean(1)
        return values[:, None], -((values[:, None] * 10 - torch.arange(5.0)) ** 2)


def painted(classes):
    return (torch.as_tensor(classes) / 10).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


@pytest.fixture
def drawn():
    """What is shown and what was asked: the asked class under a permutation, with a third of it at random."""
    rng = np.random.default_rng(0)
    asked = rng.integers(0, 5, 60)
    shown = np.array([2, 0, 4, 1, 3])[asked]
    return np.where(rng.random(60) < 0.3, rng.integers(0, 5, 60), shown), asked


def fed(found, shown, asked):
    for part_ in np.array_split(np.arange(len(asked)), 3):
        found.update(painted(shown[part_]), torch.as_tensor(asked[part_]))
    return found


def test_accuracy(drawn):
    shown, asked = drawn
    found = fed(Accuracy(network=Level()), shown, asked)
    assert found.compute() == pytest.approx(accuracy_score(asked, shown)) and found.against == "label"


def test_assigned_accuracy(drawn):
    """The best of all 120 ways to name the codes."""
    shown, asked = drawn
    found = fed(AssignedAccuracy(network=Level()), shown, asked)
    ways = [accuracy_score(np.array(order)[asked], shown) for order in permutations(range(5))]
    assert found.compute() == pytest.approx(max(ways)) and max(ways) > sorted(ways)[-2] and found.against == "label"


def test_codes_that_share_a_class():
    """Of two codes for one class only the larger counts."""
    found = fed(AssignedAccuracy(network=Level()), np.array([0, 0, 0, 1]), np.array([2, 2, 3, 3]))
    assert found.compute() == 3 / 4
    assert fed(Accuracy(network=Level()), np.array([0, 0, 0, 1]), np.array([2, 2, 3, 3])).compute() == 0


def test_target_accuracy():
    found = TargetAccuracy()
    found.update(torch.zeros(3, 1, 2, 2), torch.tensor([1.0, 0, 1]))
    found.update(torch.zeros(1, 1, 2, 2), torch.tensor([1.0]))
    assert found.compute() == 3 / 4 and found.against == "right"


@pytest.mark.parametrize("name", ["accuracy", "assigned_accuracy", "target_accuracy"])
def test_more_is_better_and_nothing_is_an_error(name):
    found = part("metric", {"type": name} | ({"network": Level()} if name != "target_accuracy" else {}))
    values = []
    for right in (4, 2):
        if name == "target_accuracy":
            found.update(painted(range(4)), (torch.arange(4) < right).float())
        else:
            fed(found, np.arange(4) * (np.arange(4) < right), np.arange(4))
        values.append(found.compute())
        found.reset()
    assert values[0] > values[1] and is_better(name, values[0], values[1])
    with pytest.raises(ValueError, match="was added; call update first"):
        found.compute()


@pytest.mark.parametrize("name", ["accuracy", "assigned_accuracy"])
def test_misspelt_networks_are_found_at_once(name):
    with pytest.raises(ValueError, match=f"metric {name}: no network 'classifier.digit'.*did you mean 'classifier.d"):
        metric(f"{name}[classifier.digit]")
