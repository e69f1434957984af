"""Recall of rows whose ranks are known, drawings moved by whole pixels, and partners by name."""

import json
import sys

import measure_retrieval as tool
import numpy as np
import pytest
import torch
from PIL import Image

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


def rays(degrees):
    return torch.stack([torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()], 1)


def test_recalls():
    """Rays 10 degrees apart, turned by 32: up to six others are nearer, of the last ones as many as there are."""
    degrees = torch.arange(0, 120, 10).double()
    found = tool.recalls(5 * rays(degrees + 32), rays(degrees), (1, 2, 6, 7, 10))
    assert found == {f"recall@{k}": round(share / 12, 4) for k, share in ((1, 1), (2, 2), (6, 6), (7, 12), (10, 12))}
    assert tool.recalls(rays(degrees), rays(degrees)) == {"recall@1": 1, "recall@10": 1}
    # Twins cannot be told apart: neither is found first.
    twins = rays(degrees[[0, 0, 5]])
    assert tool.recalls(twins, twins, (1, 2)) == {"recall@1": 0.3333, "recall@2": 1}


def test_chance():
    torch.manual_seed(0)
    found = tool.recalls(torch.randn(2000, 40), torch.randn(2000, 40), (100,))
    assert found["recall@100"] == pytest.approx(0.05, abs=0.02)


def test_moved():
    image = torch.ones(40, 1, 9, 9)
    image[:, :, 4, 4] = -1
    found = tool.moved(image, 2, 0, 0)
    places = [torch.nonzero(each[0] < 0).tolist() for each in found]
    assert all(len(place) == 1 and max(abs(p - 4) for p in place[0]) <= 2 for place in places)
    assert len({tuple(place[0]) for place in places}) > 8 and (found.flatten(1).sum(1) == 79).all()
    assert torch.equal(tool.moved(image, 0, 0, 0), image)
    assert torch.equal(found, tool.moved(image, 2, 0, 0)) and not torch.equal(found, tool.moved(image, 2, 0, 0, 1))
    turned = tool.moved(image, 0, 30, 0.3)
    assert turned.min() < 0 and not torch.equal(turned, image) and (turned[:, :, 0, 0] == 1).all()


def drawn(folder, names, seed=0):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(folder / name)


def test_partners(tmp_path):
    drawn(tmp_path / "a", ["x.png", "y.png"])
    drawn(tmp_path / "b", ["x.png", "y.bmp"])
    drawn(tmp_path / "c", ["x.png", "z.png"])
    left, right = tool.partners(tmp_path / "a", tmp_path / "b", 16, 1)
    assert left.shape == (2, 1, 16, 16) and torch.equal(left, right) and left.min() < -0.9
    with pytest.raises(ValueError, match="y has no partner of that name"):
        tool.partners(tmp_path / "a", tmp_path / "c", 16, 1)
    (tmp_path / "b" / "y.bmp").write_bytes(b"no image")
    with pytest.raises(ValueError, match="remove what cannot be read"):
        tool.partners(tmp_path / "a", tmp_path / "b", 16, 1)


def test_command_line(tmp_path, monkeypatch, capsys):
    names = [f"{place}.png" for place in range(20)]
    drawn(tmp_path / "a", names)
    drawn(tmp_path / "b", names)
    recipe = read("dcgan").override({"data.size": 16, "data.channels": 1, "networks.discriminator.width": 4})
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "run" / "last.safetensors", build(recipe).state_dict(), {"recipe": recipe.page()})
    command = ["x", str(tmp_path / "a"), str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", [*command, "--run", str(tmp_path / "run")])
    tool.main()
    all_found, chance = {"recall@1": 1, "recall@10": 1}, {"recall@1": 0.05, "recall@10": 0.5}
    wanted = {"images": 20, "chance": chance, "pixels": all_found, "discriminator": all_found}
    assert json.loads(capsys.readouterr().out) == wanted
    monkeypatch.setattr(sys, "argv", [*command, "--size", "16", "--shift", "5"])
    tool.main()
    found = json.loads(capsys.readouterr().out)
    assert found["pixels"]["recall@1"] < 1 and "discriminator" not in found
