"""Whether what was drawn lies in the box, or reaches to the points, that were asked for."""

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


def drawn_points(images: Tensor) -> Tensor:
    """Return the extreme points of what is not white in images (N, C, H, W) in [0, 1]: a rule, for want of annotation.

    Returns:
        x and y, in shares of the width and height, of the centres of the leftmost, topmost, rightmost and bottommost
        pixel, (N, 4, 2); of several the middle one, of two in the middle the one nearer to the top or left. All are
        the middle of the image where nothing is drawn.
    """
    ink = (1 - images).amax(1) > INK
    every, (height, width) = torch.arange(len(ink), device=ink.device), ink.shape[1:]

    def first(lines: Tensor) -> tuple[Tensor, Tensor]:
        """Return which line (N, lines, length) is the first with ink, and the middle of its ink."""
        place = lines.any(2).to(torch.uint8).argmax(1)
        count = lines[every, place].cumsum(1)
        return place, (2 * count >= count[:, -1:]).to(torch.uint8).argmax(1)

    columns = ink.transpose(1, 2)
    (x0, left), (y0, top) = first(columns), first(ink)
    (x1, right), (y1, bottom) = first(columns.flip(1)), first(ink.flip(1))
    pixels = [x0, left, top, y0, width - 1 - x1, right, bottom, height - 1 - y1]
    found = torch.stack(pixels, 1).view(-1, 4, 2) + 0.5
    found = found / torch.tensor([width, height], device=ink.device)
    return torch.where(ink.flatten(1).any(1)[:, None, None], found, 0.5)


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


class PointDistance(MeanMetric):
    """Mean distance of what is drawn's extreme points from those asked for, in shares of the side; lower is better.

    An image's value is the mean over its points, see `drawn_points`.
    """

    against: Literal["points"] = "points"

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return the distance (N,) of outputs (N, C, H, W) in [0, 1] from the points asked for, (N, 4, 2)."""
        return (drawn_points(output) - reference).norm(dim=2).mean(1)
