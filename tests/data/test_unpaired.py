"""Two sets of images: what is drawn, what is cropped, and where it lies."""

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data.stream import stream
from img2img.data.unpaired import Unpaired, domains


def rng(number=0):
    return np.random.default_rng(number)


def flat(folder, values, size=(16, 16)):
    """Write images of one value each, so that the value says which image a crop is from."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, value in enumerate(values):
        Image.new("RGB", size, (value, value, value)).save(folder / f"{place:02}.png")
    return folder


def values(found, key, numbers):
    return [round((float(found.item(0, rng(n))[key].mean()) + 1) * 127.5) for n in numbers]


@pytest.fixture
def sets(tmp_path):
    return flat(tmp_path / "A", [10, 20, 30]), flat(tmp_path / "B", [100, 110, 120, 130, 140])


def test_b_is_drawn_independently_of_a(sets):
    found = Unpaired(sets, 16)
    assert len(found) == 5
    given = [found.item(index, rng(index)) for index in range(5)]
    assert [round((float(item["a"].mean()) + 1) * 127.5) for item in given] == [10, 20, 30, 10, 20]
    drawn = values(found, "b", range(500))
    counts = [drawn.count(value) for value in (100, 110, 120, 130, 140)]
    assert sum(counts) == 500
    assert sum((count - 100) ** 2 / 100 for count in counts) < 18.5  # chi squared, 4 degrees of freedom, 0.1 %
    assert values(found, "b", [7]) == values(found, "b", [7])


def test_validation_takes_every_image_in_order(sets):
    found = Unpaired(sets, 16, flip=True, jitter=4, validation=True)
    items = [found.item(index, rng(index)) for index in range(5)]
    assert [round((float(item["b"].mean()) + 1) * 127.5) for item in items] == [100, 110, 120, 130, 140]
    assert [round((float(item["a"].mean()) + 1) * 127.5) for item in items] == [10, 20, 30, 10, 20]
    assert not any("paired" in item for item in items)  # B has names that A lacks


def test_sets_of_equal_names_are_pairs_in_validation_alone(tmp_path, capsys):
    sets = flat(tmp_path / "A", [10, 20, 30, 40]), flat(tmp_path / "B", [100, 110, 120, 130])
    for folder, name in zip(sets, ("01.png", "02.png"), strict=True):
        (folder / name).write_bytes(b"damaged")
    Image.open(sets[1] / "03.png").save(sets[1] / "03.webp", lossless=True)
    (sets[1] / "03.png").unlink()
    found = Unpaired(sets, 16, validation=True)
    items = [found.item(index, rng(index)) for index in range(len(found))]
    seen = [tuple(round((float(item[side].mean()) + 1) * 127.5) for side in "ab") for item in items]
    assert seen == [(10, 100), (40, 130)]  # the halves of 01 and 02 do not become a pair
    assert all(bool(item["paired"]) for item in items)
    assert "paired" not in Unpaired(sets, 16).item(0, rng())


def test_crops(tmp_path):
    """Red tells the column of a wide image of which the shorter side already has the right length."""
    column = np.zeros((16, 80, 3), np.uint8)
    column[..., 0] = np.arange(80) * 3
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(column).save(tmp_path / side / "x.png")

    def left(item, key):
        row = (item[key][0, 0].numpy() + 1) * 127.5 / 3
        return round(float(row.min())), bool(row[0] > row[-1])

    found = Unpaired(tmp_path, 16, flip=True)
    items = [found.item(0, rng(number)) for number in range(400)]
    places = {key: [left(item, key) for item in items] for key in "ab"}
    for key in "ab":
        assert items[0][key].shape == (3, 16, 16)
        assert {place for place, _ in places[key]} == set(range(65))
        assert 150 < sum(mirrored for _, mirrored in places[key]) < 250
    assert abs(np.corrcoef([p for p, _ in places["a"]], [p for p, _ in places["b"]])[0, 1]) < 0.15
    assert left(Unpaired(tmp_path, 16, validation=True).item(0, rng(3)), "a") == (32, False)  # the centre


def test_sizes_and_channels(tmp_path, smooth):
    for side, shape in (("A", (20, 50)), ("B", (9, 6))):
        (tmp_path / side).mkdir()
        Image.fromarray(smooth(0, *shape)).save(tmp_path / side / "x.png")
    item = Unpaired(tmp_path, 16, 3, input_channels=1, jitter=2).item(0, rng())
    assert item["a"].shape == (1, 16, 16) and item["b"].shape == (3, 16, 16)
    assert all(image.abs().max() <= 1 for image in item.values())


def test_layouts(tmp_path, sets):
    a, b = sets
    assert domains([a, b]) == domains(tmp_path) == domains([tmp_path], validation=True) == (a, b)
    classic = tmp_path / "horse2zebra"
    for name in ("trainA", "trainB", "testA", "testB"):
        flat(classic / name, [1])
    assert domains(classic) == (classic / "trainA", classic / "trainB")
    assert domains(classic, validation=True) == (classic / "testA", classic / "testB")
    (lone := tmp_path / "lone" / "A").mkdir(parents=True)
    for bad, message in ((lone.parent, "holds neither A/ and B/"), (tmp_path / "no", "no such folder")):
        with pytest.raises(ValueError, match=message):
            domains(bad)
    with pytest.raises(ValueError, match="not from 3"):
        domains([a, b, a])
    with pytest.raises(ValueError, match="no image files"):
        Unpaired([a, lone], 16)


def test_damaged_images_are_left_out(sets, capsys):
    (sets[1] / "00.png").write_bytes(b"no")
    found = Unpaired(sets, 16)
    assert len(found) == 4 and 100 not in values(found, "b", range(30))
    assert capsys.readouterr().err.count("00.png") == 1
    for path in sets[1].iterdir():
        path.write_bytes(b"no")
    with pytest.raises(ValueError, match="no readable image"):
        Unpaired(sets, 16)


def test_resumes_anywhere(sets):
    found = Unpaired(sets, 16, flip=True, jitter=4)
    batches = stream(found, 2, 3, 0)
    third = [next(batches) for _ in range(3)][2]
    again = next(stream(found, 2, 3, 2))
    assert all(torch.equal(third[key], again[key]) for key in "ab")
