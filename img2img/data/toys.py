"""Distributions whose modes are known, so that what a generator leaves out can be counted."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2img.data.images import signed, square
from img2img.data.photos import Store, images_in
from img2img.data.stream import Source
from img2img.metrics.modes import MIXTURES, Mixture


class Points:
    """Points ``real`` (2, 1, 1) of a mixture of Gaussians in the plane, in the papers' units; there is no end of them.

    Args:
        mixture: where they come from.
        count: how many make an epoch.
    """

    def __init__(self, mixture: Mixture, count: int = 2**20) -> None:
        self.mixture, self.count = mixture, count
        self.centres = mixture.centres.numpy()

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a point."""
        return {name: value[0] for name, value in self.items(np.array([index]), rng).items()}

    def items(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return many points at once, (N, 2, 1, 1)."""
        modes = rng.integers(len(self.centres), size=len(indices))
        points = self.centres[modes] + self.mixture.sigma * rng.standard_normal((len(indices), 2))
        return {"real": torch.from_numpy(points.astype(np.float32))[:, :, None, None]}


class Stacked:
    """Three digits, drawn apart, as red, green and blue (3, size, size) in [-1, 1]: 1,000 modes of equal weight.

    Che et al. 2016 (https://arxiv.org/abs/1612.02136), section 4.1; counted by ``modes[stacked_digits]``.

    Args:
        folder: digits, searched below; labels are not looked at.
        size: side in pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.digits = Store(images_in(folder), 1, f"square{size}", lambda pixels: square(pixels, size))

    def __len__(self) -> int:
        return len(self.digits)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return digit ``index`` as red beside any two."""
        chosen = index, *rng.integers(len(self.digits), size=2)
        return {"real": torch.cat([signed(self.digits[int(place)]) for place in chosen])}


def toy(name: str, folders: list[Path], size: int) -> Source:
    """Return a toy's samples by the name that pages use.

    Args:
        name: "ring-8", "grid-25" or "stacked_digits".
        folders: the digits' folder for the last; the others are drawn from nothing.
        size: side in pixels.

    Raises:
        ValueError: folders for what needs none, or not one for what needs it.
    """
    if name in MIXTURES:
        if folders:
            raise ValueError(f"{name} is drawn from a formula; leave the data folder out")
        return Points(MIXTURES[name])
    if len(folders) != 1:
        raise ValueError(f"{name} is made of one folder of digits, not {len(folders)}; img2img prepare digits")
    return Stacked(folders[0], size)


def draw_points(pipe: Any, path: Path, *, count: int, seed: int) -> None:
    """Draw what a trained generator of points makes, as a PNG.

    Args:
        pipe: an `img2img.pipeline.Pipeline`.
        path: the file.
        count: points.
        seed: of their latents.

    Raises:
        ValueError: the file is no .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: points are drawn as one picture; name a .png")
    mixture = MIXTURES[pipe.recipe.data.toy]
    clouds({pipe.name: mixture.points(pipe.draw(pipe.latents(count, seed)))}, mixture, path)


def clouds(points: dict[str, Tensor], mixture: Mixture, path: Path) -> None:
    """Draw clouds of points (N, 2), each with its name, beside the modes that they should show, as one PNG."""
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    columns = min(6, len(points))
    rows = -(-len(points) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    for place, (name, cloud) in enumerate(points.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.scatter(*mixture.centres.T, s=90, facecolors="none", edgecolors="#d62728", linewidths=0.8)
        axes.scatter(*cloud.cpu().T, s=1.5, alpha=0.4, color="#1f77b4", linewidths=0)
        axes.set(xlim=(-mixture.extent, mixture.extent), ylim=(-mixture.extent, mixture.extent), xticks=[], yticks=[])
        axes.set_aspect("equal")
        axes.set_title(name, fontsize=8)
    save_figure(figure, path)
