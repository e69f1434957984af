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


def panel(
    path: Path, box: tuple[int, int, int, int], models: list[str], scale: int, zoom: int, damage: int | None = None
) -> list[tuple[str, Image.Image]]:
    """Return the labelled crops of one photo; ``damage`` is the seed of what fast_real learns to mend."""
    truth = rgb(path)
    truth = np.ascontiguousarray(truth[: truth.shape[0] // scale * scale, : truth.shape[1] // scale * scale])
    small = bicubic(truth, scale) if damage is None else Realistic()(truth, scale, np.random.default_rng(damage))
    x, y, wide, high = box
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
    rows = [
        panel(photo, tuple(int(n) for n in box.split(",")), a.models, a.scale, a.zoom, a.damage)
        for photo, box in zip(a.photos, a.box, strict=True)
    ]
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
