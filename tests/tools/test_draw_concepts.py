"""Directions against the closed form of a half space of normal latents, and what is drawn along them."""

import json
import math
import sys

import draw_concepts as tool
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from img2img import checkpoint
from img2img.pipeline import Pipeline
from img2img.recipe import read
from img2img.systems.system import build


class Grey(nn.Module):
    """A generator of 8 x 8 images as bright as the first number of a latent says."""

    latent = 4

    def forward(self, z):
        return torch.erf(z[:, :1, None, None] / 2**0.5).expand(-1, 1, 8, 8)


class Bright(nn.Module):
    """A classifier: class 1 is brighter than grey, class 2 is nothing."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return mean[:, None], torch.stack([0.5 - mean, mean - 0.5, torch.full_like(mean, -9)], 1) * 40


@pytest.fixture
def pipe():
    recipe = read("dcgan").override({"data.size": 8, "data.channels": 1})
    options = {"scale": 1, "channels": 1, "span": (-1.0, 1.0), "verb": "synthesize", "recipe": recipe}
    return Pipeline(Grey(), "grey", task="generate", **options).to("cpu", "fp32")


def folder_of(path, classes):
    for name, levels in classes.items():
        (path / name).mkdir(parents=True)
        for place, level in enumerate(levels):
            Image.fromarray(np.full((8, 8), level, np.uint8)).save(path / name / f"{place}.png")
    return path


def test_direction(pipe, tmp_path):
    """Of z > 0 and z < 0 the means are sqrt(2 / pi) and its negative; images of known levels have known latents."""
    found = tool.direction(pipe, Bright(), 1, samples=20_000)
    assert torch.allclose(found, torch.tensor([2 * math.sqrt(2 / math.pi), 0, 0, 0]), atol=0.05)
    levels = {"dark": [40, 60], "light": [180, 200]}
    normal = torch.distributions.Normal(0, 1)
    z = [normal.icdf(torch.tensor(each) / 255).mean() for each in levels.values()]
    found = tool.direction(pipe, Bright(), 1, folder=folder_of(tmp_path, levels), steps=400)
    assert found[0] == pytest.approx(float(z[1] - z[0]), abs=0.02)
    for label, kind in ((2, "none"), (0, "all")):
        folder = folder_of(tmp_path / kind, {"dark": [40, 60]})
        with pytest.raises(ValueError, match=f"class {label} is {kind} of"):
            tool.direction(pipe, Bright(), label, folder=None if label else folder, samples=64, steps=1)


def test_along(pipe):
    way = torch.tensor([1.0, 0, 0, 0])
    images, probability = tool.along(pipe, Bright(), 1, way, [0, 1, -2], count=64, seed=3)
    z = pipe.latents(64, 3)[:, 0]
    z = z[z < 0]
    wanted = torch.stack([torch.distributions.Normal(0, 1).cdf(z + step) for step in (0, 1, -2)], 1)
    assert images.shape == (len(z), 3, 1, 8, 8) and torch.allclose(images.mean((2, 3, 4)), wanted, atol=1e-5)
    assert torch.allclose(probability, (80 * (wanted - 0.5)).sigmoid().double(), atol=1e-3)


def test_command_line(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    for name, recipe in (("run", "dcgan"), ("asked", "cgan")):
        changes = {"data.size": 8, "data.channels": 1, "networks.generator.width": 4, "networks.generator.latent": 6}
        page = read(recipe).override(changes)
        system = build(page)
        for parameter in system.generator.parameters():
            parameter.data.mul_(4)  # images that differ by their latents, as a trained generator's do
        checkpoint.save(tmp_path / name / "last.safetensors", system.state_dict(), {"recipe": page.page()})
    monkeypatch.setattr(tool, "embedding", lambda network: Reads())

    def command(name, *more):
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / name), "-o", str(tmp_path / "out.png"), *more])
        tool.main()

    command("run", "--label", "1", "--samples", "500", "--count", "32", "--rows", "3", "--multiples", "0", "1", "2")
    found = json.loads(capsys.readouterr().out)
    assert found["rises"] and found["probability"] == sorted(found["probability"]) and 0 < found["samples"] < 32
    assert Image.open(tmp_path / "out.png").size == (3 * 10 + 2, 3 * 10 + 2)
    command("run", "--label", "1", "--samples", "500", "--multiples", "0", "-1", "1")
    assert not json.loads(capsys.readouterr().out)["rises"]
    for more, reason in ((["asked", "--label", "1"], "without classes"), (["run", "--label", "2"], "class 2 is none")):
        with pytest.raises(SystemExit) as stop:
            command(*more)
        assert stop.value.code == 1 and reason in capsys.readouterr().err


class Reads:
    """Stands for the shipped classifier: the left half is brighter than the right one, or not."""

    def probabilities(self, images):
        apart = images[..., :4].mean((1, 2, 3)) - images[..., 4:].mean((1, 2, 3))
        return torch.stack([-apart, apart, torch.full_like(apart, -9)], 1).mul(20).softmax(1)
