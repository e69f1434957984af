"""Degradations: how a high-resolution crop becomes the low-resolution input of super-resolution.

Each is called as `degrade(crop, scale, rng)`: (H, W, C) uint8 in, (H / scale, W / scale, C) uint8 out. All chance
comes from the numpy Generator, so the same seed gives the same picture in any process.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

FILTERS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def bicubic(image: np.ndarray, scale: int, rng: Generator | None = None) -> np.ndarray:
    """Reduce an image exactly as Pillow's antialiased `Image.resize(..., BICUBIC)` does.

    Args:
        image: (H, W, C) uint8 or uint16, C in 1 (grey), 2 (grey and alpha), 3 (RGB), 4 (RGBA). Rows and columns beyond
            the last multiple of `scale` are cut off.
        scale: Integer factor, at least 1.
        rng: Not used; here so that all degradations are called alike.

    Returns:
        (H // scale, W // scale, C) of the same type. 8-bit images with alpha are weighted by it, as in Pillow; 16-bit
        channels, for which Pillow has no joint mode, are reduced one by one.

    Raises:
        ValueError: Another shape or type, or an image smaller than `scale`.
    """
    height, width = _checked(image, scale, (np.uint8, np.uint16), tuple(MODES))
    size, box = (width // scale, height // scale), (0, 0, width // scale * scale, height // scale * scale)
    if image.dtype == np.uint8:
        flat = np.ascontiguousarray(image if image.shape[2] > 1 else image[..., 0])
        small = np.asarray(Image.fromarray(flat, MODES[image.shape[2]]).resize(size, Image.Resampling.BICUBIC, box=box))
        return small.reshape(size[1], size[0], image.shape[2]).copy()
    planes = [Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[2])]
    return np.stack([plane.resize(size, Image.Resampling.BICUBIC, box=box) for plane in planes], axis=-1)


def unaligned(
    image: np.ndarray,
    scale: int,
    rng: Generator,
    *,
    turn: float = 15.0,
    move: float = 0.06,
    zoom: float = 0.1,
    noise: float = 10.0,
) -> np.ndarray:
    """Turn, move and zoom an image about its middle, reduce it by `bicubic`, and add noise (Yu and Porikli 2017).

    What it shows is no longer where the target shows it; https://doi.org/10.1109/CVPR.2017.570 does so to faces.

    Args:
        image: (H, W, C) uint8 with C in 1, 3.
        scale: Integer factor, at least 1.
        rng: Where all chance comes from.
        turn: Most degrees, either way.
        move: Most of a side, either way.
        zoom: Most that the factor differs from 1.
        noise: Sigma of Gaussian noise in grey levels.

    Returns:
        (H // scale, W // scale, C) uint8.

    Raises:
        ValueError: Another shape or type, an image smaller than `scale`, or an option out of its range.
    """
    height, width = _checked(image, scale, (np.uint8,), (1, 3))
    if not (0 <= turn <= 180 and 0 <= move <= 1 and 0 <= zoom < 1 and noise >= 0):
        raise ValueError(
            f"degradation unaligned: turn {turn}, move {move}, zoom {zoom}, noise {noise}; expected 0 to 180 degrees, "
            "shares of 0 to 1 and a sigma of 0 or more"
        )
    angle, factor = rng.uniform(-turn, turn), 1 + rng.uniform(-zoom, zoom)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, factor)
    matrix[:, 2] += rng.uniform(-move, move) * width, rng.uniform(-move, move) * height
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    small = bicubic(moved.reshape(image.shape), scale)
    return np.clip(np.rint(small + rng.normal(0, noise, small.shape)), 0, 255).astype(np.uint8)


class Realistic:
    """Degrade a photo twice over by blur, resizing, noise and JPEG (Wang et al. 2021, Real-ESRGAN, section 3.2).

    First pass: the four in random order. Second pass: blur, resizing and noise in random order, then, as in the paper
    (section 3.3), the resizing to the final size with an occasional sinc filter, and JPEG, in either order, so that
    about half of the results carry JPEG's 8 x 8 blocks as files from the wild do. The paper keeps the first order
    fixed; shuffling is Zhang et al.'s (BSRGAN, 2021). Left out: the paper's generalised and plateau-shaped kernels.

    The defaults are the ranges of the paper's appendix. Sigmas of blur are in pixels of the crop, those of noise in
    units of 1/255, JPEG qualities as libjpeg counts them; what has a `_2` is for the second pass.

    Args:
        blur: Range of the Gaussian's sigma.
        blur_2: The same.
        blur_chance_2: How often the second pass blurs at all.
        anisotropic: Share of Gaussians with two different sigmas, turned by a random angle.
        sinc: How often a blur is a sinc filter (ringing) instead of a Gaussian.
        final_sinc: How often a sinc filter goes with the final resizing.
        resize: Range of the factor.
        resize_2: The same.
        resize_chances: How often it goes up, down, and stays.
        resize_chances_2: The same.
        noise: Range of the sigma of Gaussian noise.
        noise_2: The same.
        poisson: Range of the strength of Poisson (shot) noise.
        poisson_2: The same.
        gaussian: Share of noise that is Gaussian; the rest is Poisson.
        grey: Share of noise that is equal in all channels.
        jpeg: Range of the JPEG quality.
        jpeg_2: The same.

    Raises:
        ValueError: A range that runs backwards or leaves its bounds.
    """

    def __init__(
        self,
        *,
        blur: tuple[float, ...] = (0.2, 3.0),
        blur_2: tuple[float, ...] = (0.2, 1.5),
        blur_chance_2: float = 0.8,
        anisotropic: float = 0.35,
        sinc: float = 0.1,
        final_sinc: float = 0.8,
        resize: tuple[float, ...] = (0.15, 1.5),
        resize_2: tuple[float, ...] = (0.3, 1.2),
        resize_chances: tuple[float, ...] = (0.2, 0.7, 0.1),
        resize_chances_2: tuple[float, ...] = (0.3, 0.4, 0.3),
        noise: tuple[float, ...] = (1.0, 30.0),
        noise_2: tuple[float, ...] = (1.0, 25.0),
        poisson: tuple[float, ...] = (0.05, 3.0),
        poisson_2: tuple[float, ...] = (0.05, 2.5),
        gaussian: float = 0.5,
        grey: float = 0.4,
        jpeg: tuple[float, ...] = (30.0, 95.0),
        jpeg_2: tuple[float, ...] = (30.0, 95.0),
    ):
        options = dict(locals())
        del options["self"]
        for name, value in options.items():
            if name.startswith("resize_chances"):
                good = len(value) == 3 and min(value) >= 0 and abs(sum(value) - 1) < 1e-6
                wish = "three shares that sum to 1: up, down, stay"
            elif isinstance(value, int | float):
                good, wish = 0 <= value <= 1, "a share in [0, 1]"
            else:
                low, high = {"jpeg": (1, 100), "resize": (0.01, 8)}.get(name.removesuffix("_2"), (0, 255))
                good = len(value) == 2 and low <= value[0] <= value[1] <= high
                wish = f"a range [least, most] within [{low}, {high}]"
                if name.startswith("resize"):
                    good, wish = good and value[0] <= 1 <= value[1], f"{wish} that holds 1"
            if not good:
                raise ValueError(f"degradation realistic: {name} = {value!r}; expected {wish}")
        self.options = options

    def order(self, rng: Generator) -> tuple[str, ...]:
        """Draw the names of the steps, in order; those of the second pass end in `_2`."""
        first = [str(name) for name in rng.permutation(["blur", "resize", "noise", "jpeg"])]
        second = [str(name) for name in rng.permutation(["blur_2", "resize_2", "noise_2"])]
        last = [str(name) for name in rng.permutation(["final", "jpeg_2"])]
        return (*first, *second, *last)

    def __call__(self, image: np.ndarray, scale: int, rng: Generator) -> np.ndarray:
        """Degrade one crop.

        Args:
            image: (H, W, C) uint8 with C in 1, 3; rows and columns beyond the last multiple of `scale` are cut off.
            scale: Integer factor, at least 1.
            rng: Where all chance comes from.

        Returns:
            (H // scale, W // scale, C) uint8.

        Raises:
            ValueError: Another shape or type, or an image smaller than `scale`.
        """
        height, width = _checked(image, scale, (np.uint8,), (1, 3))
        size = height // scale, width // scale
        channels = image.shape[2]
        image = image[: size[0] * scale, : size[1] * scale].astype(np.float32) / 255
        full = image.shape[:2]
        for step in self.order(rng):
            kind, _, again = step.partition("_")
            # The second resizing is meant relative to the final size: one to 0.3 there, and only then to 1 / scale.
            around = (full[0] / scale, full[1] / scale) if again else full
            image = np.clip(STEPS[kind](image, self.options, f"_{again}" if again else "", around, size, rng), 0, 1)
            image = image.reshape(*image.shape[:2], channels)  # cv2 drops the axis of a single channel
        return np.rint(image * 255).astype(np.uint8)


# Steps: (image in [0, 1], options, "" or "_2", what resizing is relative to, final size, rng) -> image, not clipped.


def _blur(image: np.ndarray, options: dict, again: str, around: tuple, size: tuple, rng: Generator) -> np.ndarray:
    if again and rng.random() >= options["blur_chance_2"]:
        return image
    return cv2.filter2D(image, -1, _kernel(options, again, rng), borderType=cv2.BORDER_REFLECT_101)


def _kernel(options: dict, again: str, rng: Generator) -> np.ndarray:
    side = 2 * int(rng.integers(3, 11)) + 1
    if rng.random() < options["sinc"]:
        return sinc_kernel(side, rng.uniform(np.pi / 3 if side < 13 else np.pi / 5, np.pi))
    low, high = options[f"blur{again}"]
    if rng.random() < options["anisotropic"]:
        return gaussian_kernel(side, rng.uniform(low, high), rng.uniform(low, high), rng.uniform(-np.pi, np.pi))
    sigma = rng.uniform(low, high)
    return gaussian_kernel(side, sigma, sigma)


def _resize(image: np.ndarray, options: dict, again: str, around: tuple, size: tuple, rng: Generator) -> np.ndarray:
    low, high = options[f"resize{again}"]
    way = rng.choice(3, p=options[f"resize_chances{again}"])
    factor = (rng.uniform(1, high), rng.uniform(low, 1), 1.0)[way]
    height, width = (max(1, round(side * factor)) for side in around)
    return _resized(image, (height, width), rng)


def _noise(image: np.ndarray, options: dict, again: str, around: tuple, size: tuple, rng: Generator) -> np.ndarray:
    one = rng.random() < options["grey"] and image.shape[2] > 1
    base = image @ np.float32([[0.299], [0.587], [0.114]]) if one else image
    if rng.random() < options["gaussian"]:
        return image + rng.normal(0, rng.uniform(*options[f"noise{again}"]) / 255, base.shape).astype(np.float32)
    # As in the authors' code: the number of grey levels in use stands for the number of photons at full brightness.
    levels = 2.0 ** np.ceil(np.log2(len(np.unique(np.rint(base * 255)))))
    shot = rng.poisson(base * levels) / levels - base
    return image + (rng.uniform(*options[f"poisson{again}"]) * shot).astype(np.float32)


def _jpeg(image: np.ndarray, options: dict, again: str, around: tuple, size: tuple, rng: Generator) -> np.ndarray:
    quality = round(rng.uniform(*options[f"jpeg{again}"]))
    pixels = np.ascontiguousarray(np.rint(image * 255).astype(np.uint8)[..., ::-1])  # cv2 wants BGR
    good, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    back = cv2.imdecode(code, cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE)
    return back.reshape(image.shape)[..., ::-1].astype(np.float32) / 255


def _final(image: np.ndarray, options: dict, again: str, around: tuple, size: tuple, rng: Generator) -> np.ndarray:
    image = _resized(image, size, rng)
    if rng.random() < options["final_sinc"]:
        kernel = sinc_kernel(2 * int(rng.integers(3, 11)) + 1, rng.uniform(np.pi / 3, np.pi))
        image = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return image


STEPS: dict[str, Callable[..., np.ndarray]] = {
    "blur": _blur,
    "resize": _resize,
    "noise": _noise,
    "jpeg": _jpeg,
    "final": _final,
}


def gaussian_kernel(side: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """Return a (side, side) float32 Gaussian that sums to 1, its axes turned by `angle` (radians)."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    weights = np.exp(-0.5 * ((along / max(sigma_x, 1e-3)) ** 2 + (across / max(sigma_y, 1e-3)) ** 2))
    return (weights / weights.sum()).astype(np.float32)


def sinc_kernel(side: int, cutoff: float) -> np.ndarray:
    """Return a (side, side) float32 ideal low-pass filter that sums to 1 (Wang et al. 2021, equation 6).

    Args:
        side: Odd number of pixels.
        cutoff: Angular frequency in (0, pi] beyond which nothing passes: cutoff * J1(cutoff * r) / (2 * pi * r).
    """
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y)
    # J1 by Bessel's integral; the rule of equal steps is exact to rounding for a periodic integrand.
    turn = (np.arange(64) + 0.5) * np.pi / 64
    bessel = np.cos(turn - cutoff * radius[..., None] * np.sin(turn)).mean(axis=-1)
    weights = np.full_like(radius, cutoff**2 / (4 * np.pi))
    np.divide(cutoff * bessel, 2 * np.pi * radius, out=weights, where=radius > 0)
    return (weights / weights.sum()).astype(np.float32)


def _resized(image: np.ndarray, size: tuple[int, int], rng: Generator) -> np.ndarray:
    return cv2.resize(image, (size[1], size[0]), interpolation=FILTERS[rng.integers(len(FILTERS))])


def _checked(image: np.ndarray, scale: int, types: tuple, channels: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width."""
    known = isinstance(image, np.ndarray) and image.ndim == 3
    if not known or image.shape[2] not in channels or image.dtype not in types:
        found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        names = " or ".join(np.dtype(kind).name for kind in types)
        raise ValueError(f"a degradation takes (H, W, C) {names} with C in {channels}, not {found}")
    if not isinstance(scale, int | np.integer) or scale < 1 or min(image.shape[:2]) < scale:
        raise ValueError(f"cannot reduce {image.shape[1]} x {image.shape[0]} pixels by {scale!r}; use a whole factor")
    return image.shape[:2]
