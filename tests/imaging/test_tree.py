import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from img2img.imaging import picture as files
from img2img.imaging import tree
from img2img.imaging.picture import Picture, read
from img2img.imaging.tree import RECORD, process


def image(path, value=100, size=(6, 4), kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 20, 30)).save(path, kind)
    return path


def double(picture):
    picture.pixels = picture.pixels.repeat(2, 0).repeat(2, 1)
    return picture


def run(inputs, output, transform=double, **options):
    return process(inputs, output, transform, **{"settings": "double", "progress": False, **options})


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != RECORD)


def shade(path):
    return int(read(path).pixels[0, 0, 0])


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "b.jpg", "deep/c.webp", "deep/er/d.tif", "e.BMP"):
        image(tmp_path / "in" / name)
    return tmp_path / "in"


# Names


def test_a_tree_gives_the_same_tree(photos, tmp_path):
    (photos / "notes.txt").write_text("no image")
    image(photos / ".hidden.png")
    report = run(photos, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "deep/c.webp", "deep/er/d.tif", "e.BMP"]
    assert (report.written, report.skipped, report.failed, report.pixels) == (5, 0, 0, 5 * 96)
    assert all(read(path).pixels.shape == (8, 12, 3) for path in report.outputs) and len(report.outputs) == 5


def test_suffix_and_format(photos, tmp_path):
    run(photos, tmp_path / "out", suffix="_x2", format="PNG")
    assert names(tmp_path / "out") == ["a_x2.png", "b_x2.png", "deep/c_x2.png", "deep/er/d_x2.png", "e_x2.png"]
    assert Image.open(tmp_path / "out/b_x2.png").format == "PNG"


