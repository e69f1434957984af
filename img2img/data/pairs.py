"""Pairs of images: two parallel folders, or both halves of one image."""

from pathlib import Path

import numpy as np
from torch import Tensor

from img2img.data.images import resize, signed
from img2img.data.photos import Store, images_in


class Pairs:
    """``input`` and ``target``, (C, size, size) in [-1, 1], with the same crop and flip.

    Args:
        folder: holds A/ and B/ with the same file names (extensions may differ), or images with A left and B right.
        size: side in pixels.
        channels: 1 or 3, for both sides.
        flip: mirror half of the pairs.
        jitter: resize to ``size + jitter`` and crop at random (paper: 286 to 256).

    Raises:
        ValueError: no pairs, or a file without its partner.
    """

    def __init__(
        self, folder: str | Path, size: int, channels: int = 3, *, flip: bool = False, jitter: int = 0
    ) -> None:
        folder = Path(folder)
        self.size, self.flip, side = size, flip, size + jitter
        if (folder / "A").is_dir() and (folder / "B").is_dir():
            left, right = ({p.relative_to(folder / s).with_suffix(""): p for p in images_in(folder / s)} for s in "AB")
            for name in sorted(left.keys() ^ right.keys()):
                have, lack = ("A", "B") if name in left else ("B", "A")
                raise ValueError(f"{folder}: {have}/{name} has no partner in {lack}/; add it, or remove the file")
            self.stores = [
                Store([files[n] for n in sorted(left)], channels, f"to{side}", lambda p: resize(p, side, side))
                for files in (left, right)
            ]
            a, b = ({file: i for i, file in enumerate(store.files)} for store in self.stores)
            # A pair of which one half cannot be read is left out.
            self.places = [(a[left[n]], b[right[n]]) for n in sorted(left) if left[n] in a and right[n] in b]
        else:
            self.stores = [Store(images_in(folder), channels, f"halves{side}", lambda p: _halves(p, side))]
            self.places = [(i,) for i in range(len(self.stores[0]))]

    def __len__(self) -> int:
        return len(self.places)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return pair ``index``, cropped and perhaps mirrored."""
        sides = [store[place] for store, place in zip(self.stores, self.places[index], strict=True)]
        given, target = sides if len(sides) == 2 else np.split(sides[0], 2, axis=1)
        room = given.shape[0] - self.size
        y, x = (int(rng.integers(room + 1)), int(rng.integers(room + 1))) if room else (0, 0)
        mirror = bool(self.flip and rng.random() < 0.5)
        given, target = (image[y : y + self.size, x : x + self.size] for image in (given, target))
        return {"input": signed(given, mirror), "target": signed(target, mirror)}


def _halves(pixels: np.ndarray, side: int) -> np.ndarray:
    half = pixels.shape[1] // 2
    return np.concatenate(
        [resize(pixels[:, :half], side, side), resize(pixels[:, half : 2 * half], side, side)], axis=1
    )
