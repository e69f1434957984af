"""Every metric of the registry: its interface, and which way is better, by outputs that are plainly better or worse."""

import inspect

import pytest
import torch
from torch import nn

from img2img.metrics import HIGHER_IS_BETTER
from img2img.registry import TABLES, lookup, options, part

# What these compare with is no set of images of the same size: files of their own have them.
ASKED = ("accuracy", "assigned_accuracy", "box_iou", "caption_accuracy", "consistency", "point_distance")
ASKED += ("target_accuracy",)
SETS = [name for name in TABLES["metric"] if inspect.isclass(lookup("metric", name)) and name not in ASKED]


class Brightest(nn.Module):
    """Takes the place of the brightest pixel for the class."""

    def forward(self, images):
        values = images.flatten(1)
        return values, 8 * values


def test_names_are_of_the_registry():
    assert set(TABLES["metric"]) >= HIGHER_IS_BETTER
    assert len(SETS) > 10


@pytest.mark.parametrize("name", SETS)
def test_interface(name):
    metric = part("metric", {"type": name}, border=4, channel="y")
    assert metric.against in ("real", "input", "target")
    assert "network" in options("metric", name)
    with pytest.raises(ValueError):
        metric.compute()


@pytest.mark.parametrize("name", [name for name in SETS if name not in ("neighbour_distance", "structure")])
def test_direction(name):
    """Real images show each of ten places lit; the better outputs too, the worse ones two of them, and grey."""
    generator = torch.Generator().manual_seed(0)
    lit = torch.eye(10).repeat(12, 1).view(-1, 1, 2, 5)
    real, better = (0.8 * lit + 0.2 * torch.rand(lit.shape, generator=generator) for _ in range(2))
    worse = 0.5 * better[torch.arange(120) % 2] + 0.2 * torch.rand(lit.shape, generator=generator)
    found = []
    for output in (better, worse):
        metric = part("metric", {"type": name, "network": "pixels" if name == "parzen" else Brightest()})
        for place in range(0, 120, 50):
            metric.update(output[place : place + 50], real[place : place + 50])
        found.append(metric.compute())
        assert isinstance(found[-1], float)
    assert (found[0] > found[1]) == (name in HIGHER_IS_BETTER) and found[0] != found[1], found


@pytest.mark.parametrize("name", [name for name in SETS if name != "structure"])
def test_misspelt_networks_are_found_at_once(name):
    with pytest.raises(ValueError, match=f"metric {name}: no network 'digit'.*; did you mean 'digits'"):
        part("metric", {"type": name, "network": "digit"})


@pytest.mark.parametrize("name", ["confident", "inception_score", "label_kept", "modes", "mode_divergence"])
def test_pixels_have_no_classes(name):
    with pytest.raises(ValueError, match=f"metric {name}: no network 'pixels'"):
        part("metric", {"type": name, "network": "pixels"})
