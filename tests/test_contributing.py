"""The walk-through of CONTRIBUTING.md, done as it says: its pages, its commands, a few steps each."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import tomli_w
from PIL import Image

from img2img import cli
from img2img.recipe import read, root
from img2img.registry import TABLES, lookup
from img2img.systems.system import Trial

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALK = re.search(r"^## Add a GAN in one page\n(.*?)^## ", TEXT, re.M | re.S)[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", WALK, re.M | re.S)
STEPS = {"runs/mine": ["--images", "1024"], "runs/mine_images": ["--images", "4", "--set", "train.batch=2"]}


def walk(text, capsys):
    """Run a block's commands and return what they print; what is trained takes a few steps only."""
    said = []
    for line in text.splitlines():
        program, *words = shlex.split(line)
        assert program == "img2img"
        few = STEPS[words[words.index("-o") + 1]] if words[0] == "train" else []
        assert cli.main([*words, *few]) == 0, line
        said.append(capsys.readouterr().out)
    return said


def test_a_gan_in_one_page(tmp_path, monkeypatch, capsys, squares):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(squares, "photos")
    installed = {path: path.stat().st_mtime_ns for path in root("models").rglob("*")}
    assert [language for language, _ in BLOCKS] == ["toml", "sh", "toml", "sh"]
    (_, page), (_, commands), (_, tables), (_, more) = BLOCKS

    assert "Save this as `mine.toml`" in WALK
    Path("mine.toml").write_text(page, encoding="utf-8")
    dry, log, found, _ = walk(commands, capsys)
    assert tomllib.loads(dry)["penalty"] == [{"type": "r1", "weight": 0.1}]
    assert json.loads(log)["images"] == 1024
    assert json.loads(found).keys() == {"modes[ring-8]", "confident[ring-8]", "diversity"}
    with Image.open("mine.png") as image:
        assert image.width > 100

    assert "saved as `mine_images.toml`" in WALK
    Path("mine_images.toml").write_text(tomli_w.dumps(tomllib.loads(page) | tomllib.loads(tables)), encoding="utf-8")
    log, _ = walk(more, capsys)
    assert json.loads(log)["images"] == 4
    with Image.open("mine_images.png") as sheet:
        assert sheet.size == (4 * 34 + 2, 4 * 34 + 2)
    assert read("runs/mine_images").adversarial == read("mine.toml").adversarial
    assert installed == {path: path.stat().st_mtime_ns for path in root("models").rglob("*")}


def test_what_a_metric_may_be_against():
    """Each is a field of what is tried out, and is named."""
    section = re.search(r"^## Add a metric\n(.*?)^## ", TEXT, re.M | re.S)[1]
    known = {getattr(lookup("metric", name), "against", "target") for name in TABLES["metric"]}
    assert known <= set(Trial._fields) and all(f'"{name}"' in section for name in known)
