"""Images with captions, and perhaps a box in which the image's object is to lie, or its extreme points."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from img2img.data.images import resize, signed, squares
from img2img.data.table import lines
from img2img.metrics.boxes import drawn_points

WORD = re.compile(r"[^\W_]+")
"""What a word of a text is: letters and digits."""

BUCKETS = 4096
"""Numbers that pieces of text are hashed to; 0 stands for nothing."""

LENGTH = 96
"""Pieces of a caption that count."""


def pieces(text: str) -> Tensor:
    """Return a text as the numbers of its words and of their runs of three letters, (LENGTH,), filled up with 0.

    So a word that was never seen is like those that share letters with it. Case and punctuation do not count; the hash
    is CRC-32, the same on every machine.
    """
    words = WORD.findall(text.lower())
    found = words + [f" {word} "[at : at + 3] for word in words for at in range(len(word)) if len(word) > 1]
    numbers = [1 + zlib.crc32(piece.encode()) % (BUCKETS - 1) for piece in found[:LENGTH]]
    return torch.tensor(numbers + [0] * (LENGTH - len(numbers)))


class Captioned:
    """``real`` (C, size, size) in [-1, 1], its caption as an encoder reads it, ``read``, and in pieces, ``text``.

    captions.csv in the folder has the columns file, name and perhaps keywords; an image with several captions has
    several lines. The caption is the name followed
    by all keywords; in training every second time the name alone.

    Args:
        folder: the images, with captions.csv.
        size: side in pixels.
        channels: 1 (grey) or 3 (RGB).
        read: what an encoder's ``forward`` takes of a text.
        boxes: put the image, reduced, at a random place on white, and tell where, ``box`` (4,): x0, y0, x1, y1 in
            shares of the side.
        points: put the image so too, and tell where it reaches to, ``points`` (4, 2), x and y in shares of the side.
            Nobody marked these: they are the extreme points of what is not white, see
            `img2img.metrics.boxes.drawn_points`, as it stands there, mirrored or not.
        flip: mirror half of the images.
        validation: nothing is random but the places.

    Raises:
        ValueError: no captions.csv, or one that does not fit the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        channels: int = 3,
        *,
        read: Callable[[str], Tensor] = pieces,
        boxes: bool = False,
        points: bool = False,
        flip: bool = False,
        validation: bool = False,
    ) -> None:
        self.size, self.read, self.validation = size, read, validation
        self.boxes, self.points = boxes, points
        self.flip = flip and not validation
        table = Path(folder) / "captions.csv"
        if not table.is_file():
            raise ValueError(f"{folder}: has no captions.csv with the columns file and name; write one line an image")
        rows = lines(table, "file", "name")
        self.images = squares([Path(folder) / row["file"] for row in rows], channels, size)
        # An image may have several lines, so that names alone do not say which of them was read.
        left_out = set(self.images.skipped)
        kept = [row for row in rows if Path(folder) / row["file"] not in left_out]
        self.names = [row["name"] for row in kept]
        self.keywords = [(row.get("keywords") or "").split() for row in kept]

    def __len__(self) -> int:
        return len(self.images)

    def caption(self, index: int, rng: np.random.Generator) -> str:
        """Return what is said of image ``index``."""
        whole = self.validation or rng.random() < 0.5
        return " ".join([self.names[index], *self.keywords[index]]) if whole else self.names[index]

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return image ``index``, perhaps mirrored and elsewhere, and a caption."""
        pixels = self.images[index]
        caption = self.caption(index, rng)
        found = {"text": pieces(caption), "read": self.read(caption)}
        if self.boxes or self.points:
            side = int(rng.integers(self.size // 3, self.size + 1))
            x, y = (int(rng.integers(self.size - side + 1)) for _ in range(2))
            canvas = np.full_like(pixels, 255)
            canvas[y : y + side, x : x + side] = resize(pixels, side, side)
            pixels = canvas
        mirror = bool(self.flip and rng.random() < 0.5)
        real = signed(pixels, mirror)
        if self.boxes:
            x = self.size - side - x if mirror else x
            found["box"] = torch.tensor([x, y, x + side, y + side]) / self.size
        if self.points:
            found["points"] = drawn_points(real[None] / 2 + 0.5)[0]
        return found | {"real": real}
