"""Two sets of images without partners: for translation that is learnt from sets alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from img2img.data.images import files_in, shorter, signed, stored


class Unpaired:
    """``a`` (I, size, size) and ``b`` (C, size, size) in [-1, 1], which have nothing to do with each other.

    In training ``b`` is drawn at random whatever ``a`` is. In validation item i holds the i-th image of each set,
    sorted by name. Where both hold the same names (extensions may differ), these are true pairs, against which an
    output can be scored: items say so by ``paired``, and a pair of which one half cannot be read is left out.

    Args:
        folders: two folders, A's and B's; or one that holds both, see `domains`.
        size: side in pixels. The shorter side of an image is brought to ``size + jitter``.
        channels: of b: 1 (grey), 3 (RGB), 4 (RGB and alpha), or any number with .npy files.
        input_channels: of a; 0 for as many as b has.
        flip: mirror half of the images, each side by itself.
        jitter: room for random crops beside those that an image's shape leaves.
        validation: nothing is random: crops are the centres.

    Raises:
        ValueError: a folder is missing or has no images in it.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        size: int,
        channels: int = 3,
        *,
        input_channels: int = 0,
        flip: bool = False,
        jitter: int = 0,
        validation: bool = False,
    ) -> None:
        self.size, self.flip, self.validation = size, flip and not validation, validation
        side = size if validation else size + jitter
        self.sets, listed, readable = [], [], []
        for folder, count in zip(domains(folders, validation), (input_channels or channels, channels), strict=True):
            files = files_in(folder)
            self.sets.append(stored(files, count, f"shorter{side}", lambda pixels: shorter(pixels, side)))
            if not len(self.sets[-1]):
                raise ValueError(f"{folder}: no readable image in it")
            names = {path: path.relative_to(folder).with_suffix("") for path in files}
            listed.append(sorted(names.values()))
            readable.append({names[path]: place for place, path in enumerate(self.sets[-1].files)})
        a, b = readable
        known = sorted(a.keys() & b.keys()) if validation and listed[0] == listed[1] else []
        self.pairs = [(a[name], b[name]) for name in known]

    def __len__(self) -> int:
        return len(self.pairs) or max(len(images) for images in self.sets)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return an image of A and one of B, each cropped and perhaps mirrored; ``paired`` only of a true pair."""
        a, b = self.sets
        if self.pairs:
            one, other = self.pairs[index]
        else:
            one, other = index % len(a), index % len(b) if self.validation else int(rng.integers(len(b)))
        item = {"a": self._crop(a[one], rng), "b": self._crop(b[other], rng)}
        return item | ({"paired": torch.ones(())} if self.pairs else {})

    def _crop(self, pixels: np.ndarray, rng: np.random.Generator) -> Tensor:
        rooms = [side - self.size for side in pixels.shape[:2]]
        y, x = (room // 2 if self.validation else int(rng.integers(room + 1)) for room in rooms)
        mirror = bool(self.flip and rng.random() < 0.5)
        return signed(pixels[y : y + self.size, x : x + self.size], mirror)


def domains(folders: str | Path | Sequence[str | Path], validation: bool = False) -> tuple[Path, Path]:
    """Return the folders of the two sets.

    Args:
        folders: two folders; or one that holds A/ and B/, or trainA/, trainB/, testA/ and testB/.
        validation: take testA/ and testB/ in that case.

    Raises:
        ValueError: the folders hold no two sets.
    """
    places = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if len(places) == 2:
        return places[0], places[1]
    if len(places) != 1:
        raise ValueError(f"two sets of images come from one folder or two, not from {len(places)}")
    where = places[0]
    if not where.is_dir():
        raise ValueError(f"{where}: no such folder")
    for layout in ("{}", "test{}" if validation else "train{}"):
        found = where / layout.format("A"), where / layout.format("B")
        if all(folder.is_dir() for folder in found):
            return found
    wanted = "testA/ and testB/" if validation else "trainA/ and trainB/"
    raise ValueError(f"{where}: holds neither A/ and B/ nor {wanted}; name the two folders instead")
