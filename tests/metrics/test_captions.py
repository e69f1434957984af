"""Captions found among ten, against scipy's hypergeometric law and against draws; and the shipped matcher."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from torch.nn import functional

from img2img.data.captioned import pieces
from img2img.metrics.captions import CaptionAccuracy
from img2img.networks.matcher import Matcher, matcher
from img2img.recipe import root

SHELF = root("weights") / "classifiers"


class Table(Matcher):
    """Knows captions and images by their first number, and how alike they are by a table."""

    def __init__(self, table):
        super().__init__(4, 4, 4)
        self.table = torch.as_tensor(table)

    def images(self, images):
        return self.table[images[:, 0, 0, 0].long()]

    def captions(self, pieces):
        return torch.eye(self.table.shape[1], dtype=self.table.dtype)[pieces[:, 0]]


def judged(table, asked):
    metric = CaptionAccuracy(network=Table(table))
    for part in torch.arange(len(asked)).split(7):
        images = part.float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        metric.update(images, torch.stack([asked[part], asked[part]], 1))
    return metric


def test_the_mean_over_all_choices_of_nine():
    """The right one of ten is found where none of those nearer is among the nine drawn without putting back."""
    rng = np.random.default_rng(0)
    table, asked = rng.random((60, 30)), torch.arange(60) % 30
    likeness = table - table[np.arange(60), asked.numpy()][:, None]
    nearer = (likeness > 0).sum(1)
    expected = np.mean([hypergeom(29, int(n), 9).pmf(0) for n in nearer])
    found = judged(table, asked)
    assert found.compute() == pytest.approx(expected, rel=1e-12) and found.against == "text"
    wins = 0
    for _ in range(4000):
        image = int(rng.integers(60))
        others = rng.choice(np.delete(np.arange(30), int(asked[image])), 9, replace=False)
        wins += likeness[image, others].max() < 0
    assert found.compute() == pytest.approx(wins / 4000, abs=0.03)


def test_few_captions_ties_and_chance():
    assert judged(np.eye(4), torch.arange(4)).compute() == 1
    assert judged(np.ones((4, 4)), torch.arange(4)).compute() == 0  # a network that cannot tell finds nothing
    # Of two captions the wrong one is nearer for one image of three.
    assert judged([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], torch.tensor([0, 1, 1])).compute() == pytest.approx(2 / 3)
    chance = judged(np.random.default_rng(1).random((4000, 40)), torch.arange(4000) % 40).compute()
    assert chance == pytest.approx(0.1, abs=0.012)
    metric = judged(np.eye(4), torch.arange(4))
    metric.reset()
    with pytest.raises(ValueError, match="no output was added"):
        metric.compute()


def test_matcher_is_blind_to_size_and_to_grey_as_colours():
    torch.manual_seed(0)
    network = Matcher(6, 4, 5, size=16).eval()
    grey = torch.rand(2, 1, 16, 16)
    found = network.images(grey)
    assert found.shape == (2, 6) and torch.allclose(found.norm(dim=1), torch.ones(2))
    assert torch.allclose(network.images(grey.expand(-1, 3, -1, -1)), found)
    assert network.images(grey.repeat_interleave(2, 2).repeat_interleave(2, 3)).shape == (2, 6)
    expected = functional.normalize(network.reader(grey.expand(-1, 3, -1, -1) * 2 - 1), dim=1)
    assert torch.equal(found, expected)
    assert network.captions(pieces("sun")[None]).norm().item() == pytest.approx(1)


def test_unknown_names():
    for name in ("matcher.emojy", "digits"):
        with pytest.raises(ValueError, match=f"no matcher '{name}'"):
            CaptionAccuracy(network=name)


@pytest.mark.parametrize("path", sorted(SHELF.glob("matcher.*.safetensors")), ids=lambda path: path.stem)
def test_every_card_is_true(path):
    card = json.loads((SHELF / "manifest.json").read_text())[path.stem]
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and card["bytes"] == path.stat().st_size
    # Chance is 0.1; names that it never saw are hard, those that it is to judge it has seen.
    assert card["bytes"] < 600_000 and card["accuracy"] > 0.3 and card["accuracy_known"] > 0.9
    network = matcher(path.stem)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert network.images(torch.rand(2, 3, 64, 64)).shape == (2, network.options["embedding"])
