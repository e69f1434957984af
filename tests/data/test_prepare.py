import csv
import gzip
import hashlib
import http.server
import io
import json
import re
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from img2img.data import fetch as fetching
from img2img.data import prepare as module
from img2img.data.labelled import Labelled
from img2img.data.pairs import Pairs
from img2img.data.prepare import pages, prepare
from img2img.data.unpaired import Unpaired
from img2img.networks.classifier import trained

PAGE = """
name = "tiny"
about = "Six squares."
licence = "CC0"
counts = {{ train = 4, validation = 2 }}

[[source]]
name = "squares"
from = "file:{archive}"
sha256 = "{sha256}"
licence = "CC0"

[[arrange]]
type = "images"
source = "squares"
members = ["in/*.png"]
leave_out = ["*/drawing.png"]
minimum = 8
reduce = 2
every = 3
"""


def png(array, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, members):
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def page(tmp_path, members, text=PAGE):
    archive = tmp_path / "source.tgz"
    sha256 = pack(archive, members)
    (tmp_path / "tiny.toml").write_text(text.format(archive=archive, sha256=sha256))
    return tmp_path / "tiny.toml"


@pytest.fixture
def squares():
    rng = np.random.default_rng(0)
    members = {f"in/{name}.png": png(rng.integers(0, 256, (9, 11, 3), np.uint8)) for name in "fbdace"}
    members["in/drawing.png"] = members["in/a.png"]
    members["in/small.png"] = png(np.zeros((7, 30, 3), np.uint8))
    members["else/g.png"] = members["in/a.png"]
    return members


def images(folder):
    found = [path for path in folder.rglob("*.png") if not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in found}


def head(text):
    """The sources of PAGE, with other arrangements and counts."""
    counts, arrange = text.split("\n", 1)
    start = PAGE.split("[[arrange]]")[0].replace("{{ train = 4, validation = 2 }}", "{{ " + counts + " }}")
    return start + arrange


def test_images(tmp_path, squares):
    out = prepare(page(tmp_path, squares), tmp_path / "out")
    found = images(out)
    assert sorted(found) == [
        "train/b.png", "train/c.png", "train/e.png", "train/f.png", "validation/a.png", "validation/d.png",
    ]  # fmt: skip
    whole = Image.open(io.BytesIO(squares["in/b.png"]))
    assert (found["train/b.png"] == np.asarray(whole.resize((5, 4), Image.Resampling.LANCZOS, box=(0, 0, 10, 8)))).all()
    record = json.loads((out / "dataset.json").read_text())
    assert record["counts"] == {"train": 4, "validation": 2}
    assert record["complete"]
    assert record["licence"] == "CC0"
    assert record["sources"][0]["sha256"] == hashlib.sha256((tmp_path / "source.tgz").read_bytes()).hexdigest()
    assert {path.name for path in out.iterdir()} == {"train", "validation", "dataset.json", ".lock"}


