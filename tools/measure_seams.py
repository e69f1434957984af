"""Measure whether the borders of tiles show in what translators make of a large image.

The seam is the mean difference of neighbouring pixels across the borders over that everywhere else: 1 where nothing
shows. It stands beside that of the same places in the image made at once, and of tiles that know nothing of one
another. For example: python tools/measure_seams.py cyclegan.topographic cut.topographic --image photo.png --tile 128
"""

import argparse
from pathlib import Path

import numpy as np

import img2img
from img2img.data.photos import rgb


def seam(pixels: np.ndarray, tile: int) -> float:
    """Return the mean step across the borders of square tiles over the mean step elsewhere; (H, W, C), uint8."""
    across, elsewhere = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels.astype(np.float64), axis=axis)).mean(axis=(1 - axis, 2))
        border = (np.arange(len(steps)) + 1) % tile == 0
        across.append(steps[border])
        elsewhere.append(steps[~border])
    return float(np.concatenate(across).mean() / np.concatenate(elsewhere).mean())


def apart(pixels: np.ndarray, tile: int, model: str) -> np.ndarray:
    """Return what becomes of an image whose tiles are translated as images of their own."""
    out = np.empty_like(pixels)
    for top in range(0, pixels.shape[0], tile):
        for left in range(0, pixels.shape[1], tile):
            place = np.s_[top : top + tile, left : left + tile]
            out[place] = img2img.translate(pixels[place], model=model, precision="fp32")
    return out


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="translators that give RGB of RGB")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--tile", type=int, default=128)
    a = parser.parse_args()
    lines = ["|  | whole image | our tiles | tiles apart | most that our tiles differ, grey levels | mean |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    try:
        pixels = rgb(a.image)
        for model in a.models:
            whole, ours = (img2img.translate(pixels, model=model, precision="fp32", tile=tile) for tile in (0, a.tile))
            seams = [seam(each, a.tile) for each in (whole, ours, apart(pixels, a.tile, model))]
            differ = np.abs(whole.astype(int) - ours.astype(int))
            numbers = " | ".join(f"{value:.3f}" for value in seams)
            lines.append(f"| {model} | {numbers} | {differ.max()} | {differ.mean():.2f} |")
    except (ValueError, OSError) as error:
        parser.exit(1, f"measure_seams: {error}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
