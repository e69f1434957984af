"""Two processes equal one that accumulates two batches."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import img2img
from img2img.cli import train_process
from img2img.engine import launch

STEPS = 4


@pytest.fixture
def options(pages, folders, tmp_path):
    def make(name, out, *changes):
        page = pages[name]
        page["train"] |= {"log_images": 1000, "ema": 0.9}
        if name == "translator":
            # What depends on the other images of a batch, or on dropped places of it, cannot be the same.
            page["networks"]["generator"] |= {"norm": "none"}
            page["networks"]["discriminator"] |= {"norm": "none"}
        else:
            page["networks"]["generator"] |= {"norm": "none"}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(page))
        images = STEPS * 4 * (5 if name == "painter" else 1)
        return {
            "recipe": str(path),
            "data": str(folders[name][0]),
            "validation": folders[name][1] and str(folders[name][1]),
            "out": str(tmp_path / out),
            "images": images,
            "set": list(changes),
            "device": "cpu",
            "precision": "fp32",
            "doctor": False,
            "progress": False,
        }

    return make


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("painter", []),
        ("translator", []),
        ("painter", ["augment=[{type='ada', images=100}]"]),
    ],
)
def test_two_processes_equal_one(name, changes, options, tmp_path):
    one = img2img.train(**options(name, "one", "train.accumulate=2", *changes))
    two = launch(train_process, options(name, "two", *changes), 2)
    first, second = (load_file(tmp_path / out / "last.safetensors") for out in ("one", "two"))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.allclose(tensor, second[key], rtol=0, atol=1e-6), (key, (tensor - second[key]).abs().max())
    assert one["step"] == two["step"] == STEPS and one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    logs = [(tmp_path / out / "log.jsonl").read_text().count("\n") for out in ("one", "two")]
    assert logs[0] == logs[1], "both processes write the log"
    # A run of one process goes on from a run of two.
    more = options(name, "two", "train.accumulate=2", *changes)
    assert img2img.train(**more | {"images": more["images"] * 2})["step"] == 2 * STEPS


def test_a_process_that_fails_says_why(options):
    with pytest.raises(
        ValueError, match="^[^:]*: unknown key 'bach'.* did you mean 'batch'|^painter.*did you mean 'batch'"
    ):
        launch(train_process, options("painter", "run", "train.bach=3"), 2)


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_an_interrupt_stops_all_processes_after_the_same_step(options, tmp_path):
    more = options("translator", "run", "train.log_images=4", "train.images=1000000")
    command = [sys.executable, "-m", "img2img.cli", "train", more["recipe"], "--data", more["data"], "-o", more["out"]]
    command += ["--device", "cpu", "--precision", "fp32", "--no-check", "--devices", "2"]
    command += [part for change in more["set"] for part in ("--set", change)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log, end = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while (
        not (log.is_file() and log.read_text().count("\n") >= 2) and process.poll() is None and time.monotonic() < end
    ):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C in a terminal does: every process gets it
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    # The run goes on from there, and ends where one that was never stopped does.
    steps = max(json.loads(line)["step"] for line in log.read_text().splitlines()) + 1
    change = {"images": 4 * steps, "set": ["train.log_images=4"]}
    img2img.train(**options("translator", "run") | change | {"set": [*change["set"], "train.accumulate=2"]})
    img2img.train(**options("translator", "one") | change | {"set": [*change["set"], "train.accumulate=2"]})
    first, second = (load_file(tmp_path / out / "last.safetensors") for out in ("run", "one"))
    for key, tensor in first.items():
        assert torch.allclose(tensor, second[key], rtol=0, atol=1e-5), key