def test_everything_becomes_upright_rgb(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    turned = io.BytesIO()
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(turned, "PNG", exif=exif)
    members = {"in/a.png": png(np.full((4, 8), 7, np.uint8)), "in/b.png": turned.getvalue()}
    members["in/c.png"] = png(np.zeros((4, 8, 4), np.uint8))
    text = head('train = 3\n[[arrange]]\ntype = "images"\nsource = "squares"\nmembers = ["*"]')
    found = images(prepare(page(tmp_path, members, text), tmp_path / "out"))
    assert found["train/a.png"].shape == (4, 8, 3)
    assert (found["train/a.png"] == 7).all()
    assert found["train/b.png"].shape == (8, 4, 3)
    assert (found["train/c.png"] == 255).all()  # transparent: white


def test_same_command_again_does_only_what_is_missing(tmp_path, squares, monkeypatch):
    source = page(tmp_path, squares)
    out = prepare(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    lost = out / "train" / "c.png"
    content = lost.read_bytes()
    lost.unlink()
    written = []

    def noted(path, data, real=module._write):
        written.append(path.name)
        real(path, data)

    monkeypatch.setattr(module, "_write", noted)
    prepare(source, out)
    assert [name for name in written if name.endswith(".png")] == ["c.png"]
    assert lost.read_bytes() == content
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != lost)
    (tmp_path / "source.tgz").unlink()
    assert prepare(source, out) == out  # complete: not even the source is needed


def test_interrupted_run_goes_on(tmp_path, squares, monkeypatch):
    source = page(tmp_path, squares)

    def fails(path, data, real=module._write):
        if path.name == "e.png":
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", fails)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "dataset.json").read_text())["complete"]
    assert not list((tmp_path / "out").glob(".unpacked*"))
    assert len(images(prepare(source, tmp_path / "out"))) == 6


def test_default_place_is_the_cache(tmp_path, squares, monkeypatch):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    assert prepare(page(tmp_path, squares)) == tmp_path / "cache" / "datasets" / "tiny"


def test_folders_of_others_are_left_alone(tmp_path, squares):
    source = page(tmp_path, squares)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty"):
        prepare(source, tmp_path / "mine")
    with pytest.raises(ValueError, match="is a file"):
        prepare(source, tmp_path / "source.tgz")
    prepare(source, tmp_path / "out")
    source.write_text(source.read_text().replace("every = 3", "every = 4"))
    with pytest.raises(ValueError, match="another edition"):
        prepare(source, tmp_path / "out")
    (tmp_path / "out" / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        prepare(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('about = "Six squares."', "abuot = 1", "unknown key 'abuot'; did you mean 'about'"),
        ('licence = "CC0"\ncounts', "counts", "key 'licence' is missing"),
        ("minimum = 8", "minimun = 8", "arrange images: unknown key 'minimun'; did you mean 'minimum'"),
        ("minimum = 8", 'minimum = "8"', "minimum"),
        ('type = "images"', 'type = "image"', "unknown type 'image'; did you mean 'images'"),
        ('source = "squares"', 'source = "square"', "no source is named 'square'; did you mean 'squares'"),
        ('members = ["in/*.png"]', "", "key 'members' is missing"),
        ("train = 4", "train = 5", "4 train images where its page expects 5"),
        ("train = 4", "test = 4", "counts: expected train = NUMBER"),
        ('leave_out = ["*/drawing.png"]', "", "images where its page expects"),
        ('"*/drawing.png"', '"*/drawn.png"', "no file matches '\\*/drawn.png'"),
        ('name = "tiny"', "name = ", "not a TOML page"),
        ("file:", "ftp:", "is no source"),
        ('sha256 = "', 'sha256 = "0', "checksum"),
    ],
)
def test_faulty_pages(tmp_path, squares, old, new, message):
    source = page(tmp_path, squares)
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        prepare(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not images(tmp_path / "out")


def test_two_images_of_one_name(tmp_path, squares):
    squares["in/more/b.png"] = squares["in/a.png"]
    del squares["in/f.png"]  # the number is right
    with pytest.raises(ValueError, match="same name"):
        prepare(page(tmp_path, squares), tmp_path / "out")


def test_broken_image_names_the_set_and_the_file(tmp_path, squares):
    squares["in/b.png"] = squares["in/b.png"][:60]
    with pytest.raises(ValueError, match=r"data set tiny: .*b\.png"):
        prepare(page(tmp_path, squares), tmp_path / "out")


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown data set 'photo'; did you mean 'photos'"):
        prepare("photo")


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


IDX = """train = 4
[[arrange]]
type = "idx"
source = "squares"
images = "images.gz"
labels = "labels"
"""


def test_labelled_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
    members = {"images.gz": gzip.compress(idx(pixels)), "labels": idx(np.uint8([1, 0, 1, 2]))}
    found = images(prepare(page(tmp_path, members, head(IDX)), tmp_path / "out"))
    assert sorted(found) == ["train/0/00001.png", "train/1/00000.png", "train/1/00002.png", "train/2/00003.png"]
    assert (found["train/1/00002.png"] == pixels[2]).all()
    negative = images(prepare(page(tmp_path, members, head(IDX + "invert = true\n")), tmp_path / "negative"))
    assert (negative["train/1/00002.png"] == 255 - pixels[2]).all()
    named = head(IDX + 'classes = ["shoe", "bag", "hat"]\n')
    found = images(prepare(page(tmp_path, members, named), tmp_path / "named"))
    assert {name.split("/")[1] for name in found} == {"0_shoe", "1_bag", "2_hat"}


def test_two_domains_of_labelled_images(tmp_path):
    """A has every second image as it is; B has the edges of the others, and nothing where nothing is drawn."""
    pixels = np.zeros((4, 16, 16), np.uint8)
    pixels[:2, 4:12, 4:12] = 255
    members = {"images.gz": gzip.compress(idx(pixels)), "labels": idx(np.uint8([1, 0, 1, 2]))}
    edges = 'side = "B"\nhalf = "odd"\nmake = "edges"\ninvert = true\n'
    sides = IDX + 'side = "A"\nhalf = "even"\n' + IDX.split("\n", 1)[1] + edges
    found = images(prepare(page(tmp_path, members, head(sides)), tmp_path / "out"))
    assert sorted(found) == ["train/A/1/00000.png", "train/A/1/00002.png", "train/B/0/00001.png", "train/B/2/00003.png"]
    assert (found["train/A/1/00000.png"] == pixels[0]).all() and (found["train/B/2/00003.png"] == 0).all()
    drawn = found["train/B/0/00001.png"] == 255
    assert 16 < drawn.sum() < 64 and not drawn[7:9, 7:9].any() and not drawn[:2].any()


GLYPHS = """train = 30
[[arrange]]
type = "glyphs"
source = "squares"
fonts = ["squares"]
each = 3
"""


def test_digits_of_fonts(tmp_path):
    """A classifier that learnt from handwriting reads most of them, and no two drawings are alike."""
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    prepare(page(tmp_path, {"a.ttf": font.read_bytes()}, head(GLYPHS)), tmp_path / "out")
    drawn = Labelled(tmp_path / "out" / "train", 28)
    pixels, labels = torch.from_numpy(np.stack(list(drawn.images))).permute(0, 3, 1, 2), drawn.labels
    assert drawn.names == list("0123456789") and labels.bincount().tolist() == [3] * 10
    assert len(pixels.unique(dim=0)) == 30
    read = trained("digits")(pixels / 255)[1].argmax(1)
    assert (read == labels).double().mean() > 0.6
    for image in pixels[:, 0].numpy():  # placed as MNIST's are
        assert np.abs(np.add(ndimage.center_of_mass(image), 0.5) - 14).max() <= 0.51
        (rows,), (columns,) = np.nonzero(image.any(1)), np.nonzero(image.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20


@pytest.mark.parametrize("characters", ["", "0:", "aA", "00"])
def test_characters_that_make_no_folders(characters, tmp_path):
    wrong = head(GLYPHS + f'characters = "{characters}"\n')
    with pytest.raises(ValueError, match="letters and digits, each once"):
        prepare(page(tmp_path, {"a.ttf": b"x"}, wrong), tmp_path / "out")


def test_a_file_that_is_no_font(tmp_path):
    with pytest.raises(ValueError, match="cannot be made"):
        prepare(page(tmp_path, {"a.ttf": b"x"}, head(GLYPHS)), tmp_path / "out")


BLEND = """[[arrange]]
type = "blended"
source = "squares"
images = "images"
labels = "labels"
photos = "squares"
members = ["photos/*.png"]
every = 2
part = "{part}"
"""


def test_digits_on_photos(tmp_path):
    """Where the digit is black the photo shows, where it is white the photo's negative; no photo is on both sides."""
    pixels = np.zeros((4, 3, 3), np.uint8)
    pixels[:, 1, 1] = 255
    members = {"images": idx(pixels), "labels": idx(np.uint8([1, 0, 1, 2]))}
    for place in range(4):  # flat photos, so that the patch behind a digit tells which one it is of
        members[f"photos/{place}.png"] = png(np.full((6, 8, 3), (40 + place, 100, 200), np.uint8))
    made = head("train = 4, validation = 4\n" + BLEND.format(part="train") + BLEND.format(part="validation"))
    found = images(prepare(page(tmp_path, members, made), tmp_path / "out"))
    assert sorted(n for n in found if "train" in n) == [
        "train/0/00001.png",
        "train/1/00000.png",
        "train/1/00002.png",
        "train/2/00003.png",
    ]
    for name, image in found.items():
        behind = image[0, 0].astype(int)
        assert behind[0] - 40 in ((1, 3) if "train" in name else (0, 2)) and behind[1:].tolist() == [100, 200]
        assert (image[1, 1] == 255 - behind).all() and (image[2] == behind).all()


MOVING = """[[arrange]]
type = "moving"
source = "squares"
images = "{part}"
clips = 40
size = 20
part = "{part}"
"""


def clips(folder):
    """Return every clip below a folder by name, (H, W, 7): the frames seen, and those that follow."""
    found = {path.stem: np.load(path) for path in sorted((folder / "A").iterdir())}
    return {name: np.dstack([seen, Image.open(folder / "B" / f"{name}.png")]) for name, seen in found.items()}


def moving(tmp_path, name, more="", train=3, validation=2):
    """Return the clips of both parts: of ``train`` grey squares of 100, and ``validation`` squares of 200."""
    sides = {"train": np.full((train, 5, 4), 100, np.uint8), "validation": np.full((validation, 5, 4), 200, np.uint8)}
    made = "".join(MOVING.format(part=part) + more for part in sides)
    source = page(
        tmp_path, {part: idx(pixels) for part, pixels in sides.items()}, head("train = 80, validation = 80\n" + made)
    )
    out = prepare(source, tmp_path / name)
    return clips(out / "train"), clips(out / "validation")


def test_clips_move_straight_and_bounce(tmp_path):
    """One square a clip: whole in every frame, as far from frame to frame as its speed says, and never outside."""
    train, validation = moving(tmp_path, "out", "digits = 1\nspeed = [3.0, 3.0]\n")
    room, turns = np.array([15, 16]), 0
    for bright, found in ((100, train), (200, validation)):
        assert len(found) == 40 and all(
            np.isin(clip, (0, bright)).all() for clip in found.values()
        )  # no digit of the other
        for clip in found.values():
            assert clip.shape == (20, 20, 7) and (np.count_nonzero(clip, (0, 1)) == 20).all()
            places = np.array([np.argwhere(clip[..., time]).min(0) for time in range(7)])
            steps = np.diff(places, axis=0)
            turns += (np.abs(np.diff(np.sign(steps), axis=0)) == 2).any()
            near = np.sqrt(2) + 1e-9  # a pixel either way, by rounding both ends
            free = ((places > 3) & (places < room - 3)).all(1)
            assert (np.abs(np.hypot(*steps[free[1:] & free[:-1]].T) - 3) <= near).all()
    assert turns > 20


def test_ways_between_walls():
    """The triangle wave is a ball that turns whenever it has reached a wall, simulated in small steps."""
    room, rng = np.array([9.0, 4.0]), np.random.default_rng(0)
    for _ in range(20):
        start, velocity = rng.uniform(0, room), rng.uniform(-5, 5, 2)
        place, heading = start.copy(), velocity / 1000
        for step in range(1, 6001):
            place = place + heading
            over = (place < 0) | (place > room)
            place = np.where(place < 0, -place, np.where(place > room, 2 * room - place, place))
            heading = np.where(over, -heading, heading)
            if step % 1000 == 0:
                assert np.allclose(module.bounced(start + step // 1000 * velocity, room), place)


def test_clips_are_the_same_every_time(tmp_path):
    both = [moving(tmp_path, name) for name in ("one", "two")]
    other, small = moving(tmp_path, "other", "seed = 1\n"), moving(tmp_path, "small", "reduce = 2\n")
    for place in (0, 1):
        one, two = both[0][place], both[1][place]
        assert all((one[name] == two[name]).all() for name in one)
        assert not all((one[name] == other[place][name]).all() for name in one)
        halved = {name: clip.reshape(10, 2, 10, 2, 7).mean((1, 3)) for name, clip in one.items()}
        assert all(np.abs(small[place][name] - halved[name]).max() <= 0.5 for name in one)
        brightest = (100, 200)[place]
        counts = {np.count_nonzero(clip[..., 0]) for clip in one.values()}
        assert max(clip.max() for clip in one.values()) == brightest and 20 in counts and 40 in counts  # one or two


def test_clips_are_pairs_of_four_channels_and_three(tmp_path):
    train, _ = moving(tmp_path, "out")
    item = Pairs(tmp_path / "out" / "train", 20, 3, input_channels=4).item(7, np.random.default_rng(0))
    both = torch.cat([item["input"], item["target"]]).permute(1, 2, 0)
    assert torch.equal(((both + 1) * 127.5).round().byte(), torch.from_numpy(train["00007"]))
    (tmp_path / "out" / "train" / "A" / "00007.npy").unlink()
    prepare(tmp_path / "tiny.toml", tmp_path / "out")  # what is missing is noticed, though it is no image
    assert (tmp_path / "out" / "train" / "A" / "00007.npy").exists()


@pytest.mark.parametrize(
    "wrong", ["size = 5", "size = 20\nreduce = 3", "size = 20\nreduce = 0", "size = 20\ndigits = 0"]
)
def test_clips_that_do_not_fit(tmp_path, wrong):
    text = head("train = 80\n" + MOVING.format(part="train").replace("size = 20", wrong))
    with pytest.raises(ValueError, match="do not fit"):
        prepare(page(tmp_path, {"train": idx(np.zeros((2, 5, 4), np.uint8))}, text), tmp_path / "out")


def test_the_shipped_clips_hold_out_the_test_digits():
    held = {spec.get("part", "train"): spec["images"] for spec in module._page("moving_digits")["arrange"]}
    plain = {spec.get("part", "train"): spec["images"] for spec in module._page("digits")["arrange"]}
    assert held == plain and len(set(held.values())) == 2


FEW, WHOLE = idx(np.zeros(3, np.uint8)), idx(np.zeros(4, np.uint8))


@pytest.mark.parametrize("bad", [b"", b"\0\0\x08", FEW, WHOLE[:-1], b"x" * 20])
def test_damaged_labels(tmp_path, bad):
    members = {"images.gz": gzip.compress(idx(np.zeros((4, 5, 6), np.uint8))), "labels": bad}
    with pytest.raises(ValueError, match=r"IDX|belong together"):
        prepare(page(tmp_path, members, head(IDX)), tmp_path / "out")


def test_pairs_of_drawings(tmp_path):
    pytest.importorskip("resvg_py")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="4" height="8" fill="{}"/></svg>'
    members = {}
    for name in ("1-a", "1-b", "2-a", "3-skin", "4"):
        members |= {f"line/{name}.svg": svg.format("black").encode(), f"full/{name}.svg": svg.format("red").encode()}
    members["line/alone.svg"] = members["line/4.svg"]
    text = head(
        'train = 2, validation = 6\n[[arrange]]\ntype = "drawings"\nsource = "squares"\na = "line"\nb = "full"\n'
        'size = 16\nleave_out = ["*skin"]\nevery = 3\ngroup = "-"\n'
    )
    found = images(prepare(page(tmp_path, members, text), tmp_path / "out"))
    sides = {name for name in found if "/A/" in name}
    assert sides == {"validation/A/1-a.png", "validation/A/1-b.png", "train/A/2-a.png", "validation/A/4.png"}
    assert {name.replace("/A/", "/B/") for name in sides} == set(found) - sides
    pixels = found["train/B/2-a.png"]
    assert pixels.shape == (16, 16, 3)
    assert (pixels[8, 2] == (255, 0, 0)).all()
    assert (pixels[8, 13] == 255).all()  # nothing drawn: white
    assert (found["train/A/2-a.png"][8, 2] == 0).all()


def test_tiles_of_maps(tmp_path):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 256, (16, 24, 3), np.uint8)
    relief = rng.integers(0, 256, (32, 48, 3), np.uint8)
    land = np.zeros((16, 24, 3), np.uint8)
    land[..., 2] = 200  # sea
    land[4:, :4] = land[4:, 20:] = (90, 120, 60)
    members = {"a.png": png(relief), "b.png": png(target), "land.png": png(land)}
    text = head(
        'train = 4, validation = 4\n[[arrange]]\ntype = "maps"\nsource = "squares"\na = "a.png"\nb = "b.png"\n'
        'land = "land.png"\nsize = 4\ntop = 4\nbottom = 12\n'
    )
    found = images(prepare(page(tmp_path, members, text), tmp_path / "out"))
    tiles = [f"{part}_{x}.png" for part, x in (("train/A/{}", "0020"), ("validation/A/{}", "0000"))]
    wanted = [tile.format(y) for tile in tiles for y in ("0004", "0008")]
    assert sorted(name for name in found if "/A/" in name) == wanted
    assert (found["train/B/0004_0020.png"] == target[4:8, 20:24]).all()
    halved = relief.reshape(16, 2, 24, 2, 3).astype(float).mean((1, 3))
    assert np.abs(found["validation/A/0008_0000.png"] - halved[8:12, :4]).max() <= 1


def test_shipped_pages_are_sound():
    found = pages()
    assert {"photos", "digits", "fashion", "outlines", "maps_relief"} <= set(found)
    for name, path in found.items():
        read = module._page(path)
        assert read["name"] == name
        for source in read["source"]:  # registries keep a version as it is; an address may give anything
            assert len(source.get("sha256", "")) == (0 if source["from"].startswith("https:") else 64)
            assert "sha256" in source or "checksum is unknown" in " ".join(read["about"].split())


def test_tiles_without_partners(tmp_path):
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (8, 32, 3), np.uint8) for _ in range(2))
    members = {"a.png": png(left), "b.png": png(right), "land.png": png(np.full((8, 32, 3), 90, np.uint8))}
    text = head(
        'train = 10, validation = 8\n[[arrange]]\ntype = "hemispheres"\nsource = "squares"\na = "a.png"\nb = "b.png"\n'
        'land = "land.png"\nsize = 4\nstrip = [18, 28]\n'
    )
    found = images(prepare(page(tmp_path, members, text), tmp_path / "out"))
    columns = {}
    for name in found:
        part, side, tile = name.split("/")
        columns.setdefault(f"{part}/{side}", set()).add(int(tile[5:9]))
    # 16 and 24 straddle the strip's edges, or lie within it: only 20 and 24 are whole in [18, 28].
    assert columns == {
        "train/A": {28}, "train/B": {0, 4, 8, 12}, "validation/A": {20, 24}, "validation/B": {20, 24},
    }  # fmt: skip
    assert (found["train/A/0004_0028.png"] == left[4:, 28:]).all()
    assert (found["validation/A/0000_0020.png"] == left[:4, 20:24]).all()
    assert (found["validation/B/0000_0020.png"] == right[:4, 20:24]).all()


def test_emoji_and_captions(tmp_path):
    codes = ["1-a", "1-b", "2", "3", "4", "5-x", "5-y", "6", "7"]
    table = [
        {
            "name": f"NAME {code}",
            "unified": code,
            "image": f"{code}.png",
            "short_names": ["big_red", "red-dot"],
            "category": "Things, all",
            "subcategory": "dot-like",
            "has_img_one": True,
            "has_img_two": code != "7",
        }
        for code in codes
    ]
    members = {f"img/{code}.png": png(np.zeros((4, 4, 4), np.uint8)) for code in codes}
    members["emoji.json"] = json.dumps(table).encode()
    common = 'source = "squares"\ntable = "emoji.json"\nvendors = ["one", "two"]\nevery = 3\n'
    spec = '[[arrange]]\ntype = "emoji"\n' + common + 'images = "img"\nside = "{}"\n'
    text = head(
        "train = 5, validation = 6\n" + spec.format("A") + 'half = "even"\n' + spec.format("B") + 'half = "odd"\n'
        '[[arrange]]\ntype = "captions"\n' + common + 'sides = ["A", "B"]\n'
    )
    out = prepare(page(tmp_path, members, text), tmp_path / "out")
    found = images(out)
    assert all((image == 255).all() for image in found.values())  # transparent: white
    held = {f"validation/{side}/{code}.png" for side in "AB" for code in ("1-a", "1-b", "4")}
    assert set(found) - held == {
        "train/A/2.png", "train/B/3.png", "train/A/5-x.png", "train/A/5-y.png", "train/B/6.png",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "validation" / "captions.csv").open()))
    assert {row["file"] for row in rows} == {name.removeprefix("validation/") for name in held}
    assert rows[0] == {
        "file": "A/1-a.png",
        "name": "name 1-a",
        "category": "Things, all",
        "keywords": "big red dot like",
    }


