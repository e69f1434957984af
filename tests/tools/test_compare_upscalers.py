"""The crops beside one another are those of the box, and a box that does not fit costs one line."""

import sys

import compare_upscalers as tool
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def call(photos, trained, tmp_path, monkeypatch):
    """Return a function that runs the tool on the first photos, of 80 x 64 and 64 x 72 pixels."""

    def run(*boxes, count=1):
        files = [photos / "train" / f"{place}.png" for place in range(count)]
        line = ["x", *files, "--models", trained["upscaler"], "--scale", 2, "-o", tmp_path / "out.png"]
        monkeypatch.setattr(sys, "argv", [str(part) for part in [*line, *(f"--box={box}" for box in boxes)]])
        tool.main()
        return files, np.asarray(Image.open(tmp_path / "out.png"))

    return run


def test_the_truth_is_the_box_of_the_photo(call):
    files, sheet = call("40,32,40,32", "0,0,16,8", count=2)
    assert sheet.shape == (22 + 64 + 6 + 16, 3 * 80 + 2 * 6, 3)
    for file, top, left, box in ((files[0], 22, 172, (40, 32, 80, 64)), (files[1], 92, 76, (0, 0, 16, 8))):
        truth = np.asarray(Image.open(file).crop(box))
        crop = sheet[top : top + 2 * truth.shape[0] : 2, left : left + 2 * truth.shape[1] : 2]
        assert np.array_equal(crop, truth)


@pytest.mark.parametrize(
    "boxes, count, reason",
    [
        (["1,2"], 1, "--box 1,2 for {0}: expected left,top,width,height in whole pixels, e.g. 180,60,128,128"),
        (["0,0,8,8", "0,0,8,x"], 2, "--box 0,0,8,x for {1}: expected left,top,width,height"),
        (["0,0,0,8"], 1, "--box 0,0,0,8 for {0}: expected left,top,width,height"),
        (["0,0,8,8"], 2, "1 --box for 2 photos, {1} has none; give one --box for each photo"),
        (["0,0,8,8"] * 2, 1, "2 --box for 1 photos; give one --box for each photo"),
        (["41,0,40,64"], 1, "--box 41,0,40,64 reaches out of {0}; choose one within 80 x 64 pixels"),
        (["0,1,80,64"], 1, "--box 0,1,80,64 reaches out of {0}; choose one within 80 x 64 pixels"),
        (["-1,0,8,8"], 1, "--box -1,0,8,8 reaches out of {0}; choose one within 80 x 64 pixels"),
    ],
)
def test_a_box_that_does_not_fit(boxes, count, reason, call, photos, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        call(*boxes, count=count)
    said = capsys.readouterr().err
    files = [photos / "train" / f"{place}.png" for place in range(2)]
    assert stop.value.code == 1 and said.startswith(f"compare_upscalers: {reason.format(*files)}")
    assert said.count("\n") == 1 and not (tmp_path / "out.png").exists()
