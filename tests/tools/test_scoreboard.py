"""Sections of the scoreboard: their pages fit together, a small one runs, goes on and fills its table."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scoreboard as board_tool
import torch
from PIL import Image

from img2img import checkpoint
from img2img.recipe import read, root
from img2img.systems.system import build
from img2img.trainer import Trainer

SCRIPT = Path(__file__).parents[2] / "tools" / "scoreboard.py"
STABILISERS = board_tool.section("stabilisers")
SECTIONS = sorted(path.stem for path in (root("models") / "scoreboards").glob("*.toml"))


@pytest.mark.parametrize("name", SECTIONS)
def test_every_run_of_a_section_is_a_valid_page(name):
    board = board_tool.section(name)
    assert len({board_tool.label(run) for run in board["run"]}) == len(board["run"]) and len(board["seeds"]) >= 3
    for run in board["run"]:
        recipe = board_tool.recipe_of(board, run)
        assert set(board["metrics"]) <= set(recipe.validate.metrics)
        assert recipe.train.images == board["images"]
        build(recipe)


@pytest.mark.parametrize("run", STABILISERS["run"], ids=board_tool.label)
def test_every_stabiliser_takes_steps(run, tmp_path):
    """Each differs from the plain game on its page, and after three steps in its weights, which are all finite."""
    cheap = {"train.images": 3 * 8, "train.batch": 8, "validate": {}, "train.checkpoint_images": 1000}
    weights = {}
    for each in (STABILISERS["run"][0], run):
        recipe = board_tool.recipe_of(STABILISERS, each).override(cheap)
        recipe = recipe.override({"train.images": 24 * recipe.schedule["discriminator"]})
        trainer = Trainer(recipe, [], tmp_path / board_tool.label(each), device="cpu", precision="fp32", progress=False)
        trainer.run()
        assert trainer.step == 3
        weights[board_tool.label(each)] = dict(trainer.system.named_parameters()), trainer.ema, recipe
    (plain, average, page), (found, own, other) = weights["none"], weights[board_tool.label(run)]
    assert all(value.isfinite().all() for value in found.values())
    if board_tool.label(run) == "none":
        return
    assert page != other
    same = all(torch.equal(plain[name], found[name]) for name in plain.keys() & found.keys())
    # The average only watches, ADA starts with no change at all, and a pool gives nothing back until it is full.
    watching = board_tool.label(run) in ("no average of weights", "ada, colour", "pool of 1,024 past fakes")
    assert same == watching and (len(own) == len(average) or "average" in board_tool.label(run))


def test_a_run_ends_with_what_started_it(tmp_path):
    """What one core trains is told to stop, as by Ctrl-C, when its parent is killed and cannot tell it so."""
    said = tmp_path / "said"
    child = (
        f"import os, signal, sys, time; sys.path.insert(0, {str(SCRIPT.parent)!r}); import scoreboard\n"
        f"def stop(number, frame): open({str(said)!r}, 'w').write(str(number)); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop); scoreboard.leave_with(os.getppid()); print('on', flush=True)\n"
        "time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        assert not said.is_file()
        process.kill()
        process.wait()
        for _ in range(200):
            if said.is_file() and said.read_text():
                break
            time.sleep(0.05)
    assert said.read_text() == str(int(signal.SIGTERM))


def test_figures():
    assert board_tool.figure([7.0, 8.0]) == "7.5 ± 0.707 (7, 8)"
    assert board_tool.figure([0.25]) == "0.25 (0.25)"
    assert board_tool.figure([1.0, float("inf")]) == "inf ± nan (1, inf)"
    assert board_tool.said("srresnet", "no such metric") == ""
    with pytest.raises(ValueError, match="no section 'ring'; known: .*ring-8"):
        board_tool.section("ring")


def test_a_section_runs_and_goes_on(tmp_path):
    board = tmp_path / "small.toml"
    board.write_text(
        """