# --- sets behind public addresses ---


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return the folder of a local server that answers in place of every https address."""
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "host"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    real = fetching._attempt
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        near = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(
            fetching, "_attempt", lambda url, *rest: real(near + url.removeprefix("https://").split("/", 1)[1], *rest)
        )
        yield folder
        server.shutdown()


def jpg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def put(folder, address, members):
    """Lay an archive where the local server has the path of an address."""
    path = folder / address.removeprefix("https://").split("/", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as bundle:
            for name, content in members.items():
                bundle.writestr(name, content)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return pack(path, members)


PLACES = {  # what the archives of each set are laid out like: the folders, and how many images we put into each
    "facades": [{"facades/train": 3, "facades/val": 2, "facades/test": 1}],
    "maps": [{"maps/train": 3, "maps/val": 2}],
    "edges2shoes": [{"edges2shoes/train": 3, "edges2shoes/val": 2}],
    "cityscapes": [{"cityscapes/train": 3, "cityscapes/val": 2}],
    **{
        name: [{f"{name}/trainA": 2, f"{name}/trainB": 3, f"{name}/testA": 1, f"{name}/testB": 2}]
        for name in ("horse2zebra", "summer2winter_yosemite", "monet2photo")
    },
    "div2k": [{"DIV2K_train_HR": 3}, {"DIV2K_valid_HR": 2}],
    **{name.lower(): [{f"{name}_HR": 3}] for name in ("Set5", "Set14", "BSD100", "Urban100")},
}


def classic(name):
    """Return members of small archives of a set's layout."""
    suffix = "png" if name.startswith(("div2k", "set", "bsd", "urban")) else "jpg"
    rng = np.random.default_rng(0)
    found = []
    for folders in PLACES[name]:
        members = {f"{next(iter(folders))}/._1.{suffix}": b"a file's shadow, as some systems pack them"}
        for folder, count in folders.items():
            for place in range(1, count + 1):
                pixels = rng.integers(0, 256, (8, 16, 3), np.uint8)
                members[f"{folder}/{place}.{suffix}"] = jpg(pixels) if suffix == "jpg" else png(pixels)
        found.append(members)
    return found


