"""Frames judged one by one: copies of the last one seen by hand, and predictions as the pipeline makes them."""

import json
import sys

import measure_prediction as tool
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import img2img
from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (3, 32, 32, 7), np.uint8)
    for side in "AB":
        (tmp_path / "clips" / side).mkdir(parents=True)
    for place, clip in enumerate(whole):
        np.save(tmp_path / "clips" / "A" / f"{place}.npy", clip[..., :4])
        Image.fromarray(clip[..., 4:]).save(tmp_path / "clips" / "B" / f"{place}.png")
    return tmp_path / "clips", whole


@pytest.fixture
def model(tmp_path):
    def save(**changes):
        recipe = read("gaze").override({"networks.generator.width": 4} | changes)
        torch.manual_seed(0)
        path = tmp_path / f"{len(changes)}.safetensors"
        checkpoint.save(path, build(recipe).state_dict(), {"recipe": recipe.page()})
        return path

    return save


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["measure_prediction", *map(str, arguments)])
    tool.main()


def test_copies_and_predictions(clips, model, monkeypatch, capsys):
    folder, whole = clips
    run(monkeypatch, f"ours={model()}", "--data", folder, "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["the last frame seen", "black frames", "ours"]
    last, after = whole[..., 3:4].repeat(3, 3), whole[..., 4:]
    net = build(read("gaze").override({"networks.generator.width": 4})).eval()
    tensors, _ = checkpoint.load(model())
    net.load_state_dict(tensors)
    seen = torch.from_numpy(whole[..., :4]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        made = ((net.generator(seen) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(img2img.load(model(), precision="fp32")(whole[0, ..., :4]), made[0])  # frames like any array
    for row, output in (("the last frame seen", last), ("black frames", after * 0), ("ours", made)):
        for frame, part in (("1", [0]), ("2", [1]), ("3", [2]), ("all", [0, 1, 2])):
            far = np.abs(output[..., part].astype(float) - after[..., part]).mean() / 255
            decibels = [peak_signal_noise_ratio(b[..., part], a[..., part]) for a, b in zip(output, after, strict=True)]
            assert found[row]["l1"][frame] == pytest.approx(far, abs=1e-5)
            assert found[row]["psnr"][frame] == pytest.approx(np.mean(decibels), abs=1e-3)


def test_the_table_and_the_picture(clips, model, tmp_path, monkeypatch, capsys):
    folder, whole = clips
    run(monkeypatch, model(), "--data", folder, "--picture", tmp_path / "drawn.png", "--clips", 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | l1 1 | l1 2 | l1 3 | l1 all | psnr 1 | psnr 2 | psnr 3 | psnr all |"
    assert len(lines) == 5 and lines[2].startswith("| the last frame seen | 0.")
    drawn = np.asarray(Image.open(tmp_path / "drawn.png"))
    assert drawn.shape == (2 * 32, (4 + 3 + 3) * 32 + 2 * 2)
    for line in np.split(drawn, 2):  # the clips come in a mixed order
        frames = np.stack(np.split(line[:, :128], 4, 1) + np.split(line[:, -96:], 3, 1), 2)
        assert (frames == whole).all((1, 2, 3)).sum() == 1
        assert (line[:, 128:130] == 128).all()


def test_models_of_other_frames_are_refused(clips, model, monkeypatch, capsys):
    folder, _ = clips
    other = model(**{"data.size": 64})
    with pytest.raises(SystemExit):
        run(monkeypatch, model(), other, "--data", folder)
    said = capsys.readouterr().err
    assert said == f"measure_prediction: {other} sees and predicts other frames than the first model; judge it apart\n"