def test_formats_that_are_only_read_become_png(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "a.gif")
    run(tmp_path / "a.gif", tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png"]


def test_images_in_formats_that_are_not_read_are_counted(photos, tmp_path, monkeypatch, capsys):
    for name in ("f.heic", "deep/g.HEIC", "h.jp2", ".hidden.heic", "notes.txt", "video.mp4"):
        (photos / name).write_bytes(b"")
    line = "left out, in formats that are not read (save them as .png first): 2 .heic, 1 .jp2"
    report = run([photos, photos], tmp_path / "out")  # nor is anything counted twice
    assert (report.written, report.failed) == (5, 0) and capsys.readouterr().err == line + "\n"
    monkeypatch.chdir(photos)
    assert run("*.*", tmp_path / "flat").written == 3
    assert capsys.readouterr().err.endswith("first): 1 .heic, 1 .jp2\n")
    image(photos / "phones/i.heic", kind="PNG")
    with pytest.raises(
        ValueError, match=r"no images in .*phones; left out, in formats that are not read .*: 1 \.heic$"
    ):
        run(photos / "phones", tmp_path / "none")
    assert run("*.jp2", tmp_path / "none").failed == 1 and not (tmp_path / "none").exists()


def test_frames_that_are_lost_are_told(tmp_path, capsys):
    first, *others = [Image.new("RGB", (5, 4), colour) for colour in ("red", "green", "blue")]
    for name, kind in (("a.gif", "GIF"), ("b.png", "PNG"), ("c.webp", "WEBP"), ("d.tif", "TIFF"), ("e.jpg", "MPO")):
        first.save(tmp_path / name, kind, save_all=True, append_images=others)
    first.save(tmp_path / "still.gif")
    assert run(tmp_path, tmp_path / "out").written == 6
    used = "only the first of its 3 frames is used"
    lines = [f"{tmp_path}/{name}: {used}" for name in ("a.gif", "b.png", "c.webp", "d.tif")]
    assert capsys.readouterr().err.splitlines() == [f"{lines[0]}; tools/upscale_video.py takes a GIF whole", *lines[1:]]
    run(tmp_path, tmp_path / "out")
    assert capsys.readouterr().err == ""  # nothing is made anew


def test_quality_reaches_the_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    files.write(tmp_path / "a.png", Picture(noise))
    for quality in (30, 95):
        run(tmp_path / "a.png", tmp_path / f"{quality}.jpg", quality=quality)
    assert (tmp_path / "30.jpg").stat().st_size * 2 < (tmp_path / "95.jpg").stat().st_size


def test_one_file_to_one_file(tmp_path):
    image(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "new/big.jpg").written == 1
    assert Image.open(tmp_path / "new/big.jpg").format == "JPEG"
    assert run(tmp_path / "a.png", tmp_path / "new/big.jpg").skipped == 1
    assert run(tmp_path / "a.png", tmp_path / "new/big.jpg", settings="other").written == 1


def test_one_file_is_not_lost_to_another(tmp_path, capsys):
    one, two = image(tmp_path / "a.png", 10), image(tmp_path / "b.png", 20)
    run(one, tmp_path / "out.png")
    assert run(two, tmp_path / "out.png").failed == 1
    assert "was made from another input; use overwrite" in capsys.readouterr().err and shade(tmp_path / "out.png") == 10
    assert run(two, tmp_path / "out.png", overwrite=True).written == 1 and shade(tmp_path / "out.png") == 20


@pytest.mark.parametrize(
    ("inputs", "output", "options", "match"),
    [
        (["in"], "out.png", {}, "several inputs need a folder"),
        (["in/a.png", "in/b.jpg"], "out.png", {}, "several inputs need a folder"),
        (["in/a.png"], "out.gif", {}, "cannot write '.gif'; use one of"),
        (["in/a.png"], "out.png", {"format": "jpg"}, "is not the format 'jpg'"),
        (["in"], "out", {"format": "jpog"}, "unknown format 'jpog'; use one of png, jpg"),
        (["in"], "out", {"suffix": "/x"}, "must not contain a folder"),
        (["in"], "in/notes", {}, "exists and is not a folder"),
        (["empty"], "out", {}, "no images in"),
        ([], "out", {}, "no images in no input"),
    ],
)
def test_what_cannot_be_meant_is_told(photos, tmp_path, inputs, output, options, match):
    (tmp_path / "empty").mkdir()
    (photos / "notes").write_text("")
    with pytest.raises(ValueError, match=match):
        run([tmp_path / each for each in inputs], tmp_path / output, **options)
    assert not (tmp_path / "out").exists()


def test_several_folders_keep_their_names(tmp_path):
    image(tmp_path / "one/a.png", 10)
    image(tmp_path / "two/a.png", 20)
    image(tmp_path / "c.png", 30)
    run([tmp_path / "one", tmp_path / "two", tmp_path / "c.png"], tmp_path / "out")
    assert names(tmp_path / "out") == ["c.png", "one/a.png", "two/a.png"]
    assert shade(tmp_path / "out/two/a.png") == 20


def test_globs(photos, tmp_path, monkeypatch, capsys):
    (photos / "a.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    run("in/*.*", "flat")
    assert names(tmp_path / "flat") == ["a.png", "b.jpg", "e.BMP"]
    run("in/**/*.*", "deep")
    assert names(tmp_path / "deep") == ["a.png", "b.jpg", "deep/c.webp", "deep/er/d.tif", "e.BMP"]
    run("i*", "all")
    assert "in/deep/er/d.tif" in names(tmp_path / "all")
    assert run(["in/*.xyz", "in/a.png"], "out").failed == 1
    assert "in/*.xyz: matches no image" in capsys.readouterr().err
    image(Path("odd[1].png"))
    run("odd[1].png", "out")
    assert "odd[1].png" in names(tmp_path / "out")


def test_an_input_given_twice_is_done_once(photos, tmp_path):
    assert run([photos, photos / "a.png", photos / "deep"], tmp_path / "out").written == 5


# Collisions


def test_two_inputs_of_one_name_are_both_kept(tmp_path, capsys):
    for name, value in (("a.bmp", 1), ("a.jpg", 80), ("a.png", 160)):
        image(tmp_path / "in" / name, value)
    report = run(tmp_path / "in", tmp_path / "out", format="png", suffix="_2")
    assert names(tmp_path / "out") == ["a.jpg_2.png", "a.png_2.png", "a_2.png"] and report.written == 3
    assert abs(shade(tmp_path / "out/a.jpg_2.png") - 80) < 4 and shade(tmp_path / "out/a_2.png") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"{tmp_path}/in/a.jpg: another input has the name a_2.png; written as a.jpg_2.png",
        f"{tmp_path}/in/a.png: another input has the name a_2.png; written as a.png_2.png",
    ]
    assert run(tmp_path / "in", tmp_path / "out", format="png", suffix="_2").skipped == 3
    assert capsys.readouterr().err == ""


def test_a_new_input_does_not_take_an_old_ones_name(tmp_path):
    image(tmp_path / "in/a.png", 160)
    run(tmp_path / "in", tmp_path / "out", format="png")
    image(tmp_path / "in/a.bmp", 10)  # before a.png in order
    report = run(tmp_path / "in", tmp_path / "out", format="png")
    assert (report.written, report.skipped) == (1, 1)
    assert shade(tmp_path / "out/a.png") == 160 and shade(tmp_path / "out/a.bmp.png") == 10
    os.remove(tmp_path / "in/a.png")
    report = run(tmp_path / "in", tmp_path / "out", format="png")
    assert report.skipped == 1 and shade(tmp_path / "out/a.png") == 160


def test_folders_of_equal_names_are_told_apart(tmp_path):
    for place, value in (("x", 10), ("y", 20), ("z", 30)):
        image(tmp_path / place / "in/a.png", value)
    run([tmp_path / place / "in" for place in "xyz"], tmp_path / "out")
    found = names(tmp_path / "out")
    assert len(found) == 3 and sorted(shade(tmp_path / "out" / name) for name in found) == [10, 20, 30]


def test_runs_of_other_inputs_into_one_folder_lose_nothing(tmp_path):
    image(tmp_path / "x/a.png", 10)
    image(tmp_path / "y/a.png", 20)
    run(tmp_path / "x", tmp_path / "out")
    run(tmp_path / "y", tmp_path / "out")
    assert sorted(shade(tmp_path / "out" / name) for name in names(tmp_path / "out")) == [10, 20]


# Resuming


def test_the_same_command_does_what_is_missing_or_changed(photos, tmp_path):
    out, done = tmp_path / "out", []

    def watched(picture):
        done.append(picture)
        return double(picture)

    assert run(photos, out, watched).written == 5
    assert (run(photos, out, watched).skipped, len(done)) == (5, 5)
    os.remove(out / "a.png")
    image(photos / "b.jpg", 200, size=(9, 9))
    image(photos / "new.png")
    report = run(photos, out, watched)
    assert (report.written, report.skipped, report.failed, len(done)) == (3, 3, 0, 8)
    assert read(out / "b.jpg").width == 18
    assert run(photos, out, watched, settings="other").written == 6
    assert run(photos, out, watched, settings="other", quality=80).written == 6
    assert run(photos, out, watched, settings="other", quality=80).skipped == 6


def test_touched_inputs_are_made_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    os.utime(photos / "a.png", (1, 1))
    assert run(photos, tmp_path / "out").written == 1


def test_files_that_are_not_ours_stay(photos, tmp_path, capsys):
    out = tmp_path / "out"
    image(out / "a.png", 1)
    report = run(photos, out)
    assert (report.written, report.failed) == (4, 1) and shade(out / "a.png") == 1
    assert f"{photos}/a.png: {out}/a.png exists and is not ours" in capsys.readouterr().err
    image(out / "b.jpg", 1, size=(40, 40))  # ours, but changed since
    assert run(photos, out).failed == 2 and read(out / "b.jpg").width == 40
    report = run(photos, out, overwrite=True)
    assert (report.written, report.skipped, report.failed) == (2, 3, 0) and read(out / "b.jpg").width == 12


def test_damaged_records_cost_only_their_lines(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    lines = (out / RECORD).read_bytes().splitlines()
    for part in (b"null", b"[1]", b'{"output": 3}', b"\xff\xfe{", b'{"output": {}, "source": "x"}'):
        lines.insert(0, part)
    (out / RECORD).write_bytes(b"\n".join(lines) + b'\n{"output": "a.p')
    image(photos / "new.png")
    report = run(photos, out)
    assert (report.written, report.skipped) == (1, 5)
    assert run(photos, out).skipped == 6  # the half line did not swallow the next


def test_output_inside_the_input(photos, tmp_path):
    out = photos / "deep/out"
    assert run(photos, out).written == 5
    image(out / "foreign.png")
    assert run(photos, out).skipped == 5 and not (out / "deep/out").exists()


def test_output_is_the_input(photos, tmp_path, capsys):
    before = names(photos)
    assert run(photos, photos).failed == 5 and names(photos) == before
    assert "is an input; use a suffix or another folder" in capsys.readouterr().err
    assert run(photos, photos, overwrite=True).failed == 5 and shade(photos / "a.png") == 100
    assert read(photos / "a.png").width == 6
    assert run(photos, photos, suffix="_x2").written == 5
    report = run(photos, photos, suffix="_x2")
    assert (report.written, report.skipped, report.failed) == (0, 5, 0)
    assert run(photos, photos, suffix="_x3").written == 5  # of the inputs, not of the outputs
    assert len(names(photos)) == 15


def test_a_name_that_is_refused_moves_no_other_into_the_input(tmp_path, capsys):
    Image.new("P", (4, 4)).save(tmp_path / "anim.gif")
    image(tmp_path / "anim.png")
    assert run(tmp_path, tmp_path).failed == 2 and names(tmp_path) == ["anim.gif", "anim.png"]
    assert capsys.readouterr().err.count(f"its output {tmp_path}/anim.png is an input") == 2


def test_a_link_from_output_to_input_does_not_overwrite_it(photos, tmp_path):
    (tmp_path / "out").symlink_to(photos, target_is_directory=True)
    assert run(photos / "a.png", tmp_path / "out", overwrite=True).failed == 1 and read(photos / "a.png").width == 6


def test_loops_of_links_end(photos, tmp_path):
    (photos / "deep/loop").symlink_to(photos, target_is_directory=True)
    (photos / "self").symlink_to(photos / "self")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    image(tmp_path / "elsewhere/z.png")
    (photos / "there").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    report = run(photos, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "deep/c.webp", "deep/er/d.tif", "e.BMP", "there/z.png"]
    assert report.failed == 1  # the link to nowhere


def test_links_take_no_names_away(tmp_path):
    """Folders that a link inside the tree leads to keep their own place; a linked file is one more file."""
    image(tmp_path / "in/zz/x.png", 1)
    image(tmp_path / "in/zzz.png", 2)
    (tmp_path / "in/aa").symlink_to("zz")
    (tmp_path / "in/aaa.png").symlink_to("zzz.png")
    assert run(tmp_path / "in", tmp_path / "out").written == 3
    assert names(tmp_path / "out") == ["aaa.png", "zz/x.png", "zzz.png"]
    assert run(tmp_path / "in", tmp_path / "out").skipped == 3


def test_what_an_earlier_run_made_can_be_named(tmp_path):
    image(tmp_path / "a.png")
    run(tmp_path / "a.png", tmp_path / "b.png")
    assert run(tmp_path / "b.png", tmp_path / "c.png").written == 1
    assert read(tmp_path / "c.png").width == 24
    # Beside its own input, as a shell's pattern names both, it is an output.
    again = run([tmp_path / "a.png", tmp_path / "b.png"], tmp_path, suffix="_x2")
    assert again.written == 1 and not (tmp_path / "b_x2.png").exists()
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="no images but what earlier runs made; name one"):
        run(tmp_path, tmp_path)


def test_output_folders_below_the_input_do_not_feed_each_other(photos):
    for _ in range(3):
        reports = [run(photos, photos / "x4"), run(photos, photos / "x2")]
    assert [(each.written, each.skipped) for each in reports] == [(0, 5), (0, 5)]
    assert run(photos / "x4", photos / "x8").written == 5  # it was named
    # Originals beside outputs of theirs are still read from above.
    image(photos / "mixed/f.png")
    run(photos / "mixed", photos / "mixed", suffix="_x2")
    run(photos, photos / "x4")
    assert (photos / "x4/mixed/f.png").is_file() and not (photos / "x4/mixed/f_x2.png").exists()


def test_long_names_of_many_bytes(tmp_path):
    name = "\u732b" * 81 + ".png"  # 247 bytes
    image(tmp_path / "in" / name)
    assert run(tmp_path / "in", tmp_path / "out").written == 1 and names(tmp_path / "out") == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(photos, tmp_path, capsys):
    os.mkfifo(photos / "pipe.png")
    report = run(photos, tmp_path / "out")
    assert (report.written, report.failed) == (5, 1) and "pipe.png: not a regular file" in capsys.readouterr().err


# Failing


def test_unreadable_files_cost_one_line_each(photos, tmp_path, capsys):
    (photos / "empty.png").write_bytes(b"")
    (photos / "bad.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    (photos / "text.png").write_text("hello")
    report = run([photos, tmp_path / "missing.png"], tmp_path / "out")
    assert (report.written, report.failed) == (5, 4)
    lines = sorted(capsys.readouterr().err.splitlines())
    starts = [f"{photos}/bad.jpg: ", f"{photos}/empty.png: ", f"{photos}/text.png: ", f"{tmp_path}/missing.png: "]
    assert len(lines) == 4 and all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert all(line.count(str(tmp_path)) == 1 for line in lines)
    assert run(photos, tmp_path / "out").failed == 3  # tried again


def test_a_missing_input_makes_no_folder(tmp_path, capsys):
    assert run(tmp_path / "missing.png", tmp_path / "out").failed == 1
    assert not (tmp_path / "out").exists() and "missing.png: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("two\nlines"), RuntimeError("shape"), MemoryError(), ZeroDivisionError()])
def test_a_transform_that_fails_costs_its_picture(photos, tmp_path, capsys, error):
    def sometimes(picture):
        if picture.width == 7:
            raise error
        return double(picture)

    image(photos / "bad.png", size=(7, 7))
    report = run(photos, tmp_path / "out", sometimes)
    assert (report.written, report.failed) == (5, 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{photos}/bad.png: ") and len(line) > len(f"{photos}/bad.png: ")


def test_a_picture_too_large_for_its_format_costs_itself(tmp_path, capsys):
    image(tmp_path / "in/a.webp", size=(9000, 1))
    image(tmp_path / "in/b.png")
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.written, report.failed) == (1, 1)
    assert "WEBP holds 16383 a side, use .png or .tif" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_one_line(photos, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="cannot write there"):
        run(photos, tmp_path / "locked/out")


def test_an_output_that_cannot_be_made_is_one_line(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"{tmp_path}/file/out: cannot write there"):
        run(photos, tmp_path / "file/out")


def test_permission_denied_while_writing_costs_its_picture(photos, tmp_path, capsys, monkeypatch):
    write = files.write

    def denied(path, *arguments, **options):
        if path.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        write(path, *arguments, **options)

    monkeypatch.setattr(files, "write", denied)
    report = run(photos, tmp_path / "out")
    assert (report.written, report.failed) == (4, 1)
    assert capsys.readouterr().err == f"{photos}/a.png: Permission denied\n"


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, capsys, monkeypatch):
    for number in range(30):
        image(tmp_path / f"in/{number:02}.png")
    write, computed = files.write, []

    def full(path, *arguments, **options):
        if path.name == "05.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments, **options)

    def slow(picture):
        computed.append(1)
        time.sleep(0.01)
        return picture

    monkeypatch.setattr(files, "write", full)
    report = run(tmp_path / "in", tmp_path / "out", slow)
    assert (report.written, report.failed) == (5, 25) and len(computed) < 25
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"{tmp_path}/in/05.png: No space left on device; stopped with 24 more to do, the same command goes on"
    )
    monkeypatch.setattr(files, "write", write)
    report = run(tmp_path / "in", tmp_path / "out", slow)
    assert (report.written, report.skipped, report.failed) == (25, 5, 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_truly_full_disk_in_the_record(photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).symlink_to("/dev/full")
    try:
        report = run(photos, tmp_path / "out")
    except ValueError:
        return
    assert report.failed == 5 and report.written == 0 and names(tmp_path / "out") == []
    assert "No space left on device" in capsys.readouterr().err


# Threads


def test_reading_computing_and_writing_overlap(tmp_path, monkeypatch):
    for number in range(8):
        image(tmp_path / f"in/{number}.png")
    reader, writer = files.read, files.write

    def slow(function):
        def call(*arguments, **options):
            time.sleep(0.1)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(files, "read", slow(reader))
    monkeypatch.setattr(files, "write", slow(writer))
    report = run(tmp_path / "in", tmp_path / "out", slow(double))
    assert report.written == 8 and report.seconds < 8 * 3 * 0.1 * 0.75


@pytest.mark.parametrize(("most_bytes", "most"), [(10_000, 100), (10**9, 3)])
def test_queues_are_bounded(tmp_path, monkeypatch, most_bytes, most):
    for number in range(40):
        image(tmp_path / f"in/{number:02}.png", size=(30, 30))  # 2,700 bytes
    monkeypatch.setattr(tree, "QUEUED_BYTES", most_bytes)
    monkeypatch.setattr(tree._Channel.__init__, "__defaults__", (most,))
    reads, writes, ahead = [0], [0], []
    reader, writer = files.read, files.write

    def counted(*arguments, **options):
        reads[0] += 1
        return reader(*arguments, **options)

    def slow(*arguments, **options):
        time.sleep(0.005)
        writer(*arguments, **options)
        writes[0] += 1
        ahead.append(reads[0] - writes[0])

    monkeypatch.setattr(files, "read", counted)
    monkeypatch.setattr(files, "write", slow)
    assert run(tmp_path / "in", tmp_path / "out", lambda picture: picture).written == 40
    assert 2 <= max(ahead) <= 3 + 1 + 3 + 2  # each queue holds three at most; one in each hand


def test_an_item_larger_than_the_queue_passes_alone():
    channel, got = tree._Channel(10), []
    thread = threading.Thread(target=lambda: got.extend(channel))
    thread.start()
    for item in range(5):
        assert channel.put(item, 100)
    channel.end()
    thread.join(5)
    assert got == [0, 1, 2, 3, 4] and channel.bytes == channel.count == 0


def test_an_abort_wakes_both_sides():
    for waiting in (lambda channel: [channel.put(1, 9), channel.put(2, 9)], list):
        channel, ended = tree._Channel(10), []
        thread = threading.Thread(target=lambda c=channel, e=ended, w=waiting: e.append(w(c)))
        thread.start()
        time.sleep(0.05)
        channel.abort()
        thread.join(5)
        assert not thread.is_alive() and ended in ([[True, False]], [[]])


def test_ctrl_c_leaves_whole_files_and_no_threads(tmp_path, monkeypatch):
    for number in range(30):
        image(tmp_path / f"in/{number:02}.png")
    before, count = threading.active_count(), [0]

    def interrupted(picture):
        count[0] += 1
        if count[0] == 12:
            raise KeyboardInterrupt
        return double(picture)

    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", interrupted)
    assert time.perf_counter() - start < 5 and threading.active_count() <= before + 1  # tqdm keeps a monitor
    done = names(tmp_path / "out")
    assert len(done) < 12 and all(read(tmp_path / "out" / name).width == 12 for name in done)
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written + report.skipped == 30 and report.skipped == len(done)


CHILD = textwrap.dedent(
    """
    import sys, numpy as np
    from img2img.imaging.picture import Picture
    from img2img.imaging.tree import process
    def grow(picture):
        picture.pixels = picture.pixels.repeat(12, 0).repeat(12, 1)
        return picture
    report = process(sys.argv[1], sys.argv[2], grow, settings="grow", format=sys.argv[3], progress=False)
    print(report.written, report.skipped, report.failed)
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("name", "how", "times"), [("png", "SIGKILL", 2), ("jpg", "SIGTERM", 1), ("png", "SIGINT", 1)])
def test_killed_runs_leave_whole_files_and_go_on(tmp_path, name, how, times):
    noise = np.random.default_rng(0)
    for number in range(60):
        pixels = noise.integers(0, 255, (40, 40, 3), np.uint8)
        files.write(tmp_path / f"in/{number:02}.png", Picture(pixels))
    out, dice, seen = tmp_path / "out", random.Random(name + how), 0
    command = [sys.executable, "-c", CHILD, str(tmp_path / "in"), str(out), name]
    surroundings = os.environ | {"PYTHONPATH": str(Path(tree.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for _ in range(times):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=surroundings)
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob("[0-9]*"))) > seen + 2:
                time.sleep(dice.random() * 0.05)
                child.send_signal(getattr(signal, how))
                break
            time.sleep(0.002)
        assert child.wait(30) != 0 or len(list(out.glob("[0-9]*"))) == 60
        done = list(out.glob("[0-9]*"))
        assert len(done) > seen
        seen = len(done)
        for path in done:  # whole, every one
            assert read(path).pixels.shape == (480, 480, 3)
    report = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=120)
    written, skipped, failed = map(int, report.stdout.split())
    assert report.stderr == "" and failed == 0 and written + skipped == 60 and skipped >= seen - 3
    assert sorted(path.name for path in out.iterdir() if path.name != RECORD) == sorted(
        f"{number:02}.{name}" for number in range(60)
    )  # no partial file either


def test_an_output_between_its_two_record_lines_is_ours(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    lines = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
    assert [("bytes" in line) for line in lines] == [False, True] * 5
    (out / RECORD).write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    (out / "deep/er/.d.01234567.partial.tif").write_bytes(b"half")
    report = run(photos, out)
    assert (report.written, report.skipped, report.failed) == (1, 4, 0)
    assert not list(out.rglob(".*partial*"))


# Progress


def test_the_bar_counts_output_megapixels(photos, tmp_path, capsys):
    image(photos / "large.png", size=(1000, 500))
    run(photos, tmp_path / "out", progress=True, scale=2)
    shown = capsys.readouterr().err
    assert "2.0/2.0 MP" in shown and "100%" in shown and "MP/s" in shown and "6/6" in shown


def test_the_bar_moves_within_a_picture(tmp_path, capsys, monkeypatch):
    image(tmp_path / "a.png", size=(1000, 500))
    updates = []
    update = tree.tqdm.update
    monkeypatch.setattr(tree.tqdm, "update", lambda bar, n=1: (updates.append(n), update(bar, n))[1])

    def ticking(picture, tick):
        for _ in range(4):
            tick(100_000)
        return picture

    run(tmp_path / "a.png", tmp_path / "out", ticking, advance=True, progress=True, scale=3)
    assert updates == [100_000] * 5  # in the end, what was really written
    assert "0.5/0.5 MP" in capsys.readouterr().err


def test_a_line_among_the_bar_stands_alone(photos, tmp_path, capsys):
    (photos / "empty.png").write_bytes(b"")
    run(photos, tmp_path / "out", progress=True)
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line.startswith(f"{photos}/empty.png: ")] == [
        f"{photos}/empty.png: the file is empty"
    ]
