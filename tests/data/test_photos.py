"""Crops and their reduced versions."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data import photos as module
from img2img.data.images import files_in
from img2img.data.photos import Crops, Store, Whole, images_in, rgb


@pytest.fixture
def folder(tmp_path, smooth):
    for place, shape in enumerate([(40, 50), (33, 64), (64, 32)]):
        Image.fromarray(smooth(place, *shape)).save(tmp_path / f"{place}.png")
    return tmp_path


def test_images_in(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "x.JPG").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    (folder / "z.png").mkdir()
    assert [path.name for path in images_in(folder)] == ["0.png", "1.png", "2.png", "x.JPG"]
    with pytest.raises(ValueError, match="no such folder"):
        images_in(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="no image files in it"):
        images_in(folder / "empty")


def test_links_lead_on_and_what_cannot_be_read_is_told(folder, tmp_path, capsys, monkeypatch):
    """A link out of the folder is followed, once; one to a place below it is not, and a loop ends."""
    before = images_in(folder)
    far = tmp_path.with_name(f"{tmp_path.name}-far")
    far.mkdir()
    Image.new("RGB", (4, 4)).save(far / "far.png")
    (far / "back").symlink_to(folder)
    (folder / "link").symlink_to(far)
    (folder / "twice").symlink_to(far)
    (folder / "below").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "below" / "z.png")
    (folder / "again").symlink_to(folder / "below")
    assert images_in(folder) == sorted([*before, folder / "link" / "far.png", folder / "below" / "z.png"])
    assert files_in(folder) == images_in(folder) and not capsys.readouterr().err
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert folder / "below" / "z.png" not in files_in(folder)
    assert capsys.readouterr().err == f"{folder / 'below'}: Permission denied; what is in it is left out\n"
    with pytest.raises(ValueError, match="z.png: is a file; name its folder"):
        images_in(folder / "below" / "z.png")


def test_rgb(tmp_path):
    def saved(pixels, mode=None):
        Image.fromarray(np.asarray(pixels), mode).save(tmp_path / "x.png")
        return tmp_path / "x.png"

    grey = saved(np.array([[0, 100]], np.uint8))
    assert rgb(grey).tolist() == [[[0] * 3, [100] * 3]] and rgb(grey, 1).tolist() == [[[0], [100]]]
    half = saved(np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], np.uint8))
    assert rgb(half).tolist() == [[[200, 0, 0], [255, 255, 255], [244, 204, 204]]]
    assert rgb(half, 1).shape == (1, 3, 1)
    deep = saved(np.array([[0, 257 * 9, 65535]], np.uint16))
    assert rgb(deep, 1).ravel().tolist() == [0, 9, 255]
    with pytest.raises(module.picture.UnreadableImage):
        (tmp_path / "y.png").write_bytes(b"no")
        rgb(tmp_path / "y.png")


def test_store_decodes_once_and_names_what_it_skips(folder, capsys, monkeypatch):
    (folder / "bad.png").write_bytes(b"no image")
    files = images_in(folder)
    store = Store(files)
    assert store.skipped == [folder / "bad.png"] and len(store) == 3
    error = capsys.readouterr().err
    assert error.count("bad.png") == 1 and "(skipped)" in error
    assert all(np.array_equal(store[i], np.asarray(Image.open(path))) for i, path in enumerate(store.files))
    with pytest.raises(ValueError, match="read-only"):
        store[0][0, 0] = 0
    monkeypatch.setattr(module, "rgb", lambda *_: pytest.fail("decoded again"))
    (folder / "bad.png").unlink()
    assert len(Store(images_in(folder))) == 3
    monkeypatch.undo()
    Image.new("RGB", (5, 6)).save(folder / "0.png")  # a changed file is decoded anew
    assert Store(images_in(folder))[0].shape == (6, 5, 3)
    assert Store(images_in(folder), 1)[0].shape == (6, 5, 1)
    small = Store(images_in(folder), 3, "half", lambda pixels: pixels[::2, ::2])
    assert small[0].shape == (3, 3, 3) and Store(images_in(folder))[0].shape == (6, 5, 3)


def test_store_takes_few_maps_and_small_pickles(folder, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 2)
    store = Store(images_in(folder))
    total = sum(store[i % 3].astype(int).sum() for i in range(9))
    assert len(store._open) <= 2 and total > 0
    data = pickle.dumps(store)
    assert len(data) < 2000, "pixels are in the pickle"
    assert np.array_equal(pickle.loads(data)[1], store[1])


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_crops_are_pieces_of_the_photos(scale, folder):
    crops = Crops(folder, 16, scale, {"type": "bicubic"}, flip=False)
    photos = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    wholes = []
    for photo in photos:
        h, w = (side // scale for side in photo.shape[:2])
        photo = photo[: h * scale, : w * scale]
        wholes.append(np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.BICUBIC)))
    rng = np.random.default_rng(0)
    for index in range(len(crops)):
        item = crops.item(index, rng)
        given, target = (
            (item[k].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8) for k in ("input", "target")
        )
        assert target.shape == (16, 16, 3) and given.shape == (16 // scale, 16 // scale, 3)
        assert item["target"].dtype == torch.float32 and item["target"].min() >= 0 and item["target"].max() <= 1
        found = [
            (place, y, x)
            for place, photo in enumerate(photos)
            for y in range(0, photo.shape[0] - 15, scale)
            for x in range(0, photo.shape[1] - 15, scale)
            if np.array_equal(photo[y : y + 16, x : x + 16], target)
        ]
        assert found, "the target is no aligned piece of a photo"
        place, y, x = found[0]
        side = 16 // scale
        assert np.array_equal(wholes[place][y // scale : y // scale + side, x // scale : x // scale + side], given)


def test_flips_and_turns_are_the_same_for_both(folder):
    still = Crops(folder, 16, 1, None, flip=False)
    seen = set()
    moved = Crops(folder, 16, 1, None, flip=True, rotate=True)
    for number in range(60):
        item = moved.item(0, np.random.default_rng(number))
        assert torch.equal(item["input"], item["target"])
        plain = still.item(0, np.random.default_rng(number))["target"]
        for turns in range(4):
            for mirror in (False, True):
                turned = torch.rot90(plain, turns, (1, 2))
                if torch.equal(turned.flip(2) if mirror else turned, item["target"]):
                    seen.add((turns, mirror))
    assert len(seen) == 8


def test_larger_photos_are_seen_more_often(tmp_path):
    Image.new("RGB", (16, 16), (0, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (48, 16), (255, 255, 255)).save(tmp_path / "b.png")
    crops = Crops(tmp_path, 16, 1, None)
    rng = np.random.default_rng(0)
    assert len(crops) == 4
    bright = [crops.item(int(rng.integers(4)), rng)["target"].mean().item() for _ in range(2000)]
    assert np.mean(bright) == pytest.approx(0.75, abs=0.03)


def test_flat_crops_are_drawn_again(tmp_path):
    pixels = np.zeros((16, 160, 3), np.uint8)
    pixels[::2, 80:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rng = np.random.default_rng(0)

    def flat(limit):
        crops = Crops(tmp_path, 16, 1, None, flat=limit)
        return np.mean([crops.item(0, rng)["target"].std().item() * 255 < 4 for _ in range(400)])

    assert flat(0.0) == pytest.approx(0.45, abs=0.1)
    assert flat(4.0) < 0.15


def test_a_degradation_is_applied_to_each_crop(folder):
    crops = Crops(folder, 16, 2, {"type": "realistic"})
    one, two = (crops.item(0, np.random.default_rng(number)) for number in (1, 1))
    assert torch.equal(one["input"], two["input"]) and one["input"].shape == (3, 8, 8)
    assert not torch.equal(one["input"], crops.item(0, np.random.default_rng(2))["input"])


def test_small_photos_are_left_out(folder):
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (3, 90)).save(folder / "line.png")
    crops = Crops(folder, 32, 4, None)
    assert len(crops.keep) == 3 and len(crops.small) == 3
    assert [crops.item(i, np.random.default_rng(i))["target"].shape for i in range(len(crops))]
    with pytest.raises(ValueError, match="no readable image is at least 128 pixels"):
        Crops(folder, 128, 4, None)
    with pytest.raises(ValueError, match=r"data.size 30 is not a multiple of data.scale 4; choose 28"):
        Crops(folder, 30, 4, None)
    assert len(Whole(folder, 32, 4, None)) == 3


def test_whole_takes_the_centre(folder):
    whole = Whole(folder, 24, 4, None, images=2)
    assert len(whole) == 2
    item = whole.item(0, np.random.default_rng(0))
    pixels = np.asarray(Image.open(folder / "0.png"))[8:32, 13:37]
    assert torch.equal(item["target"], torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255)
    small = Image.fromarray(pixels).resize((6, 6), Image.Resampling.BICUBIC)
    assert torch.equal(item["input"], torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy()).float() / 255)
    assert whole.item(1, np.random.default_rng(0))["target"].shape == (3, 24, 24)
    uneven = Whole(folder, 999, 4, None).item(1, np.random.default_rng(0))
    assert uneven["target"].shape == (3, 32, 64) and uneven["input"].shape == (3, 8, 16)
