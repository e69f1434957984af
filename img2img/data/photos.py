"""Random crops of large photos with their reduced versions, read from decoded photos in memory maps.

Decoding a photo for one crop costs a hundred times the crop. So each photo is decoded once into an uncompressed file in
the cache, from which the operating system reads just the rows of a crop; see ``tools/benchmark_crops.py``.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from img2img.checkpoint import atomic
from img2img.data import fetch
from img2img.imaging import picture
from img2img.imaging.tree import walk
from img2img.registry import part


def files_below(folder: Path, suffixes: Collection[str] = picture.READABLE) -> list[Path]:
    """Return the files of some suffixes below a folder, sorted by name; hidden ones are left out.

    Links are followed as `img2img.imaging.tree.walk` does; a folder that cannot be read costs a line on stderr.
    """

    def told(error: OSError) -> None:
        tqdm.write(f"{error.filename}: {error.strerror}; what is in it is left out", file=sys.stderr)

    if not folder.is_dir():
        return []
    paths = (Path(place, name) for place, names in walk(folder, told) for name in names if not name.startswith("."))
    return sorted(path for path in paths if path.suffix.lower() in suffixes and path.is_file())


def is_split(folder: Path) -> bool:
    """Return whether a folder holds train/ and validation/, as `img2img.data.prepare` lays them out."""
    return (folder / "train").is_dir() and (folder / "validation").is_dir()


def images_in(folder: str | Path) -> list[Path]:
    """Return the image files below a folder as `files_below` does.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'is a file; name its folder' if folder.is_file() else 'no such folder'}")
    found = files_below(folder)
    if not found:
        raise ValueError(f"{folder}: no image files in it")
    return found


def rgb(path: Path, channels: int = 3) -> np.ndarray:
    """Return a file's pixels as uint8 (H, W, channels), with 1 (grey) or 3 (RGB) channels; alpha lies on white.

    Raises:
        UnreadableImage: the file is no readable image.
    """
    pixels = picture.read(path).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = picture.on_white(pixels)
    if pixels.shape[2] == channels:
        return pixels
    return pixels.repeat(3, axis=2) if channels == 3 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]


OPEN = 4096
"""Memory maps that a `Store` keeps open: a process may have 65,530 on Linux."""


class Store:
    """Decoded images in memory maps: ``store[i]`` is a read-only uint8 array (H, W, C) that costs no memory until read.

    Args:
        files: image files; those that are unreadable, or too small to reduce, are named once, left out and kept in
            ``skipped``.
        channels: 1 or 3.
        name: what this view of the files is called; with ``reduce`` it is part of the cache's key.
        reduce: a function on the whole image, applied before it is stored.
        decode: (file, channels) -> uint8 (H, W, channels); ``name`` tells it from another one.
    """

    def __init__(
        self,
        files: list[Path],
        channels: int = 3,
        name: str = "plain",
        reduce: Callable[[np.ndarray], np.ndarray] | None = None,
        decode: Callable[[Path, int], np.ndarray] = rgb,
    ) -> None:
        self.files: list[Path] = []
        self.stored: list[Path] = []
        self.skipped: list[Path] = []
        self._open: dict[int, np.ndarray] = {}
        folder = fetch.cache() / "decoded"
        for path in tqdm(files, desc=f"decode {name}", unit="image", disable=None, leave=False):
            facts = os.stat(path)
            key = hashlib.sha256(
                json.dumps([str(path.resolve()), facts.st_size, facts.st_mtime_ns, channels, name]).encode()
            ).hexdigest()[:32]
            stored = folder / f"{key}.npy"
            if not stored.is_file():
                try:
                    pixels = decode(path, channels)
                    pixels = reduce(pixels) if reduce else pixels
                except (ValueError, cv2.error) as error:
                    line = str(error) if isinstance(error, picture.UnreadableImage) else f"{path}: {error}"
                    tqdm.write(f"{' '.join(line.split())} (skipped)", file=sys.stderr)
                    self.skipped.append(path)
                    continue
                with atomic(stored) as temporary:
                    np.save(temporary, pixels)
            self.stored.append(stored)
            self.files.append(path)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._open:
            if len(self._open) >= OPEN:
                self._open.clear()
            self._open[index] = np.load(self.stored[index], mmap_mode="r")
        return self._open[index]

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is a copy of its pixels; a worker opens its own.
        return self.__dict__ | {"_open": {}}


