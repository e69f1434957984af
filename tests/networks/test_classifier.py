"""The small classifier: shapes, its reader's contract, and the shipped weights with their cards."""

import hashlib
import json

import pytest
import torch

from img2img.networks.classifier import Classifier, Reader, trained
from img2img.networks.features import classifier
from img2img.recipe import root

SHELF = root("weights") / "classifiers"


@pytest.mark.parametrize("side", [12, 28, 32, 45])
def test_shapes(side):
    network = Classifier(5, 3, width=4, hidden=6)
    images = torch.rand(2, 3, side, side) * 2 - 1
    assert network(images).shape == (2, 5) and network.features(images).shape == (2, 6)
    assert torch.equal(network(images), network.head(network.features(images)))


def test_reader_brings_images_to_what_the_classifier_knows():
    network = Classifier(5, 1, width=4).eval()
    reader = Reader(network, 1, 16).eval()
    grey = torch.rand(2, 1, 16, 16)
    features, logits = reader(grey)
    assert torch.equal(logits, network(grey * 2 - 1)) and torch.equal(features, network.features(grey * 2 - 1))
    # The same picture in other forms reads the same.
    assert torch.allclose(reader(grey.expand(-1, 3, -1, -1))[1], logits, atol=1e-5)
    large = grey.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert reader(large)[1].argmax(1).tolist() == logits.argmax(1).tolist()
    assert Reader(Classifier(5, 3, width=4).eval(), 3, 16)(grey)[1].shape == (2, 5)


def test_unknown_name():
    with pytest.raises(ValueError, match="no classifier of 'digit'; did you mean 'digits'"):
        trained("digit")


CLASSIFIERS = sorted(path for path in SHELF.glob("*.safetensors") if not path.stem.startswith("matcher."))


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_every_card_is_true(path):
    card = json.loads((SHELF / "manifest.json").read_text())[path.stem]
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and card["bytes"] == path.stat().st_size
    assert card["accuracy"] > {"digits": 0.99, "fashion": 0.9, "digits_m": 0.93, "digits_edges": 0.98}[path.stem]
    with torch.no_grad():
        found = classifier(f"classifier.{path.stem}")(torch.rand(2, 3, 30, 30))
    assert found[1].shape == (2, len(card["classes"])) and not any(
        p.requires_grad for p in trained(path.stem).parameters()
    )


def test_there_is_a_card_for_each():
    assert sorted(json.loads((SHELF / "manifest.json").read_text())) == sorted(
        p.stem for p in SHELF.glob("*.safetensors")
    )
