"""Networks that draw what a sentence says, and perhaps where (Reed et al. 2016)."""

from typing import Literal

import torch
from torch import Tensor, nn

from img2img.networks.conditional import planes
from img2img.networks.dcgan import small_normal, stages


def box_mask(boxes: Tensor, side: int) -> Tensor:
    """Return how much of each cell of a grid a box covers, (N, 1, side, side) in [0, 1].

    Args:
        boxes: (N, 4), x0, y0, x1, y1 in shares of the image's side.
        side: cells a side.
    """
    edges = torch.arange(side + 1, device=boxes.device, dtype=boxes.dtype) / side
    low, high = boxes[:, None, :2], boxes[:, None, 2:]  # (N, 1, 2): x and y
    start, end = edges[None, :-1, None], edges[None, 1:, None]
    cover = (torch.minimum(high, end) - torch.maximum(low, start)).clamp(min=0) * side  # (N, side, 2)
    return cover[:, None, :, None, 1] * cover[:, None, None, :, 0]


def point_planes(points: Tensor, side: int) -> Tensor:
    """Return for each point a plane with a soft spot there, (N, P, side, side) in [0, 1].

    The spot is the point spread bilinearly over the cells whose centres are nearest: 1 at the centre of a cell, and so
    the place between centres is kept. What would fall beyond the grid is lost.

    Args:
        points: (N, P, 2), x and y in shares of the image's side.
        side: cells a side.
    """
    centres = torch.arange(side, device=points.device, dtype=points.dtype) + 0.5
    cover = (1 - (points[..., None] * side - centres).abs()).clamp(min=0)  # (N, P, 2, side)
    return cover[:, :, 1, :, None] * cover[:, :, 0, None, :]


def place_maps(where: Tensor, side: int) -> Tensor:
    """Return boxes (N, 4) or points (N, P, 2) as maps, one a box or point, (N, 1 or P, side, side)."""
    return (box_mask if where.dim() == 2 else point_planes)(where, side)


def count_maps(boxes: bool, points: int) -> int:
    """Return how many maps of places a network takes.

    Raises:
        ValueError: both boxes and points.
    """
    if boxes and points:
        raise ValueError("boxes = true and points > 0 exclude each other; choose one")
    return points or int(boxes)


class TextGenerator(nn.Module):
    """Latents (N, latent) and embeddings of text (N, embedding) to images (N, C, size, size) in [-1, 1].

    Reed et al. 2016 (https://arxiv.org/abs/1605.05396), section 4.1: the embedding is compressed and joined to the
    latent. With boxes (https://arxiv.org/abs/1610.02454, section 3.3) it is also spread over the box on an early
    feature map, with keypoints over their spots, and box or spots are joined to that map too.

    Args:
        latent: numbers that stand for what the text does not say.
        width: channels before the last layer; they double towards the latent.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        embedding: length of the text's embedding.
        compressed: length that it is compressed to.
        boxes: whether boxes are given.
        points: how many keypoints are given, if not boxes: those of `img2img.metrics.boxes.drawn_points`, or none.
    """

    def __init__(
        self,
        latent: int = 100,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        embedding: int = 128,
        compressed: int = 64,
        boxes: bool = False,
        points: Literal[0, 4] = 0,
    ) -> None:
        super().__init__()
        count, start = stages(size)
        self.latent, self.boxes, self.points = latent, boxes, points
        maps = count_maps(boxes, points)
        self.compress = nn.Sequential(nn.Linear(embedding, compressed), nn.LeakyReLU(0.2))
        plan = [width * 2**place for place in reversed(range(count))]
        self.first = nn.Sequential(
            nn.Unflatten(1, (latent + compressed, 1, 1)),
            nn.ConvTranspose2d(latent + compressed, plan[0], start, bias=False),
            nn.BatchNorm2d(plan[0]),
            nn.ReLU(True),
        )
        plan[0] += compressed + maps if maps else 0
        layers: list[nn.Module] = []
        for before, after in zip(plan, plan[1:], strict=False):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(plan[-1], channels, 4, 2, 1), nn.Tanh())
        self.apply(small_normal)

    def forward(self, z: Tensor, text: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the images; ``where`` is boxes (N, 4) or points (N, P, 2) for a network that takes them."""
        text = self.compress(text.to(z.dtype))
        x = self.first(torch.cat([z, text], 1))
        if self.boxes or self.points:
            x = torch.cat([x, within(text, where, x.shape[-1])], 1)
        return self.layers(x)


class TextDiscriminator(nn.Module):
    """Images (N, C, size, size) and embeddings of text (N, embedding) to logits (N, 1).

    The compressed embedding is spread over the last feature map; with boxes or keypoints it is so within those, and the
    image has the box, or each point, as a plane of its own.

    Args:
        width: channels after the first layer; they double with every halving.
        size: side of the images: 4, 5, 6 or 7 times a power of two.
        channels: image channels.
        embedding: length of the text's embedding.
        compressed: length that it is compressed to.
        boxes: whether boxes are given.
        points: how many keypoints are given, if not boxes: those of `img2img.metrics.boxes.drawn_points`, or none.
    """

    def __init__(
        self,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        embedding: int = 128,
        compressed: int = 64,
        boxes: bool = False,
        points: Literal[0, 4] = 0,
    ) -> None:
        super().__init__()
        count, start = stages(size)
        self.maps = count_maps(boxes, points)
        self.compress = nn.Sequential(nn.Linear(embedding, compressed), nn.LeakyReLU(0.2))
        layers: list[nn.Module] = [nn.Conv2d(channels + self.maps, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for place in range(1, count):
            layers += [nn.Conv2d(width * 2 ** (place - 1), width * 2**place, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        self.layers = nn.Sequential(*layers)
        last = width * 2 ** (count - 1)
        self.join = nn.Sequential(
            nn.Conv2d(last + compressed + self.maps, last, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(last, 1, start),
            nn.Flatten(),
        )
        self.apply(small_normal)

    def forward(self, x: Tensor, text: Tensor, where: Tensor | None = None) -> Tensor:
        """Return how real an image looks that is said to show the text, and that within its box or by its points."""
        text = self.compress(text)
        if not self.maps:
            return self.join(planes(self.layers(x), text))
        x = self.layers(torch.cat([x, place_maps(where, x.shape[-1]).to(x.dtype)], 1))
        return self.join(torch.cat([x, within(text, where, x.shape[-1]).to(x.dtype)], 1))


def within(text: Tensor, where: Tensor, side: int) -> Tensor:
    """Return embeddings (N, K) spread over their boxes or points, and the M maps of those, (N, K + M, side, side)."""
    maps = place_maps(where.float(), side).to(text.dtype)
    return torch.cat([text[:, :, None, None] * maps.amax(1, keepdim=True), maps], 1)
