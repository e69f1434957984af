import sys

import benchmark_translation as tool
import numpy as np
import pytest
from PIL import Image

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


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


def test_grey_inputs_and_sets_without_partners(tmp_path, monkeypatch, capsys):
    """The input itself, grey, counts as R = G = B; without a target an image of the other set is shown."""
    rng = np.random.default_rng(0)
    for side, shape in (("A", (8, 8)), ("B", (8, 8, 3))):
        (tmp_path / side).mkdir()
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(tmp_path / side / f"{side}{number}.png")
    page = read("simgan").override({"data.size": 8, "data.channels": 3, "data.input_channels": 1})
    page = page.override({"networks.generator.width": 4, "networks.discriminator.width": 4})
    tensors = {f"generator.{name}": value for name, value in build(page).generator.state_dict().items()}
    checkpoint.save(tmp_path / "x.safetensors", tensors, {"recipe": page.page()})
    line = ["x", tmp_path / "x.safetensors", "--data", tmp_path / "A", tmp_path / "B", "--metrics", "fid[pixels]"]
    monkeypatch.setattr(sys, "argv", list(map(str, [*line, "--picture", tmp_path / "grid.png", "--columns", 2])))
    tool.main()
    assert capsys.readouterr().out.splitlines()[2].startswith("| the input itself | ")
    found = np.asarray(Image.open(tmp_path / "grid.png"))
    given, other = (np.asarray(Image.open(tmp_path / side / f"{side}0.png")) for side in "AB")
    assert found.shape == (24, 16, 3) and np.array_equal(found[16:, :8], other)
    assert np.array_equal(found[:8, :8], np.dstack([given] * 3))


def test_models_that_cannot_be_compared_are_refused(trained, pairs, tmp_path, monkeypatch, capsys):
    other = tmp_path / "large.safetensors"
    tensors, header = checkpoint.load(trained["translator"] / "last.safetensors")
    header["recipe"]["networks"]["generator"]["depth"] = 4  # as 16 pixels allow
    header["recipe"]["data"]["size"] = 64
    checkpoint.save(other, tensors, header)
    cases = {
        (trained["translator"], "--direction", "ba"): "learnt the direction ab; choose --direction ab",
        (trained["translator"], other): "large.safetensors is judged at 64 pixels, and others at 16; judge it apart",
    }
    for arguments, message in cases.items():
        line = ["benchmark_translation", *arguments, "--data", pairs / "validation", "--metrics", "l1"]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        with pytest.raises(SystemExit):
            tool.main()
        assert message in capsys.readouterr().err


def test_pairs_are_drawn_as_columns(trained, pairs, tmp_path, monkeypatch, capsys):
    folder, drawn = pairs / "validation", tmp_path / "grid.png"
    arguments = [trained["translator"], trained["translator"], "--data", folder, "--metrics", "l1"]
    arguments += ["--picture", drawn, "--columns", 2]
    monkeypatch.setattr(sys, "argv", ["benchmark_translation", *map(str, arguments)])
    tool.main()
    found, size = np.asarray(Image.open(drawn), float), 16
    assert found.shape == (4 * size, 2 * size, 3), "inputs, two models, targets"
    for side, row in (("A", 0), ("B", 3)):
        first = np.asarray(Image.open(sorted((folder / side).iterdir())[0]), float)
        wanted = first.reshape(size, 2, size, 2, 3).mean((1, 3))
        assert np.abs(found[row * size : (row + 1) * size, :size] - wanted).max() <= 1
    assert np.array_equal(found[size : 2 * size], found[2 * size : 3 * size])
    assert not np.array_equal(found[size : 2 * size], found[:size])
