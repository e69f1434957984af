"""Whether what was drawn lies in the box that was asked for."""

from typing import Literal

import torch
from torch import Tensor

from img2img.metrics.mean import MeanMetric

INK = 0.25
"""How much darker than white, in [0, 1], a pixel's darkest channel is that belongs to something drawn."""


def drawn_boxes(images: Tensor) -> Tensor:
    """Return the smallest boxes around what is not white in images (N, C, H, W) in [0, 1].

    Returns:
        x0, y0, x1, y1 in pixels, (N, 4); all 0 where nothing is drawn.
    """
    ink = (1 - images).amax(1) > INK
    found = []
    for axis in (1, 2):  # over rows: which columns have ink; over columns: which rows
        line = ink.any(axis).to(torch.uint8)
        some, length = line.amax(1), line.shape[1]
        found.append((line.argmax(1) * some, (length - line.flip(1).argmax(1)) * some))
    (x0, x1), (y0, y1) = found
    return torch.stack([x0, y0, x1, y1], 1)


class BoxIoU(MeanMetric):
    """Mean intersection over union of the box of what is drawn and the box asked for, 0 to 1; higher is better.

    An input is an image of its box: dark on white. Both boxes are read in the same way, see `drawn_boxes`.
    """

    against: Literal["input"] = "input"

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return the IoU (N,) of outputs and the images of their boxes, (N, C, H, W) in [0, 1]."""
        ours, asked = drawn_boxes(output), drawn_boxes(reference)
        low, high = torch.maximum(ours[:, :2], asked[:, :2]), torch.minimum(ours[:, 2:], asked[:, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        whole = sum((box[:, 2:] - box[:, :2]).prod(1) for box in (ours, asked)) - shared
        return shared / whole.clamp(min=1)
