"""A folder of images as they are, brought to one size."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from img2img.data.photos import Store, images_in


class Images:
    """Images ``real`` (C, size, size) in [-1, 1]: the largest centred square of each, resized.

    Args:
        folder: a folder of images, searched below.
        size: side in pixels.
        channels: 1 or 3.
        flip: mirror half of them.
    """

    def __init__(self, folder: str | Path, size: int, channels: int = 3, flip: bool = False) -> None:
        self.size, self.flip = size, flip
        self.images = Store(images_in(folder), channels, f"square{size}", lambda pixels: square(pixels, size))

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return image ``index``, perhaps mirrored."""
        return {"real": signed(self.images[index], bool(self.flip and rng.random() < 0.5))}


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the largest centred square of (H, W, C) pixels, resized to ``size``."""
    side = min(pixels.shape[:2])
    y, x = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return resize(pixels[y : y + side, x : x + side], size, size)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (H, W, C) pixels at another size: by area where it shrinks, else bicubic."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    found = cv2.resize(
        np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return found if found.ndim == 3 else found[..., None]


def signed(pixels: np.ndarray, mirror: bool = False) -> Tensor:
    """Return uint8 (H, W, C) as a tensor (C, H, W) in [-1, 1]."""
    pixels = pixels[:, ::-1] if mirror else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 127.5 - 1)
