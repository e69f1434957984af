"""Folders of images, brought to one size."""

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data.images import Images, resize, shorter, signed, square


def test_images(tmp_path, smooth):
    Image.fromarray(smooth(0, 40, 20)).save(tmp_path / "a.png")
    Image.fromarray(smooth(1, 8, 8)).convert("L").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    images = Images(tmp_path, 16)
    assert len(images) == 2
    for index in range(2):
        real = images.item(index, np.random.default_rng(0))["real"]
        assert real.shape == (3, 16, 16) and real.dtype == torch.float32 and real.abs().max() <= 1
    assert Images(tmp_path, 16, 1).item(0, np.random.default_rng(0))["real"].shape == (1, 16, 16)


def test_flip_mirrors_half(tmp_path, smooth):
    Image.fromarray(smooth(0, 16, 16)).save(tmp_path / "a.png")
    plain = Images(tmp_path, 16).item(0, np.random.default_rng(0))["real"]
    images = Images(tmp_path, 16, flip=True)
    found = [images.item(0, np.random.default_rng(number))["real"] for number in range(100)]
    mirrored = sum(torch.equal(real, plain.flip(2)) for real in found)
    assert sum(torch.equal(real, plain) for real in found) + mirrored == 100
    assert 30 < mirrored < 70


def test_square_is_the_centre():
    pixels = np.arange(5 * 9 * 1, dtype=np.uint8).reshape(5, 9, 1)
    assert np.array_equal(square(pixels, 5), pixels[:, 2:7])
    assert np.array_equal(square(pixels.transpose(1, 0, 2), 5), pixels.transpose(1, 0, 2)[2:7])
    assert square(np.zeros((1, 1, 3), np.uint8), 4).shape == (4, 4, 3)


def test_resize():
    checks = np.indices((8, 8)).sum(0)[..., None].astype(np.uint8) % 2 * 200
    assert (resize(checks, 4, 4) == 100).all()  # by area
    assert resize(checks, 3, 17).shape == (3, 17, 1) and resize(checks, 20, 20).shape == (20, 20, 1)
    assert np.array_equal(resize(checks, 8, 8), checks)
    many = np.random.default_rng(0).integers(0, 255, (9, 10, 7), np.uint8)
    for size in ((4, 7), (20, 3)):
        planes = [resize(many[..., place : place + 1], *size) for place in range(7)]
        assert np.array_equal(resize(many, *size), np.dstack(planes))
    flat = np.full((3, 3, 3), 7, np.uint8)
    assert (resize(flat, 9, 9) == 7).all() and resize(flat[:, ::-1], 2, 2).shape == (2, 2, 3)


def test_signed():
    values = signed(np.array([[[0], [255]], [[51], [204]]], np.uint8))
    assert values.shape == (1, 2, 2)
    assert values.flatten().tolist() == pytest.approx([-1, 1, -0.6, 0.6])
    assert torch.equal(signed(np.array([[[0], [255]]], np.uint8), mirror=True).flatten(), torch.tensor([1.0, -1.0]))


def test_several_folders(tmp_path, smooth):
    for place in range(2):
        (tmp_path / str(place)).mkdir()
        Image.fromarray(smooth(place, 8, 8)).save(tmp_path / str(place) / "x.png")
    assert len(Images([tmp_path / "0", tmp_path / "1"], 8)) == len(Images(tmp_path, 8)) == 2


@pytest.mark.parametrize(("height", "width", "wanted"), [(40, 20, (32, 16)), (20, 50, (16, 40)), (7, 7, (16, 16))])
def test_shorter_side(height, width, wanted):
    assert shorter(np.zeros((height, width, 3), np.uint8), 16).shape == (*wanted, 3)