about = "Small."
images = 256
seeds = [0, 1]
metrics = ["modes[ring-8]"]
[set]
"train.batch" = 64
"validate.images" = 50
[[run]]
page = "deligan"
[[run]]
name = "narrow"
page = "deligan"
set = { "networks.generator.width" = 8 }
"""
    )
    command = [sys.executable, str(SCRIPT), str(board), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| deligan", "| narrow"] and "--only narrow" in rows[1]
    assert (tmp_path / "out" / "table.md").read_text() == done.stdout
    for picture in ("clouds.png", "curves.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            assert min(image.size) > 100
    result = tmp_path / "out" / "narrow-1" / "result.json"
    first = json.loads(result.read_text())
    assert first["images"] == 256 and first["seconds"] > 0 and not first["failure"]
    assert "width = 8" in (tmp_path / "out" / "narrow-1" / "recipe.toml").read_text()
    more = subprocess.run(
        [*command, "--images", "512", "--only", "narrow"], capture_output=True, text=True, timeout=120
    )
    assert more.returncode == 0 and json.loads(result.read_text())["images"] == 512
    assert "no run 'wide'" in subprocess.run([*command, "--only", "wide"], capture_output=True, text=True).stderr


def test_what_went_wrong_stands_in_the_table(tmp_path):
    """A run that diverges, and one that cannot be built, cost the others neither table nor pictures."""
    board = tmp_path / "rough.toml"
    board.write_text(
        """
about = "Rough."
images = 256
seeds = [0]
metrics = ["modes[ring-8]"]
[set]
"train.batch" = 64
"train.validate_images" = 128
"validate.images" = 50
[[run]]
page = "deligan"
name = "too fast"
set = { "optimizer" = { type = "sgd", lr = 1e6 } }
[[run]]
page = "deligan"
name = "nothing hidden"
set = { "networks.discriminator.depth" = 0 }
[[run]]
page = "deligan"
"""
    )
    command = [sys.executable, str(SCRIPT), str(board), "-o", str(tmp_path / "out"), "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "depth = 0 must be 1 or more" in done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    names = ["| too fast (1 stopped early)", "| nothing hidden (1 failed)", "| deligan"]
    assert [row[0] for row in rows] == names and rows[1][1] == "" and float(rows[2][1].split()[0]) >= 0
    assert rows[1][-1].endswith("--seeds 1 --only 'nothing hidden'` |")
    for picture in ("clouds.png", "curves.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            assert min(image.size) > 100


def test_images_need_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scoreboard.py", "digits", "-o", str(tmp_path)])
    with pytest.raises(SystemExit):
        board_tool.main()
    assert "digits: learns from images; name their folder (--data)" in capsys.readouterr().err


def test_what_cannot_be_measured_is_no_result(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    small = {"networks.generator.width": 4, "networks.discriminator.width": 4, "data.size": 16, "train.images": 8}
    recipe = read("lsgan").override(small | {"train.batch": 4})
    with pytest.raises(ValueError, match="nothing was measured; name a folder with train/ and validation/"):
        board_tool.train_one(recipe, [squares], tmp_path / "run", 0)
    assert not (tmp_path / "run" / "result.json").exists()


FALLING = {"lr": 1e-3, "decay": "linear"}
LATER = {"lr": 1e-3, "generator": {"decay": "cosine"}}


@pytest.mark.parametrize("optimizer, anew", [(FALLING, True), (LATER, True), ({"lr": 1e-3}, False)])
def test_a_rate_that_falls_starts_anew_at_another_length(optimizer, anew, tmp_path, monkeypatch):
    """What comes out is what the new length alone gives; a rate that stands still goes on, and comes there too."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    small = {"networks.generator.width": 8, "networks.discriminator.width": 8, "train.batch": 64}
    small |= {"validate.images": 50, "optimizer": optimizer, "train.images": 128}
    recipe = read("deligan").override(small)
    longer = recipe.override({"train.images": 256})
    run = tmp_path / "run"
    board_tool.train_one(recipe, None, run, 0)
    (run / "mark").touch()
    # Another page of the same length is no reason.
    board_tool.train_one(recipe.override({"train.log_images": 64}), None, run, 0)
    assert (run / "mark").exists()
    found, alone = (board_tool.train_one(longer, None, folder, 0) for folder in (run, tmp_path / "alone"))
    assert (run / "mark").exists() == (not anew) and found["images"] == 256
    assert found["validation/modes[ring-8]"] == alone["validation/modes[ring-8]"]
    weights = [checkpoint.load(folder / "last.safetensors", "generator.")[0] for folder in (run, tmp_path / "alone")]
    assert weights[0] and all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_the_paper_said_stands_on_the_page():
    assert board_tool.said("unrolled", "modes[ring-8]").startswith("all 8")
