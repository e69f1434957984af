import sys

import benchmark_translation as tool
import numpy as np
import pytest
from PIL import Image


def test_the_input_itself_and_a_model_stand_in_one_table(trained, pairs, monkeypatch, capsys):
    folder = pairs / "validation"
    arguments = [f"ours={trained['translator']}", "--data", folder, "--metrics", "l1,fid[pixels]"]
    monkeypatch.setattr(sys, "argv", ["benchmark_translation", *map(str, arguments)])
    tool.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | l1 | fid[pixels] |" and lines[2].startswith("| the input itself | ")
    assert lines[3].startswith("| ours | ")
    sides = [[np.asarray(Image.open(file), float) for file in sorted((folder / side).iterdir())] for side in "AB"]
    size = 16  # of the page; the files have 32 pixels, reduced by area
    sides = [[each.reshape(size, 2, size, 2, 3).mean((1, 3)).round() for each in side] for side in sides]
    wanted = np.mean([np.abs(a - b).mean() / 255 for a, b in zip(*sides, strict=True)])
    assert float(lines[2].split("|")[2]) == pytest.approx(wanted, abs=2e-3)
