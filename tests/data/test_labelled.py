"""Folders of classes, and pairs of domains of which one has classes."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.data.images import Packed
from img2img.data.labelled import Adaptation, FewLabels, Labelled, labels_in


def level(path, value, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(path)


@pytest.fixture
def classes(tmp_path):
    """Return a folder of three classes whose images are grey levels 10 * class + number."""
    for place, name in enumerate(("coat", "bag", "shoe")):
        for number in range(3):
            level(tmp_path / "data" / name / f"{number}.png", 10 * place + number)
    return tmp_path / "data"


def grey(tensor):
    return round((float(tensor.mean()) + 1) * 127.5)


def test_classes_are_numbered_as_their_names_sort(classes):
    found = Labelled(classes, 8)
    assert found.names == ["bag", "coat", "shoe"] and len(found) == 9
    for index in range(9):
        item = found.item(index, np.random.default_rng(0))
        assert item["label"].shape == () and item["label"].dtype == torch.long
        assert found.names[int(item["label"])] == ("coat", "bag", "shoe")[grey(item["real"]) // 10]


def test_a_table_of_labels(classes):
    (classes / "labels.csv").write_text("File, label\nshoe/2.png,x\nbag/0.png,y\n")
    found = Labelled(classes, 4, 3)
    assert found.names == ["x", "y"] and [grey(found.item(i, None)["real"]) for i in range(2)] == [22, 10]
    assert found.item(0, None)["real"].shape == (3, 4, 4)
    (classes / "labels.csv").write_text("file,label\nnone.png,x\n")
    with pytest.raises(ValueError, match="'none.png' is no file"):
        labels_in(classes)
    (classes / "labels.csv").write_text("name,label\n")
    with pytest.raises(ValueError, match="needs the columns file and label"):
        labels_in(classes)


def test_what_is_refused(classes):
    with pytest.raises(ValueError, match=r"holds 3 classes \(bag, coat, shoe, \.\.\.\), the page knows 10"):
        Labelled(classes, 8, classes=10)
    level(classes / "loose.png", 1)
    with pytest.raises(ValueError, match="belongs to no class"):
        Labelled(classes, 8)


def test_unreadable_images_take_their_labels_with_them(classes, capfd):
    (classes / "bag" / "0.png").write_bytes(b"no image")
    for _ in range(2):
        found = Labelled(classes, 8)
        assert len(found) == 8 and found.images.skipped == [classes / "bag" / "0.png"]
        assert [grey(found.item(i, None)["real"]) for i in range(8)] == [11, 12, 0, 1, 2, 20, 21, 22]
        assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert capfd.readouterr().err.count("(skipped)") == 1


def test_a_pack_follows_its_files(classes):
    files = sorted(classes.rglob("*.png"))
    pack = Packed(files, 1, 8)
    assert Packed(files, 1, 8).path == pack.path and Packed(files, 1, 4).path != pack.path
    os.utime(files[0], ns=(1, 1))
    assert Packed(files, 1, 8).path != pack.path
    assert np.array_equal(pickle.loads(pickle.dumps(pack))[3], pack[3])  # our own bytes
    assert len(pickle.dumps(pack)) < 5000
    with pytest.raises(IndexError):
        pack[9]
    assert len(list(pack)) == 9


def test_flip(classes):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 0] = 255
    Image.fromarray(pixels).save(classes / "bag" / "0.png")
    found = Labelled(classes, 8, flip=True)
    sides = [float(found.item(0, np.random.default_rng(seed))["real"][0, 0, 0]) for seed in range(60)]
    assert 15 < sum(side == 1 for side in sides) < 45


def test_adaptation(classes, tmp_path):
    for number in range(12):
        level(tmp_path / "target" / "any" / f"{number:02d}.png", 100 + number)
    found = Adaptation([classes, tmp_path / "target"], 8, 3, input_channels=1)
    assert len(found) == 12
    item = found.item(10, np.random.default_rng(0))
    assert (
        item["source"].shape == (1, 8, 8)
        and item["target"].shape == (3, 8, 8)
        and item.keys()
        == {
            "source",
            "label",
            "target",
        }
    )
    assert found.source.names[int(item["label"])] == ("coat", "bag", "shoe")[grey(item["source"]) // 10]
    seen = {grey(found.item(0, np.random.default_rng(seed))["target"]) for seed in range(200)}
    assert seen == set(range(100, 112))
    with pytest.raises(ValueError, match="its class 'any' is none of those that are learnt: bag"):
        Adaptation([classes, tmp_path / "target"], 8, validation=True)
    judged = Adaptation([classes, classes], 8, 1, validation=True)
    for index in range(9):
        item = judged.item(index, np.random.default_rng(0))
        assert torch.equal(item["source"], item["target"]) and item["label"] == item["target_label"]
    with pytest.raises(ValueError, match="two folders"):
        Adaptation([classes], 8)
    (tmp_path / "broken" / "bag").mkdir(parents=True)
    (tmp_path / "broken" / "bag" / "0.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="broken: no readable image in it"):
        Adaptation([tmp_path / "broken", tmp_path / "target"], 8)


def test_tables_as_people_write_them(classes):
    """With a byte order mark; errors name the line; nothing is taken silently."""
    table = classes / "labels.csv"
    table.write_bytes("\ufefffile,label\nshoe/2.png, x \nbag/0.png,y\nbag/0.png,y\n".encode())
    assert labels_in(classes) == ([classes / "shoe/2.png", classes / "bag/0.png"], ["x", "y"])
    for text, message in (
        ("file,label\nshoe/2.png,x\nbag/0.png\n", "line 3 has no label"),
        ("file,label\nshoe/2.png,x\nshoe/2.png,y\n", "shoe/2.png is 'x' in one line and 'y' in another"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            labels_in(classes)
    table.write_bytes("file,label\nshoe/2.png,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="labels.csv: not a readable CSV file"):
        labels_in(classes)


def test_other_sets_number_classes_alike(classes, tmp_path):
    """Names sort by their letters' numbers, "Dog" before "cat": a set that lacks or adds some would shift them."""
    learnt = Labelled(classes, 8)
    level(tmp_path / "held" / "shoe" / "0.png", 20)
    held = Labelled(tmp_path / "held", 8, classes=3, names=learnt.names)
    assert held.labels.tolist() == [2] and held.names == learnt.names
    level(tmp_path / "held" / "Shoe" / "0.png", 20)
    with pytest.raises(ValueError, match="its class 'Shoe' is none of those that are learnt: bag, coat, shoe"):
        Labelled(tmp_path / "held", 8, classes=3, names=learnt.names)


def test_labels_that_are_not_there(classes):
    with pytest.raises(ValueError, match="has a class of 3 images; data.labels = 12 wants 4 of each"):
        FewLabels(classes, 8, labels=12)


def test_unreadable_files_are_counted_every_time(classes, capsys):
    for name in "ab":
        (classes / "bag" / f"{name}.png").write_bytes(b"no image")
    for _ in range(2):
        assert len(Labelled(classes, 8)) == 9
        assert "2 of 11 images cannot be read and are left out" in capsys.readouterr().err
