"""The matcher's training: four captioned colours are told apart, and what is on the shelf is what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

TOOLS = Path(__file__).parent.parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import train_matcher

    return train_matcher


@pytest.fixture
def colours(tmp_path):
    named = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220), "black": (10, 10, 10)}
    for part in ("train", "validation"):
        (tmp_path / part).mkdir()
        rows = []
        for name, colour in named.items():
            pixels = np.full((16, 16, 3), 255, np.uint8)
            pixels[2:14, 2:14] = colour
            Image.fromarray(pixels).save(tmp_path / part / f"{name}.png")
            rows.append(f"{name}.png,{name}")
        (tmp_path / part / "captions.csv").write_text("\n".join(["file,name", *rows]) + "\n")
    return tmp_path


def test_colours_are_told_apart(tool, colours, tmp_path, monkeypatch, capsys):
    line = ["x", "--data", colours, "--name", "matcher.colours", "--shelf", tmp_path, "--size", 16]
    monkeypatch.setattr(sys, "argv", [str(part) for part in [*line, "--width", 4, "--epochs", 120]])
    tool.main()
    card = json.loads(capsys.readouterr().out)
    assert card["accuracy"] == card["accuracy_known"] == 1 and card["images"] == 4
    monkeypatch.setattr("img2img.networks.matcher.root", lambda _: tmp_path.parent)
    (tmp_path.parent / "classifiers").symlink_to(tmp_path)
    try:
        network = tool.CaptionAccuracy(network="matcher.colours").network
    finally:
        (tmp_path.parent / "classifiers").unlink()
    held = tool.Captioned(colours / "validation", 16, validation=True)
    assert tool.accuracy(network, held) == 1
    torch.manual_seed(0)
    assert tool.accuracy(tool.Matcher(width=4, size=16).eval(), held) < 1


def test_with_what_sentences_mean(tool, colours, monkeypatch, capsys):
    """The meanings alone, from a stand-in for the pretrained network, tell the colours apart too."""
    meanings = {name: torch.eye(384)[place] for place, name in enumerate(("red", "green", "blue", "black"))}
    monkeypatch.setattr(tool, "sentence", meanings.__getitem__)
    monkeypatch.setattr("img2img.networks.text_encoder._folder", lambda: None)
    line = ["x", "--data", str(colours), "--size", "16", "--width", "4", "--epochs", "120", "--sentences"]
    monkeypatch.setattr(sys, "argv", line)
    tool.main()
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1
    monkeypatch.setattr(sys, "argv", [*line, "--name", "matcher.colours"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "leave out --name" in capsys.readouterr().err