class Crops:
    """Pairs of a reduced crop and the crop itself.

    ``input`` (C, s, s) and ``target`` (C, s * scale, s * scale), both in [0, 1].

    Args:
        folder: a folder of photos.
        size: side of the target crop in pixels, a multiple of ``scale``.
        scale: how many times smaller the input is.
        degradation: a recipe's table; bicubic is applied to whole photos once, others to each crop.
        channels: 1 or 3.
        flip: mirror half of the crops. rotate: turn them by multiples of 90 degrees.
        flat: redraw (thrice at most) a crop whose standard deviation is under so many grey levels.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        scale: int,
        degradation: dict | None,
        *,
        channels: int = 3,
        flip: bool = True,
        rotate: bool = False,
        flat: float = 0.0,
    ) -> None:
        if size % scale:
            raise ValueError(
                f"data.size {size} is not a multiple of data.scale {scale}; choose {size // scale * scale}"
            )
        self.size, self.scale, self.flip, self.rotate, self.flat = size, scale, flip, rotate, flat
        spec = degradation or {"type": "bicubic"}
        self.degrade = part("degradation", spec)
        files = images_in(folder)
        self.photos = Store(files, channels)
        shapes = {i: photo.shape[:2] for i, photo in enumerate(self.photos) if min(photo.shape[:2]) >= size}
        if not shapes:
            raise ValueError(
                f"{folder}: no readable image is at least {size} pixels on its shorter side; lower data.size"
            )
        self.keep = list(shapes)
        # Whole-photo reduction gives the crop's edges the surroundings that a photo to be enlarged has.
        self.small = None
        if spec["type"] == "bicubic":
            self.small = Store(
                [self.photos.files[i] for i in self.keep],
                channels,
                f"bicubic{scale}",
                lambda pixels: self.degrade(_whole(pixels, scale), scale),
            )
            assert len(self.small) == len(self.keep)
        areas = np.array([height * width for height, width in shapes.values()], dtype=np.float64)
        self.edges = np.cumsum(areas) / areas.sum()
        self.length = max(len(shapes), int(areas.sum() / size**2))

    def __len__(self) -> int:
        return self.length

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a random crop; photos are chosen by their area, ``index`` spreads the choice over the epoch."""
        # The last edge can fall short of 1 by a rounding error.
        place = np.searchsorted(self.edges, (index + rng.random()) / self.length, side="right")
        which = min(int(place), len(self.keep) - 1)
        photo = self.photos[self.keep[which]]
        s = self.scale
        for _ in range(4):
            y = int(rng.integers((photo.shape[0] - self.size) // s + 1))
            x = int(rng.integers((photo.shape[1] - self.size) // s + 1))
            target = photo[y * s : y * s + self.size, x * s : x * s + self.size]
            if not self.flat or target.std() >= self.flat:
                break
        if self.small is not None:
            side = self.size // s
            given = self.small[which][y : y + side, x : x + side]
        else:
            given = self.degrade(np.ascontiguousarray(target), s, rng)
        turns = int(rng.integers(4)) if self.rotate else 0
        mirror = bool(self.flip and rng.random() < 0.5)
        return {"input": _tensor(given, turns, mirror), "target": _tensor(target, turns, mirror)}


class Whole:
    """Centre crops of validation photos with their reduced versions, the same every time."""

    def __init__(
        self, folder: str | Path, size: int, scale: int, degradation: dict | None, *, channels: int = 3, images: int = 0
    ) -> None:
        files = images_in(folder)
        files = files[:images] if images else files
        self.photos = Store(files, channels)
        # What is smaller shows nothing, and a metric's window would not fit into it.
        self.keep = [i for i, photo in enumerate(self.photos) if min(photo.shape[:2]) >= max(16, scale)]
        if not self.keep:
            raise ValueError(f"{folder}: no readable image of 16 or more pixels in it")
        self.size, self.scale = size, scale
        self.degrade = part("degradation", degradation or {"type": "bicubic"})

    def __len__(self) -> int:
        return len(self.keep)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the centre of photo ``index``, at most ``size`` pixels a side and a multiple of the scale."""
        photo = self.photos[self.keep[index]]
        h, w = (min(side, self.size) // self.scale * self.scale for side in photo.shape[:2])
        y, x = (photo.shape[0] - h) // 2, (photo.shape[1] - w) // 2
        target = np.ascontiguousarray(photo[y : y + h, x : x + w])
        return {"input": _tensor(self.degrade(target, self.scale, rng)), "target": _tensor(target)}


def _whole(pixels: np.ndarray, scale: int) -> np.ndarray:
    return np.ascontiguousarray(pixels[: pixels.shape[0] // scale * scale, : pixels.shape[1] // scale * scale])


def _tensor(pixels: np.ndarray, turns: int = 0, mirror: bool = False) -> Tensor:
    pixels = np.rot90(pixels, turns)
    pixels = pixels[:, ::-1] if mirror else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 255)
