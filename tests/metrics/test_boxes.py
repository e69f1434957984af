"""Boxes of what is drawn, against torchvision's."""

import pytest
import torch
from torchvision.ops import box_iou, masks_to_boxes

from img2img.metrics.boxes import BoxIoU, drawn_boxes


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
