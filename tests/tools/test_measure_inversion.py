"""Errors of the search: less than those of the start, and of the encoder's codes where there is one."""

import json
import sys

import measure_inversion as tool
import pytest
import torch

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


@pytest.mark.parametrize("name", ["alice", "dcgan"])
def test_command_line(name, squares, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    small = {"data.size": 8, "data.channels": 1, "networks.generator.width": 8, "networks.generator.latent": 6}
    recipe = read(name).override(small)
    system = build(recipe)
    for parameter in system.generator.parameters():
        parameter.data.mul_(4)  # images that differ by their latents, as a trained generator's do
    checkpoint.save(tmp_path / "last.safetensors", system.state_dict(), {"recipe": recipe.page()})
    found = []
    for steps in (0, 150):
        command = ["x", str(tmp_path), "--data", str(squares), "--images", "3", "--steps", str(steps)]
        monkeypatch.setattr(sys, "argv", command)
        tool.main()
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["images"] == 3 and found[1]["samples"]["drawn"] < 0.5 * found[0]["samples"]["drawn"]
    for kind in ("samples", "held out"):
        assert found[1][kind]["drawn"] < found[0][kind]["drawn"]
        assert ("encoder" in found[1][kind]) == (name == "alice")
        if name == "alice":
            assert found[0][kind]["encoder"] == found[0][kind]["encoder alone"] == found[1][kind]["encoder alone"]
            assert found[1][kind]["encoder"] < found[1][kind]["encoder alone"]
