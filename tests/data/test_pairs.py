"""Pairs from two folders or from halves."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data.doctor import examine
from img2img.data.pairs import Pairs, partners
from img2img.data.stream import stream


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


# --- other layouts ---


def negatives(items):
    return all(torch.allclose(item["input"], -item["target"], atol=1e-6) for item in items)


def everything(found, number=0):
    return [found.item(index, rng(number)) for index in range(len(found))]


def test_two_folders_given_as_two(pairs):
    found = Pairs([pairs / "train" / "A", pairs / "train" / "B"], 32)
    assert [i["input"].tolist() for i in everything(found)] == [
        i["input"].tolist() for i in everything(Pairs([pairs / "train"], 32))
    ]
    with pytest.raises(ValueError, match="one folder or two, not from 3"):
        Pairs([pairs, pairs, pairs], 32)
    (lone := pairs.parent / "lone").mkdir()
    Image.new("RGB", (8, 8)).save(lone / "x.png")
    with pytest.raises(ValueError, match="no partner in"):
        Pairs([lone, pairs / "train" / "B"], 32)


@pytest.mark.parametrize("layout", ["folders", "halves", "table"])
def test_direction_and_channels(tmp_path, smooth, layout):
    left, right = smooth(0, 24, 24), smooth(1, 24, 24)
    if layout == "halves":
        Image.fromarray(np.hstack([left, right])).save(tmp_path / "x.png")
    else:
        for side, pixels in (("A", left), ("B", right)):
            (tmp_path / side).mkdir()
            Image.fromarray(pixels).save(tmp_path / side / "x.png")
    place = tmp_path
    if layout == "table":
        place = tmp_path / "pairs.csv"
        place.write_text("A/x.png,B/x.png\n")
    wanted = {"ab": (left, right), "ba": (right, left)}
    for direction, (given, target) in wanted.items():
        found = Pairs(place, 24, 3, input_channels=1, direction=direction)
        item = found.item(0, rng())
        assert item["input"].shape == (1, 24, 24)
        grey = np.asarray(Image.fromarray(given).convert("L"), np.float32)
        assert np.abs((item["input"][0].numpy() + 1) * 127.5 - grey).max() <= 1  # two roundings of one formula
        assert ((item["target"].numpy() + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0).tolist() == (
            target.tolist()
        )
    with pytest.raises(ValueError, match="neither 'ab' nor 'ba'"):
        Pairs(place, 24, direction="up")


def test_four_and_more_channels(tmp_path, smooth):
    pixels = np.dstack([smooth(0, 16, 16), smooth(1, 16, 16)[..., :1]])
    stack = np.dstack([smooth(2, 16, 16), smooth(3, 16, 16)])
    for side in "AB":
        (tmp_path / side).mkdir()
    for name in "xyz":
        Image.fromarray(pixels[..., : 3 if name == "y" else 4]).save(tmp_path / "A" / f"{name}.png")
        np.save(tmp_path / "B" / f"{name}.npy", stack[..., :5] if name == "z" else stack)
    found = Pairs(tmp_path, 16, 6, input_channels=4, augment={"rotate": 5.0, "turn": True})
    assert len(found) == 2  # z has another number of channels
    plain = Pairs(tmp_path, 16, 6, input_channels=4)
    for index, alpha in ((0, pixels[..., 3]), (1, np.full((16, 16), 255))):
        item = plain.item(index, rng())
        assert np.allclose((item["input"].numpy()[3] + 1) * 127.5, alpha, atol=1e-4)
        assert np.allclose((item["target"].numpy().transpose(1, 2, 0) + 1) * 127.5, stack, atol=1e-4)
        moved = found.item(index, rng())
        assert moved["input"].shape == (4, 16, 16) and moved["target"].shape == (6, 16, 16)
    with pytest.raises(ValueError, match="changes colours of the input, which has 4 channels"):
        Pairs(tmp_path, 16, 6, input_channels=4, augment={"hue": 0.1, "colour": "input"})


# --- tables ---


@pytest.fixture
def table(tmp_path, smooth):
    for place in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(smooth(place, 16, 16)).save(tmp_path / "in" / f"{place}, a.png")
        Image.fromarray(255 - smooth(place, 16, 16)).save(tmp_path / f"out{place}.bmp")

    def write(text, encoding="utf-8"):
        (tmp_path / "pairs.csv").write_bytes(text.encode(encoding))
        return tmp_path / "pairs.csv"

    return write


ROWS = '"in/0, a.png",out0.bmp\n"in/2, a.png",out2.bmp\n'


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "drawing,photo\n" + ROWS,
        "input,target\r\n" + ROWS.replace("\n", "\r\n") + "\r\n",
        'Target,who,INPUT\nout0.bmp,me,"in/0, a.png"\nout2.bmp,you,"in/2, a.png"\n',
        "\ufeff" + "input,target\n" + ROWS,
    ],
)
def test_table(table, text):
    found = Pairs(table(text), 16)
    assert len(found) == 2 and negatives(everything(found))


def test_one_input_may_have_several_targets(table):
    found = Pairs(table('"in/0, a.png",out0.bmp\n"in/0, a.png",out2.bmp\n'), 16)
    first, second = everything(found)
    assert torch.equal(first["input"], second["input"]) and not torch.equal(first["target"], second["target"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no pairs in it"),
        ("input,target\n", "no pairs in it"),
        ("in.png\n", "line 1 does not name two files"),
        (ROWS + "only.png,\n", "line 3 does not name two files"),
        ("input,target\n" + ROWS + "in/9.png,out0.bmp\n", "line 4: no such file .*in/9.png; paths are relative"),
        ('"in/0, a.png,out0.bmp\n', "not a readable CSV file"),
    ],
)
def test_faulty_tables(table, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Pairs(table(text), 16)
    assert "\n" not in str(caught.value)


def test_table_of_another_encoding(table, tmp_path):
    with pytest.raises(ValueError, match="UTF-8"):
        Pairs(table("é.png,b.png\n", "latin-1"), 16)
    with pytest.raises(ValueError, match="not a readable CSV"):
        Pairs(tmp_path / "none.csv", 16)


# --- augmentation ---


def coordinates(side=48):
    """An image whose red is x and whose green is y, so that any movement can be read off it."""
    y, x = np.mgrid[:side, :side] * 5
    return np.dstack([x, y, np.zeros_like(x)]).astype(np.uint8)


@pytest.fixture
def maps(tmp_path):
    """A pair of two coordinate images; the target is the input with swapped channels, so equal up to their order."""
    for side, pixels in (("A", coordinates()), ("B", coordinates()[..., [1, 0, 2]])):
        (tmp_path / side).mkdir()
        Image.fromarray(pixels).save(tmp_path / side / "x.png")
    return tmp_path


MOVES = {"rotate": 20.0, "scale": 0.2, "turn": True}


def test_both_sides_move_alike(maps):
    found = Pairs(maps, 40, jitter=8, flip=True, augment=MOVES)
    items = [found.item(0, rng(number)) for number in range(40)]
    for item in items:
        assert torch.equal(item["input"], item["target"][[1, 0, 2]])
    assert len({item["input"].numpy().tobytes() for item in items}) == 40


def test_rotation_is_a_rotation(maps):
    """Differences of the coordinates along a row are the cosine and sine of one angle, within the asked range."""
    found = Pairs(maps, 48, augment={"rotate": 20.0})
    angles = []
    for number in range(30):
        x, y = ((found.item(0, rng(number))["input"].numpy()[:2] + 1) * 127.5 / 5)[:, 20:28, 20:28]
        dx, dy = (x[:, -1] - x[:, 0]).mean() / 7, (y[:, -1] - y[:, 0]).mean() / 7
        assert np.hypot(dx, dy) == pytest.approx(1, abs=0.03)
        angles.append(np.degrees(np.arctan2(dy, dx)))
    assert 12 < max(angles) < 20.5 and -20.5 < min(angles) < -12


def test_eight_ways(maps):
    found = Pairs(maps, 48, augment={"turn": True})
    seen = {found.item(0, rng(number))["input"].numpy().tobytes() for number in range(80)}
    plain = Pairs(maps, 48).item(0, rng())["input"]
    ways = [torch.rot90(x, k, (1, 2)) for k in range(4) for x in (plain, plain.flip(2))]
    assert seen == {way.contiguous().numpy().tobytes() for way in ways}


def test_colours(maps):
    both = Pairs(maps, 48, augment={"brightness": 0.5})
    one = Pairs(maps, 48, augment={"brightness": 0.5, "colour": "input"})
    plain = Pairs(maps, 48).item(0, rng())
    factors = []
    for number in range(20):
        item = both.item(0, rng(number))
        assert torch.equal(item["input"], item["target"][[1, 0, 2]])
        # Brightness is a factor on [0, 1]; values that were cut off at 1 say nothing.
        ratio = ((item["input"] + 1) / (plain["input"] + 1))[0, :, 10:20]
        factors.append(float(ratio.mean()))
        assert ratio.std() < 0.02
        item = one.item(0, rng(number))
        assert torch.equal(item["target"], plain["target"])
    assert 0.5 <= min(factors) < 0.7 and 1.3 < max(factors) <= 1.51


def test_grey_inputs_of_colour_targets_are_painted(maps):
    found = Pairs(maps, 48, 3, input_channels=1, augment={"brightness": 0.3, "contrast": 0.3, "hue": 0.1})
    item = found.item(0, rng(3))
    plain = Pairs(maps, 48, 3, input_channels=1).item(0, rng())
    assert item["input"].shape == (1, 48, 48) and not torch.equal(item["input"], plain["input"])


def test_cutout_is_in_the_input_alone(maps):
    found = Pairs(maps, 48, augment={"cutout": 0.5})
    plain = Pairs(maps, 48).item(0, rng())
    sizes = []
    for number in range(20):
        item = found.item(0, rng(number))
        changed = (item["input"] != plain["input"]).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert torch.equal(item["target"], plain["target"])
        sizes += [int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1]
        inside = item["input"][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inside - (127 / 127.5 - 1)).abs().max() < 1e-6
    assert max(sizes) <= 24 and max(sizes) > 12


def test_augmentation_follows_from_the_generator(maps):
    options = MOVES | {"brightness": 0.2, "saturation": 0.2, "hue": 0.1, "cutout": 0.3}
    found, again = (Pairs(maps, 40, jitter=8, flip=True, augment=options) for _ in range(2))
    found.item(0, rng(1))
    for number in range(5):
        one, two = found.item(0, rng(number)), again.item(0, rng(number))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_augmentation_in_workers(maps):
    found = Pairs(maps, 40, jitter=8, augment=MOVES | {"brightness": 0.2})
    for workers in (0, 1):
        batches = stream(found, 2, 5, 0, workers=workers)
        got = [next(batches) for _ in range(2)]
        if not workers:
            wanted = got
    for one, two in zip(wanted, got, strict=True):
        assert torch.equal(one["input"], two["input"]) and torch.equal(one["target"], two["target"])


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"rotat": 3}, "augment paired: unknown option 'rotat'; did you mean 'rotate'"),
        ({"rotate": "3"}, "rotate"),
        ({"hue": 0.7}, "hue is 0.7; it must be from 0 to 0.5"),
        ({"colour": "inptu"}, "none of both, input"),
    ],
)
def test_faulty_augmentation(maps, augment, message):
    with pytest.raises(ValueError, match=message):
        Pairs(maps, 40, augment=augment)


def test_damaged_files_are_named_once_and_counted(tmp_path, smooth, capsys):
    for place in range(20):
        Image.fromarray(np.hstack([smooth(place, 8, 8)] * 2)).save(tmp_path / f"{place:02}.png")
    for name in ("03", "11"):
        (tmp_path / f"{name}.png").write_bytes(b"no")
    assert len(Pairs(tmp_path, 8)) == 18
    told = capsys.readouterr().err
    assert told.count("03.png") == told.count("11.png") == 1 and "2 of 20 images cannot be read" in told


def test_a_table_in_the_folder(pairs, tmp_path):
    for side in "AB":
        shutil.copytree(pairs / "train" / side, tmp_path / f"photos{side}")
    (tmp_path / "pairs.csv").write_text("input,target\nphotosA/0.png,photosB/0.png\n")
    assert partners(tmp_path) == ([(tmp_path / "photosA/0.png", tmp_path / "photosB/0.png")], False)
    assert examine(tmp_path, paired=True) == []


@pytest.mark.parametrize("sides", [("a", "b"), ("trainA", "trainB")])
def test_folders_of_other_layouts_are_not_cut_in_half(sides, pairs, tmp_path):
    for side, name in zip("AB", sides, strict=True):
        shutil.copytree(pairs / "train" / side, tmp_path / "in" / name)
    for call in (partners, lambda folder: examine(folder, paired=True)):
        with pytest.raises(ValueError, match=f"holds images in {sides[0]}/, {sides[1]}/ alone; pairs are A/ and B/"):
            call(tmp_path / "in")
