"""A folder of images as they are, brought to one size."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from img2img.checkpoint import atomic
from img2img.data import fetch
from img2img.data.photos import Store, files_below, images_in, rgb
from img2img.imaging import picture


class Images:
    """Images ``real`` (C, size, size) in [-1, 1]: the largest centred square of each, resized.

    Args:
        folder: a folder of images, searched below; or several.
        size: side in pixels.
        channels: 1 (grey), 3 (RGB), 4 (RGB and alpha) or more; see `stored`.
        flip: mirror half of them.
    """

    def __init__(
        self, folder: str | Path | Sequence[str | Path], size: int, channels: int = 3, flip: bool = False
    ) -> None:
        self.size, self.flip = size, flip
        folders = [folder] if isinstance(folder, str | Path) else folder
        files = [path for each in folders for path in files_in(each)]
        self.images = squares(files, channels, size)

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return image ``index``, perhaps mirrored."""
        return {"real": signed(self.images[index], bool(self.flip and rng.random() < 0.5))}


class Packed(Store):
    """As `Store`, for many small images: all in one memory map, which is made anew when a file is added or changed.

    A file each would cost a flush to the disk and an open file an image.

    Args:
        files: image files.
        channels: 1 (grey) or 3 (RGB).
        size: side in pixels that the largest centred square of each is brought to.
    """

    def __init__(self, files: list[Path], channels: int, size: int) -> None:
        super().__init__([])
        facts = [
            (os.path.abspath(path), found.st_size, found.st_mtime_ns) for path in files for found in (os.stat(path),)
        ]
        key = hashlib.sha256(json.dumps([facts, channels, size]).encode()).hexdigest()[:32]
        self.path = fetch.cache() / "packed" / f"{key}.npy"
        places = self.path.with_suffix(".places.npy")
        if not (self.path.is_file() and places.is_file()):
            self._pack(files, channels, size, places)
        kept = np.load(places)
        self.files = [files[place] for place in kept]
        self.skipped = (
            [path for path in files if path not in known] if len(known := set(self.files)) < len(files) else []
        )
        _count(self.skipped, len(files))
        self._pixels: np.ndarray | None = None

    def _pack(self, files: list[Path], channels: int, size: int, places: Path) -> None:
        kept = []
        with atomic(self.path) as temporary:
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(files), size, size, channels))
            for place, path in enumerate(
                tqdm(files, desc=f"pack {size} x {size}", unit="image", disable=None, leave=False)
            ):
                try:
                    pixels[len(kept)] = square(rgb(path, channels), size)
                except (ValueError, cv2.error) as error:
                    line = str(error) if isinstance(error, picture.UnreadableImage) else f"{path}: {error}"
                    tqdm.write(f"{' '.join(line.split())} (skipped)", file=sys.stderr)
                    continue
                kept.append(place)
            pixels.flush()
        with atomic(places) as temporary:
            np.save(temporary, np.array(kept, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self.files):
            raise IndexError(f"image {index} of {len(self.files)}")
        if self._pixels is None:
            self._pixels = np.load(self.path, mmap_mode="r")
        return self._pixels[index]

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is a copy of its pixels; a worker opens its own.
        return self.__dict__ | {"_open": {}, "_pixels": None}


FILES = (*picture.READABLE, ".npy")
"""Extensions of what is read: images, and arrays as `array` has them."""

SMALL = 64
"""Side in pixels up to which images are packed: beyond it they are few, and each has a file of its own."""


def squares(files: list[Path], channels: int, size: int) -> Store:
    """Return the largest centred squares of image files, brought to ``size``; small ones `Packed`."""
    if size <= SMALL and channels in (1, 3) and not any(path.suffix.lower() == ".npy" for path in files):
        return Packed(files, channels, size)
    return stored(files, channels, f"square{size}", lambda pixels: square(pixels, size))


def planes(path: Path, channels: int) -> np.ndarray:
    """Return a file's pixels as uint8 (H, W, ``channels``), alpha as it is (255 where there is none).

    A ``.npy`` file holds (H, W) or (H, W, ``channels``) of uint8 or uint16; image files have 1, 3 or 4 channels.

    Raises:
        ValueError: the file is not readable, or has another number of channels.
    """
    if path.suffix.lower() != ".npy":
        if channels in (1, 3):
            return rgb(path, channels)
        pixels = _bytes(picture.read(path).pixels)
        if channels != 4:
            raise ValueError(f"an image file has no {channels} channels; save it as .npy, (H, W, {channels}) uint8")
        return picture.with_alpha(pixels)
    pixels = array(path)
    if pixels.shape[2] != channels:
        raise ValueError(f"an array of {pixels.shape[2]} channels; expected {channels}, or set the number of channels")
    return _bytes(pixels)


def array(path: Path) -> np.ndarray:
    """Return the pixels (H, W, C) of a ``.npy`` file of uint8 or uint16, (H, W) or (H, W, C).

    Raises:
        ValueError: the file is not readable, or holds another kind of array.
    """
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError("not a readable .npy file of numbers; save it anew by numpy.save") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise ValueError(f"an array of {pixels.dtype} {pixels.shape}; expected (H, W) or (H, W, C) of uint8 or uint16")
    return pixels


def stored(files: list[Path], channels: int, name: str, reduce: Callable[[np.ndarray], np.ndarray]) -> Store:
    """Return the decoded ``files``, through `planes` where they are more than grey or RGB images.

    Files that cannot be read are named once on stderr, left out, and counted there in the end.
    """
    plain = channels in (1, 3) and not any(path.suffix.lower() == ".npy" for path in files)
    found = Store(files, channels, name, reduce) if plain else Store(files, channels, f"{name} planes", reduce, planes)
    _count(found.skipped, len(files))
    return found


def _count(skipped: list[Path], files: int) -> None:
    if len(skipped) > 1:
        tqdm.write(f"{len(skipped)} of {files} images cannot be read and are left out", file=sys.stderr)


def files_in(folder: str | Path) -> list[Path]:
    """Return the images and ``.npy`` arrays below a folder, sorted by name.

    Raises:
        ValueError: there is no such folder, or nothing of that kind in it.
    """
    # images_in says what is wrong where there is nothing.
    return files_below(Path(folder), FILES) or images_in(folder)


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the largest centred square of (H, W, C) pixels, resized to ``size``."""
    side = min(pixels.shape[:2])
    y, x = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return resize(pixels[y : y + side, x : x + side], size, size)


def shorter(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return (H, W, C) pixels resized so that their shorter side has ``size`` pixels."""
    factor = size / min(pixels.shape[:2])
    height, width = (max(size, round(side * factor)) for side in pixels.shape[:2])
    return resize(pixels, height, width)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (H, W, C) pixels at another size: by area where it shrinks, else bicubic."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    parts = [  # OpenCV takes no more than four channels by area
        cv2.resize(np.ascontiguousarray(pixels[..., start : start + 4]), (width, height), interpolation=way)
        for start in range(0, pixels.shape[2], 4)
    ]
    return np.dstack(parts) if len(parts) > 1 else parts[0].reshape(height, width, -1)


def signed(pixels: np.ndarray, mirror: bool = False) -> Tensor:
    """Return uint8 (H, W, C) as a tensor (C, H, W) in [-1, 1]."""
    pixels = pixels[:, ::-1] if mirror else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 127.5 - 1)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
