"""Pairs from two folders or from halves."""

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data.pairs import Pairs


def rng(number=0):
    return np.random.default_rng(number)


def test_two_folders(pairs):
    found = Pairs(pairs / "train", 32)
    assert len(found) == 4
    for index in range(4):
        item = found.item(index, rng())
        assert item["input"].shape == item["target"].shape == (3, 32, 32)
        assert torch.allclose(item["input"], -item["target"], atol=1e-6), "the target is the negative"
    assert Pairs(pairs / "train", 16, 1).item(0, rng())["input"].shape == (1, 16, 16)


def test_crop_and_flip_are_shared(pairs):
    moved = Pairs(pairs / "train", 32, flip=True, jitter=8)
    inputs = [moved.item(0, rng(number)) for number in range(30)]
    for item in inputs:
        assert item["input"].shape == (3, 32, 32)
        assert (item["input"] + item["target"]).abs().max() <= 2.1 / 127.5  # each side is enlarged and rounded
    assert len({item["input"].numpy().tobytes() for item in inputs}) > 20
    again = moved.item(0, rng(7))
    assert torch.equal(again["input"], inputs[7]["input"])


def test_halves(tmp_path, smooth):
    left = smooth(0, 24, 24)
    Image.fromarray(np.hstack([left, 255 - left])).save(tmp_path / "a.png")
    Image.fromarray(np.hstack([left, 255 - left, left[:, :1]])).save(tmp_path / "b.png")  # odd: the last column is left
    Image.new("RGB", (1, 5)).save(tmp_path / "thin.png")  # no two halves
    found = Pairs(tmp_path, 24)
    assert len(found) == 2
    for index in range(2):
        item = found.item(index, rng())
        assert torch.equal(item["input"], torch.from_numpy(left.transpose(2, 0, 1).copy()).float() / 127.5 - 1)
        assert torch.allclose(item["input"], -item["target"], atol=1e-6)


def test_extensions_may_differ_and_order_does_not_matter(tmp_path, smooth):
    for side, extension in (("A", "png"), ("B", "bmp")):
        (tmp_path / side / "deep").mkdir(parents=True)
        for name in ("b", "a", "deep/c", "x.y"):
            pixels = smooth(len(name) + ord(name[0]), 16, 16)
            Image.fromarray(pixels if side == "A" else 255 - pixels).save(tmp_path / side / f"{name}.{extension}")
    found = Pairs(tmp_path, 16)
    assert len(found) == 4
    for index in range(4):
        item = found.item(index, rng())
        assert torch.allclose(item["input"], -item["target"], atol=1e-6)


def test_a_missing_partner(pairs, tmp_path, smooth):
    for side, names in (("A", "ab"), ("B", "b")):
        (tmp_path / side).mkdir()
        for name in names:
            Image.fromarray(smooth(0, 16, 16)).save(tmp_path / side / f"{name}.png")
    with pytest.raises(ValueError, match="A/a has no partner in B/"):
        Pairs(tmp_path, 16)


def test_a_damaged_half_takes_its_partner_with_it(tmp_path, smooth, capsys):
    for side in "AB":
        (tmp_path / side).mkdir()
        for place in range(4):
            pixels = smooth(place, 16, 16)
            Image.fromarray(pixels if side == "A" else 255 - pixels).save(tmp_path / side / f"{place}.png")
    (tmp_path / "A" / "0.png").write_bytes(b"no")
    (tmp_path / "B" / "2.png").write_bytes(b"no")
    found = Pairs(tmp_path, 16)
    assert len(found) == 2
    for index in range(2):
        item = found.item(index, rng())
        assert torch.allclose(item["input"], -item["target"], atol=1e-6)
    assert capsys.readouterr().err.count("(skipped)") == 2
