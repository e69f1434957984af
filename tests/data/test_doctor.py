import numpy as np
import pytest
from PIL import Image

from img2img.data.doctor import Finding, examine


def photo(seed, height=80, width=96, channels=3):
    """Blobs of several sizes: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    layers = [rng.random((size, size, channels)) for size in (3, 6, 12)]
    whole = np.zeros((height, width, channels))
    for layer in layers:
        for channel in range(channels):
            plane = Image.fromarray(layer[..., channel].astype(np.float32))
            whole[..., channel] += np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(whole / 3 * 255, 0, 255).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        save(tmp_path / "train" / f"{index}.png", photo(index))
    return tmp_path / "train"


@pytest.fixture
def held_out(tmp_path):
    for index in range(3):
        save(tmp_path / "validation" / f"v{index}.png", photo(100 + index))
    return tmp_path / "validation"


def only(findings, path, severity, word):
    """There is one finding, about this path, of this severity, and it has this word."""
    assert [(found.path, found.severity) for found in findings] == [(path, severity)], [*map(str, findings)]
    assert word in findings[0].what
    assert findings[0].mend
    assert "\n" not in str(findings[0])


def test_healthy_folders(folder, held_out):
    assert examine(folder) == []
    assert examine(folder, validation=held_out, minimum=40) == []
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("nor this")
    assert examine(folder.parent) == []  # train and validation in one


def test_line():
    found = Finding("a.png", "error", "too small", "remove it")
    assert str(found) == "error: a.png: too small; remove it"


@pytest.mark.parametrize("harm", ["truncated", "empty", "text"])
def test_corrupt(folder, harm):
    path = folder / "bad.png"
    blob = (folder / "0.png").read_bytes()
    path.write_bytes({"truncated": blob[: len(blob) // 2], "empty": b"", "text": b"<html>"}[harm])
    only(examine(folder), path, "error", "")


def test_too_small(folder):
    path = save(folder / "deep" / "small.png", photo(50, 31, 90))
    only(examine(folder, minimum=32), path, "error", "90 x 31 pixels, smaller than 32")


def test_duplicates_are_found_by_their_pixels(folder):
    path = save(folder / "z.bmp", photo(2))  # other bytes, the same pixels
    only(examine(folder), path, "warning", f"the same pixels as {folder / '2.png'}")


def test_leak(folder, held_out):
    path = save(held_out / "leak.bmp", photo(4))
    only(examine(folder, validation=held_out), path, "error", f"same pixels as {folder / '4.png'}")


@pytest.mark.parametrize("change", ["jpeg", "half", "mirror", "brighter"])
def test_near_leak(folder, held_out, change):
    pixels = photo(4)
    options = {}
    if change == "jpeg":
        options = {"quality": 60}
    elif change == "half":
        pixels = np.asarray(Image.fromarray(pixels).resize((48, 40)))
    elif change == "mirror":
        pixels = pixels[:, ::-1]
    else:
        pixels = (pixels * 0.8 + 20).astype(np.uint8)
    path = save(held_out / ("leak.jpg" if change == "jpeg" else "leak.png"), np.ascontiguousarray(pixels), **options)
    findings = examine(folder, validation=held_out)
    only(findings, path, "warning", f"{folder / '4.png'} in training")
    assert ("mirror" in findings[0].what) == (change == "mirror")


def test_flat_images_are_not_alike(folder, held_out):
    save(folder / "flat.png", np.full((80, 96, 3), 200, np.uint8))
    save(held_out / "flat.png", np.full((80, 96, 3), 90, np.uint8))
    assert examine(folder, validation=held_out) == []


def test_validation_within_training(folder):
    save(folder / "validation" / "x.png", photo(60))
    only(examine(folder, validation=folder / "validation"), folder / "validation", "error", "lies within")


def test_grey_alpha_and_depth(folder):
    grey = save(folder / "grey.png", photo(20, channels=1))
    alpha = save(folder / "alpha.png", photo(21, channels=4))
    deep = folder / "deep.png"
    Image.fromarray(photo(22, channels=1)[..., 0].astype(np.uint16) * 257).save(deep)
    found = {(finding.path, finding.what) for finding in examine(folder)}
    assert found == {
        (grey, "grey among colour images"),
        (deep, "grey among colour images"),
        (deep, "16 bit among 8-bit images"),
        (alpha, "it has an alpha channel"),
    }


def test_alpha_everywhere_is_one_line(tmp_path):
    for index in range(4):
        save(tmp_path / f"{index}.png", photo(index, channels=4))
    only(examine(tmp_path), tmp_path, "warning", "4 of 4 images have an alpha channel")


def test_colour_among_grey(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.png", photo(index, channels=1))
    path = save(tmp_path / "colour.png", photo(9))
    only(examine(tmp_path), path, "warning", "colour among grey")


def test_turned_and_animated(folder):
    exif = Image.Exif()
    exif[274] = 6
    turned = save(folder / "turned.jpg", photo(30), exif=exif)
    frames = [Image.fromarray(photo(seed)) for seed in (31, 32)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    found = {(finding.path, finding.severity, finding.what[:8]) for finding in examine(folder)}
    assert found == {(turned, "note", "stored t"), (folder / "moving.gif", "warning", "2 frames")}


def test_errors_come_first(folder):
    (folder / "zz.png").write_bytes(b"")
    save(folder / "00.png", photo(3))
    assert [finding.severity for finding in examine(folder)] == ["error", "warning"]


def test_empty_and_missing_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    only(examine(tmp_path / "empty"), tmp_path / "empty", "error", "no images")
    for call in (lambda: examine(tmp_path / "no"), lambda: examine(tmp_path / "empty", validation=tmp_path / "no")):
        with pytest.raises(ValueError, match="no: no such folder"):
            call()
    with pytest.raises(ValueError, match="at least one folder"):
        examine()


# --- pairs ---


@pytest.fixture
def pairs(tmp_path):
    for index in range(4):
        save(tmp_path / "pairs" / "A" / "deep" / f"{index}.png", photo(index, channels=1))
        save(tmp_path / "pairs" / "B" / "deep" / f"{index}.jpg", photo(10 + index))
    return tmp_path / "pairs"


def test_healthy_pairs(pairs):
    assert examine(pairs, paired=True) == []  # grey inputs and colour targets are no mixture
    assert examine(pairs / "A", pairs / "B", paired=True) == []


def test_missing_partners(pairs):
    (pairs / "A" / "deep" / "1.png").unlink()
    lone = save(pairs / "A" / "lone.png", photo(40, channels=1))
    found = {(finding.path, finding.what) for finding in examine(pairs, paired=True)}
    assert found == {(lone, "no partner 'lone' in B"), (pairs / "B" / "deep" / "1.jpg", "no partner 'deep/1' in A")}


def test_partners_of_two_sizes(pairs):
    path = save(pairs / "A" / "deep" / "2.png", photo(2, 81, 96, 1))
    only(examine(pairs, paired=True), path, "error", "96 x 81 pixels where its partner has 96 x 80")


def test_two_files_for_one_partner(pairs):
    save(pairs / "A" / "deep" / "2.bmp", photo(77, channels=1))
    findings = examine(pairs, paired=True)
    assert [finding.severity for finding in findings] == ["error"]
    assert "extension only" in findings[0].what


def test_only_whole_pairs_are_duplicates(pairs, tmp_path):
    save(pairs / "A" / "deep" / "9.png", photo(2, channels=1))  # an input may have a second answer
    save(pairs / "B" / "deep" / "9.png", photo(90))
    assert examine(pairs, paired=True) == []
    for side, original in (("A", "2.png"), ("B", "2.jpg")):
        target = tmp_path / "held" / side / original
        target.parent.mkdir(parents=True)
        target.write_bytes((pairs / side / "deep" / original).read_bytes())
    findings = examine(pairs, validation=tmp_path / "held", paired=True)
    only(findings, tmp_path / "held" / "A" / "2.png", "error", "same pixels")


def test_near_leak_of_pairs_needs_both_sides(pairs, tmp_path):
    for side, pixels in (("A", photo(2, channels=1)), ("B", photo(12))):
        save(tmp_path / "held" / side / "x.png", (pixels * 0.8 + 20).astype(np.uint8))
    findings = examine(pairs, validation=tmp_path / "held", paired=True)
    only(findings, tmp_path / "held" / "A" / "x.png", "warning", "nearly the same")
    save(tmp_path / "held" / "B" / "x.png", photo(91))
    assert examine(pairs, validation=tmp_path / "held", paired=True) == []


def test_side_by_side(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.png", photo(index, 40, 80))
    assert examine(tmp_path, paired=True, minimum=40) == []
    odd = save(tmp_path / "odd.png", photo(7, 40, 81))
    only(examine(tmp_path, paired=True), odd, "error", "no two equal halves")
    odd.unlink()
    found = {finding.what for finding in examine(tmp_path, paired=True, minimum=41)}
    assert found == {"40 x 40 pixels, smaller than 41"}


def test_three_folders_are_no_pairs(tmp_path):
    with pytest.raises(ValueError, match="one folder or two"):
        examine(tmp_path, tmp_path, tmp_path, paired=True)


def test_two_layouts_are_not_compared(pairs, tmp_path):
    save(tmp_path / "halves" / "x.png", photo(60, 40, 80))
    for training, held in ((pairs, tmp_path / "halves"), (tmp_path / "halves", pairs)):
        with pytest.raises(ValueError, match="laid out in another way"):
            examine(training, validation=held, paired=True)


# --- tables of pairs ---


@pytest.fixture
def table(tmp_path):
    lines = ["input,target"]
    for index in range(4):
        save(tmp_path / "drawn" / f"{index}.png", photo(index, channels=1))
        save(tmp_path / f"photo{index}.png", photo(10 + index))
        lines.append(f"drawn/{index}.png,photo{index}.png")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path / "pairs.csv"


def add(table, line):
    table.write_text(table.read_text() + "\n" + line)
    return table


def test_healthy_table(table):
    assert examine(table, paired=True) == []
    assert examine(add(table, "drawn/0.png,photo1.png"), paired=True) == []  # an input may have a second answer


def test_table_with_a_missing_file(table):
    found = examine(add(table, "drawn/0.png,photo9.png"), paired=True)
    only(found, table, "error", f"line 6: no such file {table.parent / 'photo9.png'}")


def test_table_with_a_repeated_pair_and_another_size(table):
    only(examine(add(table, "drawn/0.png,photo0.png"), paired=True), table.parent / "drawn/0.png", "warning", "same")
    path = save(table.parent / "drawn" / "1.png", photo(1, 40, 96, 1))
    found = examine(table, paired=True)
    assert (path, "96 x 40 pixels where its partner has 96 x 80") in {(f.path, f.what) for f in found}


def test_leak_between_tables(table):
    held = table.with_name("held.csv")
    held.write_text("drawn/2.png,photo2.png\n")
    only(examine(table, validation=held, paired=True), table.parent / "drawn/2.png", "error", "same pixels")
    held.write_text("drawn/2.png,photo3.png\n")  # another pair
    assert examine(table, validation=held, paired=True) == []


def test_a_table_that_is_none(table):
    table.write_text("")
    with pytest.raises(ValueError, match="no pairs in it"):
        examine(table, paired=True)


# --- two sets without partners ---


@pytest.fixture
def sets(tmp_path):
    for index in range(4):
        save(tmp_path / "sets" / "trainA" / f"a{index}.png", photo(index, 60, 90))
    for index in range(6):
        save(tmp_path / "sets" / "trainB" / f"b{index}.png", photo(20 + index, 80, 70))
    return tmp_path / "sets"


def test_sets_have_no_partners(sets):
    assert examine(sets / "trainA", sets / "trainB", unpaired=True) == []
    assert examine(sets, unpaired=True) == []
    with pytest.raises(ValueError, match="two sets of images"):
        examine(sets, sets, sets, unpaired=True)


def test_leaks_of_sets_are_looked_for_side_by_side(sets):
    for side, seed in (("A", 0), ("B", 70)):
        save(sets / f"test{side}" / "x.png", photo(seed, 60, 90))
    only(examine(sets, unpaired=True), sets / "testA" / "x.png", "error", "same pixels")
    same = save(sets / "trainB" / "again.png", photo(20, 80, 70))
    found = examine(sets / "trainA", sets / "trainB", unpaired=True)
    only(found, same.with_name("b0.png"), "warning", "same pixels")


def test_a_few_corrupt_files_are_named_once_and_counted(tmp_path):
    for side in "AB":
        for index in range(100):
            save(tmp_path / side / f"{index:03}.png", photo(index + 100 * (side == "B"), 16, 16))
    bad = [tmp_path / "A" / f"{index:03}.png" for index in (5, 50, 95)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    for form in ({"unpaired": True}, {"paired": True}):
        found = examine(tmp_path, **form)
        assert [finding.path for finding in found] == [*bad, tmp_path / "A"]
        assert [finding.severity for finding in found] == ["error"] * 3 + ["note"]
        assert found[-1].what == "3 of 100 images cannot be read (3.0%)"


def test_arrays(tmp_path):
    """Pairs of an image and an array are pairs; what is wrong with arrays is said as of images."""
    for side, depth in (("A", 0), ("B", 5)):
        (tmp_path / side).mkdir()
        for index in range(4):
            pixels = np.dstack([photo(7 * index + place, 16, 16) for place in range(2)])
            if depth:
                np.save(tmp_path / side / f"{index}.npy", pixels[..., :depth])
            else:
                save(tmp_path / side / f"{index}.png", pixels[..., :3])
    assert examine(tmp_path, paired=True) == []
    odd, bad = tmp_path / "B" / "1.npy", tmp_path / "B" / "2.npy"
    np.save(odd, np.load(odd)[..., :4])
    bad.write_bytes(b"no array")
    np.save(tmp_path / "B" / "3.npy", np.load(tmp_path / "B" / "0.npy")[:12])
    found = {(each.severity, each.path.name, each.what) for each in examine(tmp_path, paired=True)}
    assert found == {
        ("error", "2.npy", "not a readable .npy file of numbers; save it anew by numpy.save"),
        ("error", "1.npy", "an array of 4 channels where most have 5"),
        ("error", "3.png", "16 x 16 pixels where its partner has 16 x 12"),
    }
