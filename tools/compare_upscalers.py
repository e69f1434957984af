"""Draw one picture: crops of photos as bicubic, as each model makes them, and as they were.

Each photo is reduced by bicubic first, or damaged; several photos give several rows. For example:
python tools/compare_upscalers.py truth.png --box 180,60,128,128 --models fast.x4 fast_gan.x4 -o comparison.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import img2img
from img2img.data.degrade import Realistic, bicubic
from img2img.data.photos import rgb
from img2img.imaging.picture import Picture, write


def corners(text: str, photo: Path) -> tuple[int, int, int, int]:
    """Return the numbers of a box.

    Raises:
        ValueError: it has not four of them, or no pixel.
    """
    try:
        x, y, wide, high = (int(number) for number in text.split(","))
    except ValueError:
        wide = high = 0
    if min(wide, high) < 1:
        raise ValueError(
            f"--box {text} for {photo}: expected left,top,width,height in whole pixels, e.g. 180,60,128,128"
        )
    return x, y, wide, high


def panel(
    path: Path, box: tuple[int, int, int, int], models: list[str], scale: int, zoom: int, damage: int | None = None
) -> list[tuple[str, Image.Image]]:
    """Return the labelled crops of one photo; ``damage`` is the seed of what fast_real learns to mend.

    Raises:
        ValueError: an unreadable photo, an unknown model, or a box that reaches out of the photo.
    """
    truth = rgb(path)
    truth = np.ascontiguousarray(truth[: truth.shape[0] // scale * scale, : truth.shape[1] // scale * scale])
    x, y, wide, high = box
    height, width = truth.shape[:2]
    if min(x, y) < 0 or x + wide > width or y + high > height:
        raise ValueError(
            f"--box {x},{y},{wide},{high} reaches out of {path}; choose one within {width} x {height} pixels, "
            f"as far as --scale {scale} divides the photo"
        )
    small = bicubic(truth, scale) if damage is None else Realistic()(truth, scale, np.random.default_rng(damage))
    found = [("bicubic", np.asarray(Image.fromarray(small).resize(truth.shape[1::-1], Image.Resampling.BICUBIC)))]
    found += [(name, img2img.upscale(small, model=name)) for name in models] + [("truth", truth)]
    size = (wide * zoom, high * zoom)
    return [
        (name, Image.fromarray(pixels[y : y + high, x : x + wide]).resize(size, Image.Resampling.NEAREST))
        for name, pixels in found
    ]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--box", action="append", required=True, help="left,top,width,height in the photo; one a photo")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--damage", type=int, metavar="SEED", help="damage photos as fast_real learns to mend them")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--zoom", type=int, default=2)
    parser.add_argument("-o", "--out", required=True)
    a = parser.parse_args()
    try:
        if len(a.box) != len(a.photos):
            lacks = f", {a.photos[len(a.box)]} has none" if len(a.box) < len(a.photos) else ""
            raise ValueError(f"{len(a.box)} --box for {len(a.photos)} photos{lacks}; give one --box for each photo")
        boxes = [corners(box, photo) for photo, box in zip(a.photos, a.box, strict=True)]
        rows = [
            panel(photo, box, a.models, a.scale, a.zoom, a.damage) for photo, box in zip(a.photos, boxes, strict=True)
        ]
    except (ValueError, OSError) as error:
        parser.exit(1, f"compare_upscalers: {error}\n")
    gap, head = 6, 22
    width = max(sum(image.width + gap for _, image in row) for row in rows) - gap
    sheet = Image.new("RGB", (width, head + sum(row[0][1].height + gap for row in rows) - gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    top = head
    for row in rows:
        left = 0
        for name, image in row:
            sheet.paste(image, (left, top))
            if top == head:
                draw.text((left + image.width / 2, head / 2), name, "black", font, anchor="mm")
            left += image.width + gap
        top += row[0][1].height + gap
    write(a.out, Picture(np.asarray(sheet)))


if __name__ == "__main__":
    main()
