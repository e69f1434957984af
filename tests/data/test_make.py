"""Makers against closed forms and other libraries; folders of pairs made from folders of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.feature import canny

from img2img.data import make as module
from img2img.data.make import make_pairs
from img2img.data.pairs import Pairs
from img2img.registry import TABLES, part


def made(name, pixels, seed=0, **options):
    return part("make", {"type": name, **options})(pixels, np.random.default_rng(seed))


# --- makers ---


@pytest.mark.parametrize("name", TABLES["make"])
@pytest.mark.parametrize("shape", [(40, 56), (1, 1), (17, 3)])
def test_contract(smooth, name, shape):
    pixels = smooth(0, 64, 64)[: shape[0], : shape[1]]
    before = pixels.copy()
    found = made(name, pixels)
    assert found.dtype == np.uint8 and found.shape[:2] == shape and found.shape[2] in (1, 3)
    assert np.array_equal(found, made(name, pixels)) and np.array_equal(pixels, before)


def test_edges_are_those_of_another_library():
    """A disc: both must find one closed line, within a pixel of the true circle, and nothing else."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.where(np.hypot(x, y) < 20, 220, 40).astype(np.uint8)
    found = made("edges", np.dstack([disc] * 3))[..., 0]
    assert set(np.unique(found)) == {0, 255}
    radius = np.hypot(x, y)[found == 0]
    assert np.abs(radius - 20).max() < 1.5
    theirs = canny(disc, sigma=1)
    assert 0.8 < (found == 0).sum() / theirs.sum() < 1.3
    assert (ndimage.distance_transform_edt(~theirs)[found == 0] <= 1.5).all()


def test_soft_edges_follow_the_gradient(smooth):
    pixels = smooth(3)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    smoothed = ndimage.gaussian_filter(grey, 1, mode="mirror")
    steep = np.hypot(ndimage.sobel(smoothed, 0, mode="mirror"), ndimage.sobel(smoothed, 1, mode="mirror"))
    wanted = 255 * (1 - np.clip(steep / np.percentile(steep, 99), 0, 1))
    assert np.abs(made("soft_edges", pixels)[..., 0] - wanted).mean() < 2
    narrow, wide = (ndimage.gaussian_filter(grey, sigma, mode="mirror") for sigma in (1, 1.6))
    steep = np.abs(narrow - wide)
    wanted = 255 * (1 - np.clip(steep / np.percentile(steep, 99), 0, 1))
    assert np.corrcoef(made("soft_edges", pixels, filter="dog").ravel(), wanted.ravel())[0, 1] > 0.99
    assert (made("soft_edges", np.full((9, 9, 3), 90, np.uint8)) == 255).all()


@pytest.mark.parametrize("radius", [1, 2])
def test_outer_edges_are_another_librarys_dilation_without_the_image(smooth, radius):
    pixels = smooth(3)
    grey = made("grey", pixels)[..., 0]
    side = 2 * radius + 1
    wanted = 255 - (ndimage.grey_dilation(grey, (side, side), mode="nearest") - grey)
    assert np.array_equal(made("outer_edges", pixels, radius=radius)[..., 0], wanted)
    with pytest.raises(ValueError, match="outer_edges: radius is 0; it must be 1 or more"):
        made("outer_edges", pixels, radius=0)


def test_grey_is_pillows(smooth):
    found = made("grey", smooth(1))[..., 0].astype(int)
    assert np.abs(found - np.asarray(Image.fromarray(smooth(1)).convert("L"))).max() <= 1


def test_low_light():
    flat = np.full((200, 200, 3), 128, np.uint8)
    found = made("low_light", flat, gamma=2.0, gain=0.8, noise=5.0)
    assert found.mean() == pytest.approx(255 * 0.8 * (128 / 255) ** 2, abs=0.1)
    assert found.std() == pytest.approx(5, abs=0.1)
    assert (made("low_light", flat, gamma=1.0, gain=0.5, noise=0.0) == 64).all()


@pytest.mark.parametrize("shape", ["rectangles", "strokes"])
def test_masks(smooth, shape):
    pixels = np.minimum(smooth(2, 96, 96), 250)
    shares = []
    for seed in range(20):
        found = made("masks", pixels, seed, shape=shape, share=0.3)
        gone = (found == 255).all(2)
        assert np.array_equal(found[~gone], pixels[~gone])
        shares.append(gone.mean())
    assert min(shares) >= 0.3 and np.mean(shares) < 0.45 and len(set(shares)) > 15
    assert (made("masks", np.zeros((32, 32, 3), np.uint8), shape=shape, fill=7).max()) == 7


def test_blur_is_scipys(smooth):
    wanted = ndimage.gaussian_filter(smooth(4).astype(float), (2, 2, 0), mode="mirror")
    assert np.abs(made("blur", smooth(4), sigma=2.0) - wanted).max() < 2


