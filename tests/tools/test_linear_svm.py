"""Linear SVMs on features: which features, on data whose answer is known, and from the command line."""

import json
import sys

import linear_svm as tool
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


def test_features_are_the_maxima_of_a_grid():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(True), nn.Flatten(), nn.Linear(192, 5), nn.LeakyReLU(0.2))
    x = torch.randn(7, 1, 8, 8)
    maps = np.maximum(network[0](x).detach().numpy(), 0)
    grid = maps.reshape(7, 3, 4, 2, 4, 2).max((3, 5)).reshape(7, 48)
    found = tool.features(network, x, batch=3)
    assert np.allclose(found[:, :48], grid, atol=1e-6)
    assert torch.allclose(found[:, 48:], network(x), atol=1e-5)
    assert not network[1]._forward_hooks


def test_what_lines_can_part():
    digits = load_digits()
    rows, labels = digits.data, digits.target
    assert tool.accuracy(rows[:1000], labels[:1000], rows[1000:], labels[1000:]) > 0.9
    crossed = np.random.default_rng(0).standard_normal((800, 2))
    labels = (crossed.prod(1) > 0).astype(int)
    assert tool.accuracy(crossed[:400], labels[:400], crossed[400:], labels[400:]) < 0.65
    bent = np.concatenate([crossed, crossed.prod(1, keepdims=True)], 1)
    assert tool.accuracy(bent[:400], labels[:400], bent[400:], labels[400:]) > 0.85


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ValueError, match="need scikit-learn: pip install"):
        tool.accuracy(np.eye(4), np.arange(4), np.eye(4), np.arange(4))


def test_command_line(classes, tmp_path, monkeypatch, capsys):
    recipe = read("bigan").override({"data.size": 16, "networks.encoder.width": 4, "networks.generator.width": 4})
    torch.manual_seed(0)
    tensors = {name: value for name, value in build(recipe).state_dict().items() if name.startswith("encoder.")}
    checkpoint.save(tmp_path / "last.safetensors", tensors, {"recipe": recipe.page()})
    monkeypatch.setattr(tool, "accuracy", lambda learnt, labels, judged, truth: learnt.shape[0] + judged.shape[0])
    command = ["linear_svm", str(tmp_path), "--data", str(classes), "--images", "5"]
    monkeypatch.setattr(sys, "argv", [*command, "--role", "encoder"])
    tool.main()
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "images": 5,
        "judged": 5,
        "pixels": 10,
        "pixels_values": 256,
        "encoder": 10,
        "encoder_values": 4 * 16 + 8 * 16,
    }
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        tool.main()
    assert "holds no discriminator" in capsys.readouterr().err
