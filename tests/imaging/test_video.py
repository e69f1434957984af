import os
import shutil
import stat
import sys

import cv2
import numpy as np
import pytest

from img2img.imaging.video import CODECS, process_video


def frames(count=7, height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    return [
        np.stack([x * 2, y * 3, np.full_like(x, 20 + 25 * n)], 2).clip(0, 255).astype(np.uint8) for n in range(count)
    ]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    assert writer.isOpened()
    for frame in frames():
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


def double(batch):
    return [frame.repeat(2, 0).repeat(2, 1) for frame in batch]


def shown(path):
    capture, found = cv2.VideoCapture(str(path)), []
    rate = capture.get(cv2.CAP_PROP_FPS)
    while True:
        there, frame = capture.read()
        if not there:
            return rate, found
        found.append(frame)


@pytest.mark.parametrize("extension", CODECS)
def test_every_frame_goes_through_in_order(clip, tmp_path, extension, capsys):
    sizes = []

    def watched(batch):
        sizes.append(len(batch))
        return double(batch)

    target = tmp_path / "new" / f"big{extension}"
    assert process_video(clip, target, watched, batch=3) == 7 and sizes == [3, 3, 1]
    rate, found = shown(target)
    assert rate == pytest.approx(12.5) and len(found) == 7
    for frame, wanted in zip(found, double(frames()), strict=True):
        assert frame.shape == (96, 128, 3) and np.abs(frame.astype(int) - wanted).mean() < 6
    error = capsys.readouterr().err
    assert "install ffmpeg to keep it" in error and "7/7" in error and "frame/s" in error
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_bad_videos_are_one_clear_line(clip, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello " * 100)
    (tmp_path / "head.avi").write_bytes(clip.read_bytes()[:100])
    for name, match in (("empty.mp4", "not a video"), ("text.mp4", "not a video"), ("head.avi", "not a video")):
        with pytest.raises(ValueError, match=f"{name}: {match}"):
            process_video(tmp_path / name, tmp_path / "out.mp4", double)
    for name in ("missing.mp4", "."):
        with pytest.raises(ValueError, match="no such video"):
            process_video(tmp_path / name, tmp_path / "out.mp4", double)
    assert not (tmp_path / "out.mp4").exists()


def test_targets_are_guarded(clip, tmp_path):
    with pytest.raises(ValueError, match="unknown extension '.gif'; use one of .mp4"):
        process_video(clip, tmp_path / "out.gif", double)
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists"):
        process_video(clip, tmp_path / "out.mp4", double)
    with pytest.raises(ValueError, match="exists"):
        process_video(clip, clip, double, overwrite=True)
    with pytest.raises(ValueError, match="batch must be"):
        process_video(clip, tmp_path / "o.mp4", double, batch=0)
    assert (tmp_path / "out.mp4").read_bytes() == b"mine" and len(shown(clip)[1]) == 7
    assert process_video(clip, tmp_path / "out.mp4", double, overwrite=True, progress=False) == 7


@pytest.mark.parametrize(
    ("transform", "error"),
    [
        (lambda batch: batch[1:], ValueError),
        (lambda batch: [frame[:, : 64 - 2 * n] for n, frame in enumerate(batch)], ValueError),
        (lambda batch: [frame.astype(np.float32) for frame in batch], ValueError),
        (lambda batch: 1 // 0, ZeroDivisionError),
        (lambda batch: sys.exit(3), SystemExit),
    ],
)
def test_what_fails_leaves_nothing_behind(clip, tmp_path, transform, error):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    with pytest.raises(error):
        process_video(clip, target, transform, overwrite=True, progress=False)
    assert target.read_bytes() == b"old" and {path.name for path in tmp_path.iterdir()} == {"clip.avi", "out.mp4"}


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for ffmpeg")
@pytest.mark.parametrize("works", [True, False])
def test_sound_is_copied_by_ffmpeg(clip, tmp_path, monkeypatch, capsys, works):
    program = tmp_path / "ffmpeg"
    body = f'printf "%s\\n" "$@" > {tmp_path}/arguments; for last; do :; done; cp "{tmp_path}/with sound" "$last"'
    program.write_text(f"#!/bin/sh\n{body if works else 'echo no such codec >&2; exit 1'}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "with sound").write_bytes(b"video with sound")
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    process_video(clip, tmp_path / "out.mp4", double, progress=False)
    error = capsys.readouterr().err
    if works:
        assert (tmp_path / "out.mp4").read_bytes() == b"video with sound" and error == ""
        arguments = (tmp_path / "arguments").read_text().splitlines()
        assert arguments[arguments.index("1:a?") - 1] == "-map" and str(clip) in arguments
    else:
        assert len(shown(tmp_path / "out.mp4")[1]) == 7
        assert error == f"{clip}: sound is left out, ffmpeg could not copy it (no such codec)\n"


@pytest.mark.parametrize("extension", CODECS)
def test_sides_that_the_encoder_cuts_are_told(clip, tmp_path, extension, capsys):
    target = tmp_path / f"odd{extension}"
    process_video(clip, target, lambda batch: [frame[:-1, :-1] for frame in batch], progress=False)
    assert shown(target)[1][0].shape == (46, 62, 3)
    assert capsys.readouterr().err.count(f"{target}: 62 x 46 pixels, cut from 63 x 47: videos have even sides") == 1
    process_video(clip, target, double, overwrite=True, progress=False)
    assert "cut from" not in capsys.readouterr().err


def test_a_cut_video_is_told(tmp_path, capsys):
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    for frame in np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8):
        writer.write(frame)
    writer.release()
    data = path.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    count = process_video(tmp_path / "cut.avi", tmp_path / "out.avi", double, progress=False)
    assert 0 < count < 28 and f"only {count} of 30 frames could be read" in capsys.readouterr().err
    process_video(path, tmp_path / "whole.avi", double, progress=False)
    assert "could be read" not in capsys.readouterr().err
