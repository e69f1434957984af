"""Brushes as they are written, figures worked out by hand, and what is drawn of a generator that can follow."""

import json
import sys

import edit_sample as tool
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


class Bright(nn.Module):
    """A classifier whose one feature is the mean, and class 1 brighter than grey."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return mean[:, None], torch.stack([0.5 - mean, mean - 0.5], 1) * 10


def test_brush():
    assert tool.brush("0,0.25,0.5,1=51") == ([0, 0.25, 0.5, 1], [0.2])
    assert tool.brush("0,0,1,1=255,0,102")[1] == [1, 0, 0.4]
    for text in ("0,0,1=5", "0,0,1,1", "0,0,1,1=", "0,0,1,1=1,2", "0,0,1,2=5", "0.5,0,0.5,1=5", "0,0,1,1=256", "a=b=c"):
        with pytest.raises(ValueError, match=f"--brush {text}: expected left,top,right,bottom in shares"):
            tool.brush(text)


def test_paint():
    images = torch.rand(2, 3, 8, 4)
    painted, mask = tool.paint(images, [([0, 0.5, 0.5, 1], [0.25]), ([0.5, 0, 1, 0.125], [0, 0.5, 1])])
    assert mask.shape == (1, 1, 8, 4) and mask.sum() == 4 * 2 + 2 and mask[0, 0, 4:, :2].min() == 1
    assert (painted[:, :, 4:, :2] == 0.25).all() and painted[1, :, 0, 3].tolist() == [0, 0.5, 1]
    untouched = mask.expand_as(images) == 0
    assert torch.equal(painted[untouched], images[untouched])
    with pytest.raises(ValueError, match="0,0,0.1,0.1: is less than a pixel of 4 x 8"):
        tool.paint(images, [([0, 0, 0.1, 0.1], [1])])
    with pytest.raises(ValueError, match="3 colours, and the images have 1; give a level"):
        tool.paint(images[:, :1], [([0, 0, 1, 1], [0, 0, 0])])


def test_figures():
    images, others = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    others[0, 1, :2] = 0.6
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    assert tool.apart(images, others, mask) == 0.1 and tool.apart(images, others, 1 - mask) == 0
    assert tool.apart(images, others, 0 * mask) == 0
    levels = {"sample": [0.2, 0.9], "painted": [0.7, 0.8]}
    sets = {name: torch.tensor(each)[:, None, None, None].expand(2, 1, 8, 8) for name, each in levels.items()}
    found = tool.judged(Bright(), sets, torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 8, 8))
    assert found["sample"]["distance"] == 0.15 and found["painted"]["distance"] == 0.25
    assert found["sample"]["class kept"] == 1 and found["painted"]["class kept"] == 0.5
    likely = 1 / (1 + np.exp(-20 * np.array([0.2, 0.3])))
    assert found["painted"]["confidence"] == round(float(likely.mean()), 3)


def test_command_line(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    for name, recipe in (("run", "dcgan"), ("asked", "cgan")):
        changes = {"data.size": 8, "data.channels": 1, "networks.generator.width": 4, "networks.generator.latent": 6}
        page = read(recipe).override(changes)
        system = build(page)
        for parameter in system.generator.parameters():
            parameter.data.mul_(4)  # images that differ by their latents, as a trained generator's do
        checkpoint.save(tmp_path / name / "last.safetensors", system.state_dict(), {"recipe": page.page()})
    monkeypatch.setattr(tool, "judged", lambda network, sets, others: {"sets": [*sets], "others": len(others)})

    def command(name, *more):
        arguments = ["x", str(tmp_path / name), "-o", str(tmp_path / "out.png"), "--count", "4", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        tool.main()

    more = ["--brush", "0,0,0.5,0.5=255", "--brush", "0,0.5,0.5,1=0", "--rows", "3", "--stay", "0"]
    command("run", *more)
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 4 and found["within"] < found["within before"] and "sets" not in found
    assert Image.open(tmp_path / "out.png").size == (6 * 10 + 2, 3 * 10 + 2)
    command("run", *more, "--network", "x", "--others", "9", "--way", "0")
    found = json.loads(capsys.readouterr().out)
    assert found["sets"] == ["sample", "painted", "followed"] and found["others"] == 9
    assert Image.open(tmp_path / "out.png").size == (3 * 10 + 2, 3 * 10 + 2)
    for name, brush, reason in (("asked", "0,0,1,1=9", "without classes"), ("run", "0,0,1,1", "expected left,top")):
        with pytest.raises(SystemExit) as stop:
            command(name, "--brush", brush)
        assert stop.value.code == 1 and reason in capsys.readouterr().err