def test_pixelate(smooth):
    pixels = smooth(5, 16, 24)
    found = made("pixelate", pixels, block=8)
    means = pixels.reshape(2, 8, 3, 8, 3).mean((1, 3))
    assert np.abs(found[::8, ::8] - means).max() <= 0.51
    assert np.array_equal(found, found[::8, ::8].repeat(8, 0).repeat(8, 1))
    assert np.array_equal(made("pixelate", pixels[:13, :21], block=1), pixels[:13, :21])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("edgs", "unknown make 'edgs'; did you mean 'edges'"),
        ({"type": "edges", "hihg": 3}, "make edges: unknown option 'hihg'; did you mean 'high'"),
        ({"type": "pixelate", "block": 0}, "block is 0"),
        ({"type": "masks", "share": 1.0}, "share 1.0"),
        ({"type": "blur", "sigma": 0}, "sigma is 0"),
    ],
)
def test_faulty_specs(photos, tmp_path, spec, message):
    with pytest.raises(ValueError, match=message):
        make_pairs(photos, spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- folders ---


@pytest.fixture
def source(tmp_path, smooth):
    for name, size in (("a.png", (40, 60)), ("deep/b.bmp", (32, 32)), ("c.png", (20, 30)), ("c.bmp", (20, 30))):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(len(name), *size)).save(path)
    return tmp_path / "photos"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_pairs_are_written_and_read_back(source, tmp_path):
    out = make_pairs(source, "grey", tmp_path / "out")
    names = {"a.png", "deep/b.png", "c_png.png", "c_bmp.png"}
    assert set(files(out)) == {f"{side}/{name}" for side in "AB" for name in names}
    assert np.array_equal(np.asarray(Image.open(out / "B" / "a.png")), np.asarray(Image.open(source / "a.png")))
    assert Image.open(out / "A" / "a.png").mode == "L"
    assert len(Pairs(out, 16, 3, input_channels=1)) == 4
    sized = make_pairs(source, {"type": "blur", "sigma": 1.0}, tmp_path / "sized", size=16)
    assert {Image.open(path).size for path in sized.rglob("*.png")} == {(16, 16)}


def test_made_images_follow_from_seed_and_name(source, tmp_path, smooth):
    one = files(make_pairs(source, "low_light", tmp_path / "one"))
    for name in "xyz":
        Image.fromarray(smooth(9)).save(source / f"{name}.png")
    more = files(make_pairs(source, "low_light", tmp_path / "more"))
    assert {name: more[name] for name in one} == one
    assert more["A/x.png"] != more["A/y.png"] and more["B/x.png"] == more["B/y.png"]
    other = files(make_pairs(source, "low_light", tmp_path / "other", seed=1))
    assert other["A/a.png"] != one["A/a.png"] and other["B/a.png"] == one["B/a.png"]


def test_the_same_command_does_only_what_is_missing(source, tmp_path, monkeypatch):
    out = make_pairs(source, "masks", tmp_path / "out", share=0.1)
    before = files(out)
    (out / "A" / "a.png").unlink()
    read = []
    monkeypatch.setattr(
        module, "rgb", lambda path, channels, real=module.rgb: (read.append(path), real(path, channels))[1]
    )
    make_pairs(source, {"type": "masks", "share": 0.1}, out)
    assert read == [source / "a.png"] and files(out) == before
    with pytest.raises(ValueError, match="made otherwise"):
        make_pairs(source, "masks", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty"):
        make_pairs(source, "grey", tmp_path / "mine")
    with pytest.raises(ValueError, match="lies within"):
        make_pairs(source, "grey", source / "out")


def test_a_prepared_set_keeps_its_parts(source, tmp_path):
    files = sorted(source.rglob("*.*"))
    for place, some in (("train", files[1:]), ("validation", files[:1])):
        (tmp_path / "set" / place).mkdir(parents=True)
        for file in some:
            (tmp_path / "set" / place / file.name).write_bytes(file.read_bytes())
    out = make_pairs(tmp_path / "set", "grey", tmp_path / "pairs")
    assert len(Pairs(out / "train", 16)) == len(files) - 1 and len(Pairs(out / "validation", 16)) == 1
    assert sorted(path.name for path in out.iterdir()) == ["made.json", "train", "validation"]


def test_one_bad_image_stops_nothing(source, tmp_path, capsys):
    (source / "a.png").write_bytes(b"no")
    out = make_pairs(source, "edges", tmp_path / "out")
    assert len(files(out)) == 6 and not list(out.rglob("*.partial*"))
    told = capsys.readouterr().err
    assert told.count("a.png") == 1 and "1 of 4 images cannot be read" in told
    for path in source.rglob("*.*"):
        path.write_bytes(b"no")
    with pytest.raises(ValueError, match="none of its 4 images"):
        make_pairs(source, "edges", tmp_path / "none")


def test_no_two_images_share_a_name():
    files = [Path(name) for name in ("a.JPG", "a.jpg", "a.png", "a_jpg.png", "b.png", "d/a.png")]
    found = module._names(files)
    assert len({path.as_posix().casefold() for path in found}) == len(files)
    assert found[3:] == [Path("a_jpg.png"), Path("b.png"), Path("d/a.png")]
    assert found[:3] == [Path("a_jpg_2.png"), Path("a_jpg_3.png"), Path("a_png.png")]
