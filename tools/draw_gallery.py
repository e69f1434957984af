"""Draw one picture: random draws of generators, and below each drawn image the training image that is nearest to it.

What is drawn first is shown. Generators with classes have a row a class; those of captions draw held-out ones, and
need a folder with train/ and validation/ inside. For example:
python tools/draw_gallery.py --models acgan.digits=data/digits text_to_image.emoji=data/emoji -o gallery.png
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from img2img.data.captioned import Captioned
from img2img.data.images import Images
from img2img.imaging.picture import Picture, write
from img2img.metrics.neighbours import nearest_images
from img2img.pipeline import load
from img2img.systems.system import System

ROWS = 4
"""Rows of draws of a generator that has no classes."""
CELL = 48
"""Side in pixels that an image is enlarged to, or a little more: by a whole number."""
SPACE = 24
"""Pixels between generators."""


class Row(NamedTuple):
    """What was asked for, the images drawn, and the training image nearest to each: (N, C, H, W) in [0, 1]."""

    title: str
    drawn: Tensor
    nearest: Tensor


def asked(system: System, folder: Path, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Return for each row its title and what to ask the system for.

    Args:
        system: a generator of noise, of classes or of captions.
        folder: its data; of a generator of captions with validation/ inside.
        seed: of the captions that are chosen.

    Raises:
        ValueError: no captions in the folder, or other classes than the system's.
    """
    if classes := getattr(system.generator, "classes", 0):
        names = getattr(system.source([training(folder)]), "names", [f"code {place}" for place in range(classes)])
        return [(name, {"label": place}) for place, name in enumerate(names)]
    if system.recipe.task == "text":
        held = sorted(set(Captioned(folder / "validation", system.recipe.data.size, validation=True).names))
        chosen = np.random.default_rng(seed).permutation(held)[:ROWS].tolist()
        # A generator with boxes draws as large as the images that it is compared with.
        return [(name, {"text": name, "box": (0.0, 0.0, 1.0, 1.0)}) for name in chosen]
    return [("", {})] * ROWS


def training(folder: Path) -> Path:
    """Return the training images of a folder: train/ inside, or all of it."""
    return folder / "train" if (folder / "train").is_dir() else folder


def rows(system: System, folder: Path, *, count: int = 10, seed: int = 0, network: str = "pixels") -> list[Row]:
    """Return rows of ``count`` draws, none of them chosen, each with the nearest training image.

    Args:
        system: a generator of noise, of classes or of captions.
        folder: its data, see `asked`.
        count: draws a row.
        seed: of latents and captions.
        network: what is near: see `img2img.metrics.neighbours.nearest_images`.

    Raises:
        ValueError: unknown network, or a folder without images.
    """
    (low, high), data = system.span, system.recipe.data
    images = Images(training(folder), data.size, data.channels)
    rng = np.random.default_rng(0)  # nothing is drawn from it: no image is mirrored
    known = torch.stack([images.item(place, rng)["real"] for place in range(len(images))]) / 2 + 0.5
    torch.manual_seed(seed)
    wanted, drawn = asked(system, folder, seed), []
    with torch.inference_mode():
        for _, controls in wanted:
            made = system.infer(system.latents(count, torch.device("cpu")), **controls)
            drawn.append(((made - low) / (high - low) * 255).round() / 255)
    near = known[nearest_images(torch.cat(drawn), known, 1, network).indices[:, 0]].split(count)
    return [Row(title, *pair) for (title, _), *pair in zip(wanted, drawn, near, strict=True)]


def panel(name: str, found: list[Row]) -> Image.Image:
    """Return the rows of one generator as a picture, under its name."""
    count, size = len(found[0].drawn), found[0].drawn.shape[-1]
    zoom, gap, head = max(1, round(CELL / size)), 2, 22
    side, title = size * zoom + gap, head if found[0].title else 3 * gap
    sheet = Image.new("RGB", (side * count, head + len(found) * (title + 2 * side)), "white")
    draw, top = ImageDraw.Draw(sheet), head
    draw.text((side * count / 2, head / 2), name, "black", ImageFont.load_default(15), anchor="mm")
    for row in found:
        draw.text((0, top + head / 2), row.title, "dimgrey", ImageFont.load_default(12), anchor="lm")
        top += title
        for images in (row.drawn, row.nearest):
            pixels = (functional.interpolate(images, scale_factor=zoom) * 255).round().byte().permute(0, 2, 3, 1)
            for place, each in enumerate(pixels.expand(-1, -1, -1, 3).numpy()):
                sheet.paste(Image.fromarray(each), (place * side, top))
            top += side
    return sheet


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER", help="weights or run folders=data")
    parser.add_argument("--count", type=int, default=10, help="draws a row (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="pixels", help="what is near: pixels, or e.g. classifier.digits")
    parser.add_argument("-o", "--out", required=True)
    a = parser.parse_args()
    panels = []
    try:
        for each in a.models:
            name, _, folder = each.partition("=")
            if not folder:
                raise ValueError(f"{each}: name the folder of its data too, {each}=FOLDER")
            pipe = load(name, device="cpu", precision="fp32")
            if pipe.verb != "synthesize":
                raise ValueError(f"{name} (task {pipe.task}) makes images from images, and has no draws to show")
            found = rows(pipe.system, Path(folder), count=a.count, seed=a.seed, network=a.network)
            panels.append(panel(Path(name).name, found))
    except (ValueError, OSError) as error:
        parser.exit(1, f"draw_gallery: {error}\n")
    left, width, height = 0, sum(each.width for each in panels), max(each.height for each in panels)
    sheet = Image.new("RGB", (width + SPACE * (len(panels) - 1), height), "white")
    for each in panels:
        sheet.paste(each, (left, 0))
        left += each.width + SPACE
    write(a.out, Picture(np.asarray(sheet)))


if __name__ == "__main__":
    main()
