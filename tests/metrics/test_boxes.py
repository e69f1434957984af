"""Boxes of what is drawn, against torchvision's, and its extreme points, against sorted pixels."""

import pytest
import torch
from torchvision.ops import box_iou, masks_to_boxes

from img2img.metrics.boxes import BoxIoU, PointDistance, drawn_boxes, drawn_points


def painted(boxes, side=16, colour=(0.9, 0.1, 0.8)):
    """White images with a coloured frame on each box, which is empty within."""
    images = torch.ones(len(boxes), 3, side, side)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[:, y0:y1, x0:x1] = torch.tensor(colour)[:, None, None]
        image[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = 1
    return images


def random_boxes(count, generator):
    low = torch.randint(0, 10, (count, 2), generator=generator)
    return torch.cat([low, low + torch.randint(1, 7, (count, 2), generator=generator)], 1)


def test_boxes_are_torchvisions():
    generator = torch.Generator().manual_seed(0)
    images = torch.where(torch.rand(20, 1, 12, 9, generator=generator) < 0.03, 0.2, 0.95).expand(-1, 3, -1, -1)
    some = (images < 0.5).any(1).flatten(1).any(1)
    assert 0 < some.sum() < 20 or some.all()
    theirs = masks_to_boxes((images < 0.5).any(1)[some]) + torch.tensor([0, 0, 1, 1])  # theirs end at the last pixel
    assert torch.equal(drawn_boxes(images)[some].float(), theirs)
    boxes = random_boxes(8, generator)
    assert torch.equal(drawn_boxes(painted(boxes.tolist())), boxes)
    assert torch.equal(drawn_boxes(torch.ones(1, 3, 4, 4)), torch.zeros(1, 4))


def test_mean_iou():
    generator = torch.Generator().manual_seed(1)
    ours, asked = random_boxes(50, generator), random_boxes(50, generator)
    metric = BoxIoU()
    for place in range(0, 50, 20):
        parts = [painted(boxes[place : place + 20].tolist()) for boxes in (ours, asked)]
        metric.update(*parts)
    expected = box_iou(ours.float(), asked.float()).diagonal()
    assert 0 < expected.mean() < 0.9 and metric.compute() == pytest.approx(float(expected.mean()), rel=1e-6)
    metric.reset()
    with pytest.raises(ValueError, match="no output was added"):
        metric.compute()
    metric.update(torch.ones(2, 3, 16, 16), painted(asked[:2].tolist()))
    assert metric.compute() == 0  # nothing was drawn


def canvas(rows):
    """Return an image, (1, 3, H, W), of lines of text: # is ink."""
    ink = torch.tensor([[sign == "#" for sign in row] for row in rows])
    return torch.where(ink, torch.tensor([0.9, 0.1, 0.8])[:, None, None], torch.tensor(0.95))[None]


def test_extreme_points_of_shapes():
    """Left, top, right, bottom, in pixels' centres; of several the middle one, of two the upper or left one."""
    for rows, wanted in (
        (["....", ".##.", "###.", "...."], [(0, 2), (1, 1), (2, 1), (1, 2)]),  # right: rows 1 and 2; bottom: 0, 1 and 2
        (["....", "....", "....", "..#."], [(2, 3)] * 4),
        (["#..#", "....", "#...", "#..."], [(0, 2), (0, 0), (3, 0), (0, 3)]),  # left: rows 0, 2 and 3
    ):
        found = drawn_points(canvas(rows))
        assert torch.equal(found, (torch.tensor([wanted]) + 0.5) / 4), rows
    assert drawn_points(canvas(["#.", "..", "..", ".#"]))[0].tolist() == [[0.25, 0.125]] * 2 + [[0.75, 0.875]] * 2
    assert torch.equal(drawn_points(torch.ones(2, 3, 4, 6)), torch.full((2, 4, 2), 0.5))  # nothing is drawn


def test_extreme_points_are_of_sorted_pixels():
    images = torch.where(torch.rand(30, 1, 12, 9, generator=torch.Generator().manual_seed(0)) < 0.2, 0.2, 0.95)
    found = drawn_points(images)
    for image, points in zip(images[:, 0], found, strict=True):
        pixels = [(int(x), int(y)) for y, x in torch.nonzero(image < 0.5)]
        for place, (axis, end) in enumerate(((0, min), (1, min), (0, max), (1, max))):
            edge = sorted(p for p in pixels if p[axis] == end(q[axis] for q in pixels))
            x, y = edge[(len(edge) - 1) // 2]
            assert points[place].tolist() == pytest.approx([(x + 0.5) / 9, (y + 0.5) / 12], abs=1e-6)


def test_point_distance():
    """What was drawn 3 and 4 pixels away is 5 away, and all there is is 0 away from itself."""
    drawn = painted([[1, 2, 5, 8], [0, 0, 9, 7]])
    asked = drawn_points(painted([[4, 6, 8, 12], [0, 0, 9, 7]]))
    assert PointDistance().values(drawn, asked).tolist() == pytest.approx([5 / 16, 0], abs=1e-6)
    asked[0, 2] = asked[0, 2] - torch.tensor([4 / 16, 3 / 16])  # one of four points elsewhere: at (-1, 1), not (3, 4)
    metric = PointDistance()
    for place in range(2):
        metric.update(drawn[place : place + 1], asked[place : place + 1])
    assert metric.compute() == pytest.approx((3 * 5 + 2**0.5) / 4 / 16 / 2, rel=1e-5)
