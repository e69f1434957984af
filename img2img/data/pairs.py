"""Pairs of images: two folders, both halves of one image, or a CSV file that names them."""

import csv
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from img2img.data.images import FILES, files_in, resize, signed, stored
from img2img.registry import part

SIDES = ("input", "target")

TABLE = "pairs.csv"
"""Name of a table of pairs in a folder of images, see `rows`."""


class Pairs:
    """``input`` (I, size, size) and ``target`` (C, size, size) in [-1, 1], with the same crop, flip and rotation.

    Args:
        folders: one folder that holds A/ and B/ with the same file names (extensions may differ), or images with A
            left and B right, or pairs.csv; a CSV file (see `rows`); or two folders, A's and B's.
        size: side in pixels; images of any shape are resized to it.
        channels: of the target: 1 (grey), 3 (RGB), 4 (RGB and alpha), or any number with .npy files.
        input_channels: of the input; 0 for as many as the target has.
        direction: "ab" makes B from A, "ba" A from B.
        flip: mirror half of the pairs.
        jitter: resize to ``size + jitter`` and crop at random (paper: 286 to 256).
        augment: options of `Augment`, e.g. ``{"rotate": 10, "brightness": 0.1}``.

    Raises:
        ValueError: no pairs, a file without its partner, or an unknown option.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        size: int,
        channels: int = 3,
        *,
        input_channels: int = 0,
        direction: Literal["ab", "ba"] = "ab",
        flip: bool = False,
        jitter: int = 0,
        augment: dict | None = None,
    ) -> None:
        if direction not in ("ab", "ba"):
            raise ValueError(f"direction {direction!r} is neither 'ab' nor 'ba'")
        self.size, self.flip, side = size, flip, size + jitter
        counts = (input_channels or channels, channels)
        self.augment = part("augment", {"type": "paired"} | augment) if augment else None
        if self.augment is not None:
            self.augment.check(counts)
        files, halves = partners(folders)
        if direction == "ba":
            files = [pair[::-1] for pair in files]
        crops = [(0, 1), (0, 1)] if not halves else [(0, 2), (1, 2)] if direction == "ab" else [(1, 2), (0, 2)]
        self.stores, readable = [], None
        for place, (count, (half, of)) in enumerate(zip(counts, crops, strict=True)):
            names = sorted({pair[place] for pair in files})
            if halves and readable is not None:  # the same files again: what is damaged has been named
                names = readable
            name = f"half{half}to{side}" if halves else f"to{side}"
            self.stores.append(stored(names, count, name, lambda p, h=half, n=of: resize(_cut(p, h, n), side, side)))
            readable = self.stores[-1].files
        first, second = ({file: i for i, file in enumerate(store.files)} for store in self.stores)
        # A pair of which one half cannot be read is left out.
        self.places = [(first[a], second[b]) for a, b in files if a in first and b in second]

    def __len__(self) -> int:
        return len(self.places)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return pair ``index``, cropped, perhaps mirrored, and augmented."""
        sides = [store[place] for store, place in zip(self.stores, self.places[index], strict=True)]
        if self.augment is not None:
            sides = self.augment.move(*sides, rng)
        room = sides[0].shape[0] - self.size
        y, x = (int(rng.integers(room + 1)), int(rng.integers(room + 1))) if room else (0, 0)
        mirror = bool(self.flip and rng.random() < 0.5)
        sides = [image[y : y + self.size, x : x + self.size] for image in sides]
        if self.augment is not None:
            sides = self.augment.paint(*sides, rng)
        return {name: signed(image, mirror) for name, image in zip(SIDES, sides, strict=True)}


