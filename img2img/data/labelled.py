"""Images with classes, and beside them images of another domain that have none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from img2img.data.images import files_in, signed, squares
from img2img.data.table import lines
from img2img.data.unpaired import domains


class Labelled:
    """``real`` (C, size, size) in [-1, 1] and its class ``label``, a whole number () from 0.

    Args:
        folder: with a folder a class, numbered as their names sort; or with labels.csv (columns file and label).
        size: side in pixels; of each image the largest centred square counts.
        channels: 1 (grey) or 3 (RGB).
        flip: mirror half of the images.
        classes: how many there must be; 0 for as many as there are.
        names: of the classes in the order of their numbers, where another set has numbered them; some may lack here.

    Raises:
        ValueError: no classes in the folder, another number of them, or one that is not among ``names``.

    Attributes:
        names: of the classes, in the order of their numbers.
        labels: of all images, (N,).
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        channels: int = 1,
        *,
        flip: bool = False,
        classes: int = 0,
        names: Sequence[str] = (),
    ) -> None:
        files, found = labels_in(folder)
        self.names = list(names) or sorted(set(found))
        if strange := sorted(set(found) - set(self.names)):
            raise ValueError(
                f"{folder}: its class {strange[0]!r} is none of those that are learnt: {', '.join(self.names[:9])}"
            )
        if classes and len(self.names) != classes:
            shown = ", ".join(self.names[:3])
            raise ValueError(
                f"{folder}: holds {len(self.names)} classes ({shown}, ...), the page knows {classes}; train with "
                f"classes = {len(self.names)} in every network that has it (--set networks.ROLE.classes=...)"
            )
        self.flip = flip
        self.images = squares(files, channels, size)
        known = dict(zip(files, found, strict=True))
        numbers = {name: place for place, name in enumerate(self.names)}
        self.labels = torch.tensor([numbers[known[path]] for path in self.images.files], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return image ``index``, perhaps mirrored, and its class."""
        mirror = bool(self.flip and rng.random() < 0.5)
        return {"real": signed(self.images[index], mirror), "label": self.labels[index].clone()}


class FewLabels(Labelled):
    """``real`` images of whatever class, and beside each a ``labelled`` one with its ``label``, drawn of a few.

    The few are the first of each class as file names sort, as many of each.

    Args:
        folder, size, channels, flip, classes: as in `Labelled`.
        labels: how many of all images have a label; 0 for all.

    Raises:
        ValueError: as `Labelled`, or no number of labels that all classes can have alike, or have.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        channels: int = 1,
        *,
        labels: int = 0,
        flip: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__(folder, size, channels, flip=flip, classes=classes)
        count = len(self.names)
        if labels % count:
            raise ValueError(f"data.labels = {labels} must be a multiple of the {count} classes, e.g. {count * 10}")
        fewest = min(int((self.labels == place).sum()) for place in range(count))
        if labels // count > fewest:
            wanted = labels // count
            raise ValueError(f"{folder}: has a class of {fewest} images; data.labels = {labels} wants {wanted} of each")
        self.known = torch.cat(
            [torch.nonzero(self.labels == place)[: labels // count or None, 0] for place in range(count)]
        )

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return image ``index``, and an image of the few with its class."""
        few = super().item(int(self.known[rng.integers(len(self.known))]), rng)
        return {"real": super().item(index, rng)["real"], "labelled": few["real"], "label": few["label"]}


class Adaptation:
    """Labelled images of one domain, images of another: ``source``, ``label``, ``target``, both in [-1, 1].

    In training ``target`` is drawn at random whatever ``source`` is, and its class is never looked at. In validation
    the classes of targets are known too, ``target_label``: the target's folder must then hold classes as the source's.

    Args:
        folders: the source's, with classes (see `Labelled`), and the target's; or one that holds both, see `domains`.
        size: side in pixels.
        channels: of the target. input_channels: of the source; 0 for as many.
        classes: as in `Labelled`.
        flip: mirror half of the images, each side by itself.
        validation: nothing is random, and targets have labels.
        names: as in `Labelled`.

    Raises:
        ValueError: no two sets, or one without classes where they are needed.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        size: int,
        channels: int = 3,
        *,
        input_channels: int = 0,
        classes: int = 0,
        flip: bool = False,
        validation: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        source, target = domains(folders, validation)
        self.validation, self.flip = validation, flip and not validation
        self.source = Labelled(source, size, input_channels or channels, flip=self.flip, classes=classes, names=names)
        if not len(self.source):
            raise ValueError(f"{source}: no readable image in it")
        self.names = self.source.names
        self.labelled = Labelled(target, size, channels, names=self.names) if validation else None
        self.targets = self.labelled.images if self.labelled else squares(files_in(target), channels, size)
        if not len(self.targets):
            raise ValueError(f"{target}: no readable image in it")

    def __len__(self) -> int:
        return max(len(self.source), len(self.targets))

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a labelled source image and a target image."""
        found = self.source.item(index % len(self.source), rng)
        other = index % len(self.targets) if self.validation else int(rng.integers(len(self.targets)))
        mirror = bool(self.flip and rng.random() < 0.5)
        item = {"source": found["real"], "label": found["label"], "target": signed(self.targets[other], mirror)}
        return item | ({"target_label": self.labelled.labels[other].clone()} if self.labelled else {})


def labels_in(folder: str | Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder and the name of each one's class.

    Raises:
        ValueError: there is no such folder, no class in it, or a line of labels.csv that does not fit.
    """
    folder = Path(folder)
    table = folder / "labels.csv"
    if not table.is_file():
        files = files_in(folder)
        names = [path.relative_to(folder).parts[0] for path in files]
        if loose := [path for path in files if path.parent == folder]:
            raise ValueError(
                f"{loose[0]}: belongs to no class; put images into one folder a class, or write labels.csv (file,label)"
            )
        return files, names
    labels: dict[Path, str] = {}
    for row in lines(table, "file", "label"):
        known = labels.setdefault(folder / row["file"], row["label"])
        if known != row["label"]:
            raise ValueError(f"{table}: {row['file']} is {known!r} in one line and {row['label']!r} in another")
    return list(labels), list(labels.values())
