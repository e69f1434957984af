"""Pairs made from a folder of images: the original is the target, and what is made of it the input.

A maker is a function ``(pixels, rng, *, options) -> pixels``: (H, W, 3) uint8 in, (H, W, 1 or 3) uint8 of the same
height and width out. All chance comes from ``rng``.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from img2img.checkpoint import atomic
from img2img.data.images import square
from img2img.data.photos import images_in, is_split, rgb
from img2img.imaging import picture
from img2img.registry import part

RECORD = "made.json"


def edges(pixels: np.ndarray, rng: Generator, *, low: float = 50, high: float = 150, sigma: float = 1.0) -> np.ndarray:
    """Thin black edges on white, (H, W, 1): Canny 1986, https://doi.org/10.1109/TPAMI.1986.4767851.

    Args:
        pixels: the original.
        rng: not used.
        low: gradient from which an edge goes on, in grey levels as OpenCV's Sobel filter sums them.
        high: gradient from which an edge starts.
        sigma: of the Gaussian before, in pixels; 0: none.
    """
    smooth = cv2.GaussianBlur(_grey(pixels), (0, 0), sigma) if sigma else _grey(pixels)
    return 255 - cv2.Canny(smooth, low, high)[..., None]


def soft_edges(
    pixels: np.ndarray, rng: Generator, *, filter: Literal["sobel", "dog"] = "sobel", sigma: float = 1.0
) -> np.ndarray:
    """Edges in shades of grey on white, (H, W, 1), as dark as they are steep; the steepest hundredth is black.

    Args:
        pixels: the original.
        rng: not used.
        filter: "sobel" for the length of the gradient, "dog" for the absolute difference of two Gaussians
            (Marr and Hildreth 1980, https://doi.org/10.1098/rspb.1980.0020), the second 1.6 times as wide.
        sigma: of the (first) Gaussian, in pixels.
    """
    if sigma <= 0:
        raise ValueError(f"make soft_edges: sigma is {sigma}; it must be over 0")
    smooth = cv2.GaussianBlur(_grey(pixels).astype(np.float32), (0, 0), sigma)
    if filter == "sobel":
        steep = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    else:
        steep = np.abs(smooth - cv2.GaussianBlur(_grey(pixels).astype(np.float32), (0, 0), 1.6 * sigma))
    top = max(float(np.percentile(steep, 99)), 1.0)  # a flat image has no edges, and noise is not to become some
    return np.rint(255 * (1 - np.clip(steep / top, 0, 1))).astype(np.uint8)[..., None]


def outer_edges(pixels: np.ndarray, rng: Generator, *, radius: int = 1) -> np.ndarray:
    """Dark lines on white along the outside of what is bright, (H, W, 1): the image, subtracted from its dilation.

    Liu and Tuzel 2016 (https://arxiv.org/abs/1606.07536) train CoGAN on digits and such edges of digits.

    Args:
        pixels: the original.
        rng: not used.
        radius: of the square that dilates, in pixels, 1 or more; the lines are as wide.
    """
    if radius < 1:
        raise ValueError(f"make outer_edges: radius is {radius}; it must be 1 or more")
    plain = _grey(pixels)
    return 255 - (cv2.dilate(plain, np.ones((2 * radius + 1,) * 2, np.uint8)) - plain)[..., None]


def grey(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Grey levels, (H, W, 1), by the luma weights of ITU-R BT.601: for colouring."""
    return _grey(pixels)[..., None]


def low_light(
    pixels: np.ndarray, rng: Generator, *, gamma: float = 2.5, gain: float = 0.7, noise: float = 6.0
) -> np.ndarray:
    """The image in bad light: ``gain * value ** gamma`` on [0, 1], and Gaussian noise, (H, W, 3).

    Args:
        pixels: the original.
        rng: draws the noise.
        gamma: over 1 darkens the middle tones.
        gain: brightness of what was white.
        noise: standard deviation in grey levels.
    """
    dark = 255 * gain * (pixels.astype(np.float32) / 255) ** gamma
    dark += rng.normal(0, noise, pixels.shape) if noise else 0
    return np.rint(np.clip(dark, 0, 255)).astype(np.uint8)


def masks(
    pixels: np.ndarray,
    rng: Generator,
    *,
    shape: Literal["rectangles", "strokes"] = "rectangles",
    share: float = 0.25,
    fill: int = 255,
) -> np.ndarray:
    """The image with parts erased, (H, W, 3): for inpainting.

    Args:
        pixels: the original.
        rng: draws the parts.
        shape: rectangles, or strokes of a thick brush.
        share: erase until at least this share of the pixels is gone, below 1.
        fill: grey level of what is erased.
    """
    if not 0 < share < 1 or not 0 <= fill <= 255:
        raise ValueError(f"make masks: share {share} must be between 0 and 1, and fill {fill} from 0 to 255")
    height, width = pixels.shape[:2]
    gone = np.zeros((height, width), np.uint8)
    while gone.mean() < share:
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if shape == "rectangles":
            w, h = (max(1, int(side * rng.uniform(0.1, 0.4))) for side in (width, height))
            gone[max(0, y - h // 2) : y + (h + 1) // 2, max(0, x - w // 2) : x + (w + 1) // 2] = 1
        else:
            angle, thick = rng.uniform(0, 2 * np.pi), max(1, round(min(height, width) * rng.uniform(0.02, 0.08)))
            for _ in range(int(rng.integers(2, 6))):
                length = min(height, width) * rng.uniform(0.1, 0.3)
                end = round(x + length * np.cos(angle)), round(y + length * np.sin(angle))
                cv2.line(gone, (x, y), end, 1, thick)
                (x, y), angle = end, angle + rng.uniform(-1, 1)
    return np.where(gone[..., None] > 0, np.uint8(fill), pixels)


def blur(pixels: np.ndarray, rng: Generator, *, sigma: float = 3.0) -> np.ndarray:
    """The image through a Gaussian of ``sigma`` pixels, (H, W, 3)."""
    if sigma <= 0:
        raise ValueError(f"make blur: sigma is {sigma}; it must be over 0")
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def pixelate(pixels: np.ndarray, rng: Generator, *, block: int = 8) -> np.ndarray:
    """The image in squares of ``block`` pixels, each of its mean colour, (H, W, 3)."""
    if block < 1:
        raise ValueError(f"make pixelate: block is {block}; it must be 1 or more")
    height, width = pixels.shape[:2]
    room = ((0, -height % block), (0, -width % block), (0, 0))
    whole = np.pad(pixels, room, mode="edge").astype(np.float32)
    means = whole.reshape(whole.shape[0] // block, block, -1, block, 3).mean((1, 3))
    found = np.rint(means).astype(np.uint8).repeat(block, 0).repeat(block, 1)
    return np.ascontiguousarray(found[:height, :width])


def make_pairs(
    source: str | Path, make: str | dict[str, Any], out: str | Path, *, size: int = 0, seed: int = 0, **options: Any
) -> Path:
    """Write ``out/A/NAME.png`` (made) and ``out/B/NAME.png`` (original) for every image below a folder.

    The folder's tree is kept; of one that holds train/ and validation/ both are made into pairs, each by itself. The
    same command again does only what is missing. What is random follows from the seed and an image's name. A file that
    cannot be read costs one line on stderr and is counted there in the end.

    Args:
        source: folder of images.
        make: a maker's name, or a table ``{"type": name, option: value}``.
        out: folder to fill.
        size: bring the largest centred square of an image to so many pixels a side; 0 keeps images as they are. The
            original is written as 8-bit RGB, with alpha laid on white.
        seed: 0 or more.
        options: the maker's, e.g. ``low=30``.

    Returns:
        ``out``.

    Raises:
        ValueError: an unknown maker or option, no readable image, or a folder that holds pairs made otherwise.
    """
    source, out = Path(source), Path(out)
    spec = ({"type": make} if isinstance(make, str) else dict(make)) | options
    maker = part("make", spec)
    if size < 0 or seed < 0:
        raise ValueError(f"size {size} and seed {seed} must be 0 or more")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: lies within {source}, whose images would be made from again; choose another folder")
    parts = ("train", "validation") if is_split(source) else ("",)
    files = [(part, file) for part in parts for file in images_in(source / part)]
    maker(np.zeros((16, 16, 3), np.uint8), np.random.default_rng(0))  # a bad option is told before any work
    record = json.dumps({"make": spec, "size": size, "seed": seed}, sort_keys=True)
    if (out / RECORD).exists():
        if (out / RECORD).read_text(encoding="utf-8") != record:
            raise ValueError(f"{out}: holds pairs that were made otherwise; choose another folder, or remove it")
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out}: is not empty, and holds no pairs that were made here; choose another folder")
    else:
        with atomic(out / RECORD) as path:
            path.write_text(record, encoding="utf-8")
    names = [
        Path(part, name)
        for part in parts
        for name in _names([file.relative_to(source / part) for within, file in files if within == part])
    ]
    files = [file for _, file in files]

    def write(place: int) -> bool:
        part = names[place].parts[0] if len(parts) > 1 else ""
        targets = [out / part / side / names[place].relative_to(part) for side in "AB"]
        if all(target.exists() for target in targets):
            return True
        try:
            pixels = rgb(files[place], 3)
            pixels = square(pixels, size) if size else pixels
            digest = hashlib.sha256(f"{seed} {names[place].as_posix()}".encode()).digest()
            made = maker(pixels, np.random.default_rng(int.from_bytes(digest[:16], "big")))
        except (ValueError, cv2.error, MemoryError) as error:
            line = " ".join(str(error).split())
            tqdm.write(f"{line if str(files[place]) in line else f'{files[place]}: {line}'} (skipped)", file=sys.stderr)
            return False
        for target, image in zip(targets, (made, pixels), strict=True):
            picture.write(target, picture.Picture(image))
        return True

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            done = pool.map(write, range(len(files)))
            good = sum(tqdm(done, total=len(files), desc=spec["type"], unit="image", disable=None, leave=False))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not good:
        raise ValueError(f"{source}: none of its {len(files)} images can be read")
    if good < len(files):
        tqdm.write(f"{len(files) - good} of {len(files)} images cannot be read and are left out", file=sys.stderr)
    return out


def _names(files: list[Path]) -> list[Path]:
    """Return a name with ``.png`` for each file; of those that would have one, all but one get more in the name."""
    often = Counter(file.with_suffix("").as_posix().casefold() for file in files)
    # Those whose own name nobody else wants keep it.
    taken = {stem for stem, count in often.items() if count == 1}
    found = []
    for file in files:
        stem = file.with_suffix("")
        if often[stem.as_posix().casefold()] > 1:
            first = stem = stem.with_name(f"{file.stem}_{file.suffix[1:].lower()}")
            number = 1
            while stem.as_posix().casefold() in taken:
                number += 1
                stem = first.with_name(f"{first.name}_{number}")
            taken.add(stem.as_posix().casefold())
        found.append(stem.with_name(f"{stem.name}.png"))
    return found


def _grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
