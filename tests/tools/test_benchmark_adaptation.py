"""Adaptation's three accuracies: on a game that is easily won, and what stands in the printed lines."""

import json
import shutil
import sys
from types import SimpleNamespace

import benchmark_adaptation as tool
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


@pytest.fixture
def sides(tmp_path):
    """The class is where a bar is; the target has the source's colours the other way round."""
    rng = np.random.default_rng(0)
    for side in ("source", "target"):
        for part in ("train", "validation"):
            for label in range(2):
                (tmp_path / side / part / str(label)).mkdir(parents=True)
                for number in range(16):
                    pixels = rng.integers(0, 30, (8, 8)).astype(np.uint8)
                    pixels[:, 1 + 4 * label : 3 + 4 * label] += 200
                    pixels = 255 - pixels if side == "target" else pixels
                    Image.fromarray(pixels).save(tmp_path / side / part / str(label) / f"{number}.png")
    return tmp_path / "source", tmp_path / "target"


class Negative(nn.Module):
    """A system that knows the right answer."""

    def __init__(self, **parts):
        super().__init__()
        self.recipe = SimpleNamespace(data=SimpleNamespace(size=8, channels=1, input_channels=0))
        for name, value in parts.items():
            setattr(self, name, value)

    def infer(self, images):
        return -images


def test_classifiers_of_adapted_images(sides, tmp_path, monkeypatch):
    """Inverted bars lie beside where they lay: what was learnt of the source is wrong, of adapted images right."""
    monkeypatch.setattr(tool.img2img, "train", lambda *_, **__: None)
    monkeypatch.setattr(tool.img2img, "load", lambda *_, **__: type("Pipe", (), {"system": Negative()})())
    found = tool.measure("simgan", sides, tmp_path / "run", seed=0, shown=640)
    assert found["adapted"] == found["target_only"] == 1 and found["source_only"] < 0.8
    assert found["error_cut"] == pytest.approx(1)
    own = Negative(classify=lambda images: (images[:, 0, 0, :4].mean(1) > images[:, 0, 0, 4:].mean(1)).long())
    monkeypatch.setattr(tool.img2img, "load", lambda *_, **__: type("Pipe", (), {"system": own})())
    assert tool.measure("pixelda", sides, tmp_path / "run", seed=0, shown=32)["adapted"] == 1


def test_classes_are_numbered_as_the_sources_where_some_lack(sides, tmp_path, monkeypatch):
    """A target of whose classes only the second is there."""
    for part in ("train", "validation"):
        shutil.rmtree(sides[1] / part / "0")
    monkeypatch.setattr(tool.img2img, "train", lambda *_, **__: None)
    monkeypatch.setattr(tool.img2img, "load", lambda *_, **__: type("Pipe", (), {"system": Negative()})())
    found = tool.measure("simgan", sides, tmp_path / "run", seed=0, shown=640)
    assert found["adapted"] == found["target_only"] == 1


def test_adapted_images():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(tool.adapted(Negative(), images), 255 - images)


def test_lines(sides, tmp_path, monkeypatch, capsys):
    line = ["x", "simgan", "--data", *sides, "-o", tmp_path / "runs", "--seeds", 2]
    sets = ["data.size=8", "networks.generator.width=4", "networks.discriminator.width=4", "validate.metrics=[]"]
    extra = [part for key in sets for part in ("--set", key)]
    monkeypatch.setattr(sys, "argv", [str(part) for part in [*line, *extra, "--images", 64, "--shown", 32]])
    tool.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(each) for each in lines[:2]]
    assert [row["seed"] for row in rows] == [0, 1]
    for name, text in zip(("source_only", "adapted", "target_only", "error_cut"), lines[2:], strict=True):
        values = [row[name] for row in rows]
        expected = f"{name}: {np.mean(values):.4f} +- {np.std(values, ddof=1):.4f} over 2 seeds"
        assert text[:12] == expected[:12] and text.endswith("over 2 seeds")
        assert float(text.split()[1]) == pytest.approx(np.mean(values), abs=1e-4)
