"""Every example of the README runs, or at least is understood by the command line."""

import re
import shlex
from pathlib import Path

import pytest

from img2img import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)


def commands() -> list[list[str]]:
    found = []
    for language, text in BLOCKS:
        if language == "sh":
            for line in text.splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if words and words[0].endswith("img2img"):
                        found.append(words[1:])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_understood(words):
    cli.parser().parse_args(words)


def test_there_are_commands_of_every_kind():
    assert {words[0] for words in commands()} >= {"upscale", "train", "translate", "check", "prepare", "evaluate"}


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "python"])
def test_python_runs(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    scope = {}
    exec(compile(text, "README.md", "exec"), scope)  # our own text
    assert scope["big"].size == (448, 300)
    assert scope["half"].size == (168, 112)
    assert scope["frames"][0].shape == (300, 448, 3)


def test_ci_runs_the_readmes_own_command():
    lines = re.findall(r"^python3 -m venv .*$", README, re.M)
    assert len(lines) == 2
    assert lines[0].startswith("python3 -m venv .venv &&") and "img2img upscale" in lines[0]
    assert lines[1].startswith("python3 -m venv .venv-test &&") and lines[1].endswith("pytest")
    assert "grep -m1 '^python3 -m venv .venv-test' README.md" in (ROOT / ".ci/run").read_text()


def test_pictures_are_there():
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)|\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / (target[0] or target[1])).is_file()


@pytest.mark.parametrize("path", ["README.md", "models/README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_tables_are_whole(path):
    """Every row of a table has as many cells as its head, and every table a line below its head."""
    text = re.sub(r"^```.*?^```", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.M | re.S)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = block.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows]
        assert all(row.endswith("|") for row in rows) and len(set(cells)) == 1, rows[0]
        assert re.fullmatch(r"[|: -]+", rows[1]), rows[0]