class Augment:
    """Random changes of a pair by albumentations: the same movement of both sides, and changes of colour.

    All chance comes from the given generator. What moves in from outside the image is its mirror image.

    Args:
        rotate: turn by up to so many degrees, either way.
        scale: enlarge or reduce by up to this share, e.g. 0.1 for factors from 0.9 to 1.1.
        turn: turn by a multiple of 90 degrees and mirror, each of the eight ways as often.
        brightness: change by up to this share.
        contrast: change by up to this share.
        saturation: change by up to this share.
        hue: shift by up to this share of the colour circle, at most 0.5.
        colour: "both" paints both sides with the same change, "input" the input alone.
        cutout: blank one rectangle of the input in grey, each of its sides up to this share of the image's.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(
        self,
        *,
        rotate: float = 0.0,
        scale: float = 0.0,
        turn: bool = False,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        colour: Literal["both", "input"] = "both",
        cutout: float = 0.0,
    ) -> None:
        tops = {"rotate": (rotate, 180), "scale": (scale, 0.9), "hue": (hue, 0.5), "cutout": (cutout, 1)}
        tops |= {"brightness": (brightness, 1), "contrast": (contrast, 1), "saturation": (saturation, 1)}
        for name, (value, top) in tops.items():
            if not 0 <= value <= top:
                raise ValueError(f"{name} is {value}; it must be from 0 to {top}")
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
        import albumentations
        import cv2

        def compose(steps: list) -> albumentations.Compose | None:
            return albumentations.Compose(steps, additional_targets={"other": "image"}) if steps else None

        moves = []
        if rotate or scale:
            moves.append(
                albumentations.Affine(
                    rotate=(-rotate, rotate), scale=(1 - scale, 1 + scale), border_mode=cv2.BORDER_REFLECT_101, p=1
                )
            )
        if turn:
            moves.append(albumentations.D4(p=1))
        self.tints = bool(brightness or contrast or saturation or hue)
        paints = [albumentations.ColorJitter(brightness, contrast, saturation, hue, p=1)] if self.tints else []
        holes = []
        if cutout:
            share = (cutout / 10, cutout)
            holes = [albumentations.CoarseDropout((1, 1), share, share, fill=127, p=1)]
        self.colour = colour
        self.moves, self.paints, self.holes = compose(moves), compose(paints), compose(holes)

    def check(self, channels: tuple[int, int]) -> None:
        """Raise ValueError where a side whose colours are to change has neither 1 nor 3 channels."""
        for name, count in zip(SIDES, channels, strict=True):
            if self.tints and count not in (1, 3) and (name == "input" or self.colour == "both"):
                raise ValueError(f"augment changes colours of the {name}, which has {count} channels; it needs 1 or 3")

    def move(self, given: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Return both sides, (H, W, C) uint8 of the same height and width, moved alike."""
        return _apply(self.moves, given, target, rng)

    def paint(self, given: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Return both sides with other colours, and the input with a hole."""
        painted, other = _apply(self.paints, given, target, rng)
        target = other if self.colour == "both" else target
        return [_apply(self.holes, painted, painted, rng)[0], target]


def partners(folders: str | Path | Sequence[str | Path]) -> tuple[list[tuple[Path, Path]], bool]:
    """Return the files (A, B) of every pair, and whether they are the two halves of one file.

    Args:
        folders: see `Pairs`.

    Raises:
        ValueError: no pairs, or a file without its partner.
    """
    places = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if not 1 <= len(places) <= 2:
        raise ValueError(f"pairs come from one folder or two, not from {len(places)}")
    where = places[0]
    if len(places) == 1 and (where / TABLE).is_file():
        where = where / TABLE
    if len(places) == 1 and where.suffix.lower() == ".csv":
        return [_present(where, line, pair) for line, *pair in rows(where)], False
    if side_by_side(places):
        return [(path, path) for path in halves_in(where)], True
    sides = dict(zip("AB", places, strict=True)) if len(places) == 2 else {side: where / side for side in "AB"}
    left, right = (
        {path.relative_to(folder).with_suffix(""): path for path in files_in(folder)} for folder in sides.values()
    )
    for name in sorted(left.keys() ^ right.keys()):
        have, lack = ("A", "B") if name in left else ("B", "A")
        shown = (f"{have}/{name}", f"{lack}/") if len(places) == 1 else (name, sides[lack])
        raise ValueError(
            f"{sides[have].parent if len(places) == 1 else sides[have]}: {shown[0]} has no partner in "
            f"{shown[1]}; add it, or remove the file"
        )
    return [(left[name], right[name]) for name in sorted(left)], False


HALVES = "its images are read as pairs, A in their left half and B in their right"
"""What is told of a folder of which `side_by_side` is true."""


def side_by_side(folders: Sequence[Path]) -> bool:
    """Return whether the images of a folder are read as pairs, A in the left half and B in the right (see `Pairs`)."""
    where = folders[0]
    table = where.suffix.lower() == ".csv" or (where / TABLE).is_file()
    return len(folders) == 1 and not table and not all((where / side).is_dir() for side in "AB")


def halves_in(folder: Path) -> list[Path]:
    """Return the images of a folder whose halves are pairs.

    Raises:
        ValueError: its images lie in folders below it alone, as those of sets that are laid out otherwise do.
    """
    files = files_in(folder)
    if not any(path.parent == folder for path in files):
        below = ", ".join(sorted({f"{path.relative_to(folder).parts[0]}/" for path in files})[:4])
        raise ValueError(
            f"{folder}: holds images in {below} alone; pairs are A/ and B/ with partners of one name, two folders, "
            f"images with A left and B right, or a table {TABLE}"
        )
    return files


def rows(path: str | Path) -> list[tuple[int, Path, Path]]:
    """Return (line, input, target) of every row of a CSV file of pairs.

    A first line that names columns ``input`` and ``target`` says where they stand; else they are the first two, and a
    first line that names no image files is left out. Paths are relative to the CSV file's folder.

    Raises:
        ValueError: no such file, not UTF-8 text, no rows, or a row with fewer than two names.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            table = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it as UTF-8 text") from error
    table = [(line, row) for line, row in table if any(row)]
    columns = (0, 1)
    head = [cell.lower() for cell in table[0][1]] if table else []
    if set(SIDES) <= set(head):
        columns, table = (head.index("input"), head.index("target")), table[1:]
    elif head and not any(cell.endswith(FILES) for cell in head[:2]):
        table = table[1:]
    if not table:
        raise ValueError(f"{path}: no pairs in it; expected rows of two file names: input,target")
    for line, row in table:
        if len(row) <= max(columns) or not all(row[column] for column in columns):
            raise ValueError(f"{path}: line {line} does not name two files; expected input,target")
    return [(line, *(path.parent / row[column] for column in columns)) for line, row in table]


def _present(where: Path, line: int, pair: list[Path]) -> tuple[Path, Path]:
    for path in pair:
        if not path.is_file():
            raise ValueError(f"{where}: line {line}: no such file {path}; paths are relative to the CSV file's folder")
    return pair[0], pair[1]


def _cut(pixels: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return one of ``parts`` equal columns; what does not divide evenly is left out on the right."""
    width = pixels.shape[1] // parts
    if not width:
        raise ValueError(f"is {pixels.shape[1]} pixel wide, and read as {parts} halves")
    return pixels[:, part * width : (part + 1) * width]


def _apply(steps: Callable | None, given: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    if steps is None:
        return [given, target]
    steps.set_random_state(rng, random.Random(int(rng.integers(2**62))))
    found = steps(image=np.ascontiguousarray(given), other=np.ascontiguousarray(target))
    return [found["image"], found["other"]]