def shrunk(name, tmp_path):
    """Return the shipped page, with the counts of our small archives."""
    counts = {"train": 0, "validation": 0}
    for folder, count in ((folder, count) for folders in PLACES[name] for folder, count in folders.items()):
        held = folder.endswith(("val", "testA", "testB", "valid_HR")) or name.startswith(("set", "bsd", "urban"))
        counts["validation" if held else "train"] += 0 if folder.endswith("/test") else count
    text = pages()[name].read_text()
    line = "counts = { " + ", ".join(f"{part} = {count}" for part, count in counts.items()) + " }"
    (tmp_path / f"{name}.toml").write_text(re.sub(r"^counts = .*$", line, text, flags=re.M))
    return tmp_path / f"{name}.toml", counts


@pytest.mark.parametrize("name", PLACES)
def test_classic_sets(host, tmp_path, capsys, name):
    source, counts = shrunk(name, tmp_path)
    archives = classic(name)
    sums = [
        put(host, entry["from"], members)
        for entry, members in zip(module._page(source)["source"], archives, strict=True)
    ]
    out = prepare(source, tmp_path / "out")
    assert {part: module._count(out / part) for part in counts} == counts
    told = capsys.readouterr().err
    assert all(f'sha256 = "{digest}"' in told for digest in sums)
    contents = {content for members in archives for content in members.values()}
    kept = [path for path in out.rglob("*.*g") if path.is_file()]
    assert len(kept) == sum(counts.values()) and all(path.read_bytes() in contents for path in kept)
    if (out / "train" / "A").is_dir():
        assert len(Unpaired(out / "train", 8)) == 3 and len(Unpaired(out / "validation", 8, validation=True)) == 2
    elif name in ("facades", "maps", "edges2shoes", "cityscapes"):
        assert len(Pairs(out / "train", 8)) == 3 and len(Pairs(out / "validation", 8, direction="ba")) == 2
    capsys.readouterr()
    (lost := kept[0]).unlink()
    prepare(source, out)  # from the cache
    assert lost.exists() and "sha256" not in capsys.readouterr().err


def test_a_pinned_checksum_is_held_to(host, tmp_path):
    source, _ = shrunk("set5", tmp_path)
    digest = put(host, module._page(source)["source"][0]["from"], classic("set5")[0])
    text = source.read_text()
    source.write_text(text.replace('name = "set5"\nfrom', f'name = "set5"\nsha256 = "{"0" * 64}"\nfrom'))
    with pytest.raises(ValueError, match=f"checksum {digest} where 0000"):
        prepare(source, tmp_path / "out")
    source.write_text(text.replace('name = "set5"\nfrom', f'name = "set5"\nsha256 = "{digest}"\nfrom'))
    assert len(images(prepare(source, tmp_path / "pinned"))) == 3
