"""Run a function of frames over a video."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from img2img.checkpoint import atomic

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Extensions that can be written, and the codec in each."""
SLACK = 2
"""Frames that a container may count too many."""


def process_video(
    source: str | Path,
    target: str | Path,
    transform_frames: Callable[[list[np.ndarray]], list[np.ndarray]],
    *,
    batch: int = 4,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Run ``transform_frames`` over the frames of a video; the target is written whole or not at all.

    The frame rate is kept. The sound is copied where ``ffmpeg`` is installed, else one line says that it was left out.
    An odd width or height loses its last column or row, and a line says so.

    Args:
        source: a video that OpenCV reads.
        target: the video to write; its extension is one of `CODECS`.
        transform_frames: takes up to ``batch`` frames, (H, W, 3) uint8 in BGR order, and gives as many, all of the
            same size and type.
        batch: frames in a call.
        overwrite: replace an existing target.
        progress: show a bar on stderr.

    Returns:
        The number of frames written.

    Raises:
        ValueError: an unreadable source, an unknown extension, an existing target, frames that do not fit each other,
            or a size that the encoder refuses.
        OSError: no permission, or the disk is full.
    """
    source, target = Path(source), Path(target)
    codec = CODECS.get(target.suffix.lower())
    if codec is None:
        raise ValueError(f"{target}: unknown extension '{target.suffix}'; use one of {' '.join(CODECS)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    if target.exists() and (not overwrite or os.path.samefile(source, target)):
        raise ValueError(f"{target}: exists; choose another name, or overwrite (not its own source)")
    if not source.is_file():
        raise ValueError(f"{source}: no such video")
    capture = cv2.VideoCapture(str(source))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        batches = _batches(capture, batch)
        first = next(batches, None) if capture.isOpened() else None
        if first is None:
            raise ValueError(f"{source}: not a video that can be read")
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".img2img-", dir=target.parent) as folder:
            silent = Path(folder, f"silent{target.suffix}")
            with tqdm(total=max(total, 0) or None, unit="frame", disable=not progress, file=sys.stderr) as bar:
                count = _write(silent, codec, rate if rate > 0 else 25.0, first, batches, transform_frames, target, bar)
            if count < total - SLACK:
                tqdm.write(f"{source}: only {count} of {total} frames could be read", file=sys.stderr)
            whole = _with_sound(silent, source, Path(folder, f"sound{target.suffix}"))
            with atomic(target) as temporary:
                os.replace(whole, temporary)
    finally:
        capture.release()
    return count


def _batches(capture: cv2.VideoCapture, batch: int) -> Iterator[list[np.ndarray]]:
    frames: list[np.ndarray] = []
    while True:
        there, frame = capture.read()
        if there:
            frames.append(frame)
        if frames and (not there or len(frames) == batch):
            yield frames
            frames = []
        if not there:
            return


def _write(
    path: Path,
    codec: str,
    rate: float,
    frames: list[np.ndarray] | None,
    batches: Iterator[list[np.ndarray]],
    transform_frames: Callable[[list[np.ndarray]], list[np.ndarray]],
    target: Path,
    bar: tqdm,
) -> int:
    writer, shape, count = None, None, 0
    try:
        while frames is not None:
            made = transform_frames(frames)
            if len(made) != len(frames):
                raise ValueError(f"{target}: {len(frames)} frames gave {len(made)}")
            for frame in made:
                if shape is None:
                    shape = frame.shape
                    size = (shape[1], shape[0])
                    if size[0] % 2 or size[1] % 2:  # OpenCV's encoders cut them without a word
                        even = f"{size[0] // 2 * 2} x {size[1] // 2 * 2}"
                        line = f"{target}: {even} pixels, cut from {size[0]} x {size[1]}: videos have even sides"
                        tqdm.write(line, file=sys.stderr)
                    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size)
                    if not writer.isOpened():
                        raise ValueError(f"{target}: no encoder for {size[0]} x {size[1]} frames in {target.suffix}")
                if frame.shape != shape or len(shape) != 3 or shape[2] != 3 or frame.dtype != np.uint8:
                    raise ValueError(f"{target}: a frame is {frame.shape} {frame.dtype} instead of {shape} uint8, BGR")
                writer.write(np.ascontiguousarray(frame))
            count += len(made)
            bar.update(len(made))
            frames = next(batches, None)
    finally:
        if writer is not None:
            writer.release()
    if not path.exists() or not path.stat().st_size:
        raise ValueError(f"{target}: the encoder wrote nothing")
    return count


def _with_sound(silent: Path, source: Path, path: Path) -> Path:
    """Return a video with the sound of the source, or the silent one."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        tqdm.write(f"{source}: sound, if there is any, is left out; install ffmpeg to keep it", file=sys.stderr)
        return silent
    inputs = ["-i", str(silent.absolute()), "-i", str(source.absolute())]  # absolute: a name may start with "-"
    command = [ffmpeg, "-v", "error", "-nostdin", "-y", *inputs, "-map", "0:v", "-map", "1:a?", "-c", "copy", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not path.exists():
        reason = " ".join(done.stderr.split())[:200]
        tqdm.write(f"{source}: sound is left out, ffmpeg could not copy it ({reason})", file=sys.stderr)
        return silent
    return path
