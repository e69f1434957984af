"""What is done to every image, real or fake, before the discriminator sees it; the generator learns through it.

Modules from images (N, C, H, W) in [-1, 1], where `Augmentations` puts them, to the same shape, differentiable any
number of times (torch's own grid sampler is differentiable once, and penalties on gradients ask for twice). Every draw
comes from torch's generator.
"""

import math

import torch
from torch import Tensor, nn

from img2img.engine import over_processes


class Augmentations(nn.Sequential):
    """One change after another, on images of any range: they see them in [-1, 1].

    Args:
        changes: modules of this file.
        span: range of the images that come and go.
    """

    def __init__(self, *changes: nn.Module, span: tuple[float, float] = (-1.0, 1.0)) -> None:
        super().__init__(*changes)
        self.span = span

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed images."""
        low, high = self.span
        if not len(self) or (low, high) == (-1, 1):
            return super().forward(images)
        return (super().forward((images - low) * (2 / (high - low)) - 1) + 1) * ((high - low) / 2) + low


class InstanceNoise(nn.Module):
    """Add Gaussian noise that fades: it gives both distributions a common support.

    Arjovsky & Bottou 2017 (https://arxiv.org/abs/1701.04862), Sonderby et al. 2016 (https://arxiv.org/abs/1610.04490).

    Args:
        sigma: standard deviation at first, in units of the images.
        images: training images after which it is gone, linearly; 0 keeps it for ever.

    Raises:
        ValueError: a negative option.
    """

    def __init__(self, sigma: float = 0.1, images: int = 100_000) -> None:
        super().__init__()
        if sigma < 0 or images < 0:
            raise ValueError(f"sigma = {sigma} and images = {images} must be 0 or more")
        self.start, self.images = sigma, images
        self.register_buffer("sigma", torch.tensor(sigma))

    def set_progress(self, images: int) -> None:
        """Set the noise to what it is after so many training images."""
        self.sigma.fill_(self.start * max(0.0, 1 - images / self.images) if self.images else self.start)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images with noise."""
        return images + self.sigma.to(images.dtype) * torch.randn_like(images)


def _uniform(images: Tensor, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(len(images), *shape, device=images.device) * (high - low) + low


class DiffAugment(nn.Module):
    """Differentiable augmentation, Zhao et al. 2020 (https://arxiv.org/abs/2006.10738).

    Args:
        policy: any of "color" (brightness by up to 0.5, saturation by a factor of 0 to 2, contrast of 0.5 to 1.5),
            "translation" (by up to an eighth, zeros come in) and "cutout" (a square of half the side becomes zero).

    Raises:
        ValueError: an unknown policy.
    """

    def __init__(self, policy: tuple[str, ...] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        self.steps = []
        for name in policy:
            if name not in ("color", "translation", "cutout"):
                raise ValueError(f"policy {name!r} is none of color, translation, cutout")
            self.steps.append(getattr(self, f"_{name}"))

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, each changed in its own way."""
        for step in self.steps:
            images = step(images)
        return images

    @staticmethod
    def _color(x: Tensor) -> Tensor:
        x = x + _uniform(x, -0.5, 0.5, 1, 1, 1).to(x.dtype)
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey, x, _uniform(x, 0, 2, 1, 1, 1).to(x.dtype))
        mean = x.mean((1, 2, 3), keepdim=True)
        return torch.lerp(mean, x, _uniform(x, 0.5, 1.5, 1, 1, 1).to(x.dtype))

    @staticmethod
    def _translation(x: Tensor) -> Tensor:
        places, inside = [], []
        for length in x.shape[2:]:
            most = int(length / 8 + 0.5)
            shift = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
            place = torch.arange(length, device=x.device) + shift
            inside.append((place >= 0) & (place < length))
            places.append(place.clamp(0, length - 1))
        mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return _pick(x, places[0][:, :, None], places[1][:, None, :]) * mask

    @staticmethod
    def _cutout(x: Tensor) -> Tensor:
        hidden = []
        for length in x.shape[2:]:
            side = int(length / 2 + 0.5)
            first = torch.randint(0, length + (1 - side % 2), (len(x), 1), device=x.device) - side // 2
            place = torch.arange(length, device=x.device)
            hidden.append((place >= first) & (place < first + side))
        return x * ~(hidden[0][:, None, :, None] & hidden[1][:, None, None, :])


def _pick(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return x[n, :, rows[n], columns[n]] as images; places broadcast to (N, H, W)."""
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    return x[sample, :, rows, columns].permute(0, 3, 1, 2)


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images read at fractional places (N, H, W), in pixels: bilinear, mirrored at the border's pixels."""
    places = []
    for place, length in ((rows, x.shape[2]), (columns, x.shape[3])):
        last = max(length - 1, 1)
        place = (place + last).remainder(2 * last).sub(last).abs().clamp(max=length - 1)
        low = place.floor().clamp(max=max(length - 2, 0))
        places.append((low.long(), (low.long() + 1).clamp(max=length - 1), (place - low)[:, None].to(x.dtype)))
    (top, bottom, down), (left, right, across) = places
    upper = torch.lerp(_pick(x, top, left), _pick(x, top, right), across)
    lower = torch.lerp(_pick(x, bottom, left), _pick(x, bottom, right), across)
    return torch.lerp(upper, lower, down)


class ADA(nn.Module):
    """Adaptive discriminator augmentation, Karras et al. 2020 (https://arxiv.org/abs/2006.06676).

    Each change happens to each image with probability p, which is steered by how often the discriminator calls real
    images real (r_t in the paper, section 3): call ``update`` in every discriminator step. p moves after every 256
    images (of all processes), as the paper's does after four batches of 64: the sign of a small batch's mean would
    steer for another r_t. p and what it waits for are buffers. Unlike the paper's, the
    geometry is read bilinearly, in one go, and without its filters and noise.

    Args:
        target: r_t that p is steered for.
        images: training images in which p can go from 0 to 1.
        p: probability at first; with ``images`` = 0 it stays there.
        policy: any of "flip", "geometry" (quarter turns, shifts, scales, rotations) and "color".

    Raises:
        ValueError: an unknown policy, or an option outside its range.
    """

    def __init__(
        self,
        target: float = 0.6,
        images: int = 500_000,
        p: float = 0.0,
        policy: tuple[str, ...] = ("flip", "geometry", "color"),
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1 or images < 0:
            raise ValueError(f"p = {p} must lie in [0, 1], images = {images} must be 0 or more")
        for name in policy:
            if name not in ("flip", "geometry", "color"):
                raise ValueError(f"policy {name!r} is none of flip, geometry, color")
        self.target, self.images, self.policy = target, images, tuple(policy)
        self.register_buffer("p", torch.tensor(p))
        self.register_buffer("signs", torch.zeros(2))  # their sum over images, and of how many

    @torch.no_grad()
    def update(self, real_logits: Tensor) -> None:
        """Move p up where the discriminator is too sure of real images, else down.

        Args:
            real_logits: (N, ...), 0 where the discriminator does not know.
        """
        if not self.training or not self.images:
            return
        count = real_logits.new_tensor(float(len(real_logits)), dtype=torch.float32)
        self.signs += over_processes(torch.stack([real_logits.float().sign().mean() * count, count]))
        total, images = self.signs.unbind()
        # Without a branch: where p is on a GPU, nothing waits for it.
        due = images >= 256
        self.p += due * (total / images - self.target).sign() * images / self.images
        self.p.clamp_(0, 1)
        self.signs *= ~due

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, each changed in its own way."""
        if self.p == 0:
            return images
        if "flip" in self.policy or "geometry" in self.policy:
            images = self._move(images)
        return self._color(images) if "color" in self.policy else images

    def _happens(self, x: Tensor, p: Tensor) -> Tensor:
        return torch.rand(len(x), device=x.device) < p

    def _move(self, x: Tensor) -> Tensor:
        """Read each image through the product of its changes, (row, column, 1) -> (row, column)."""
        count, height, width = len(x), x.shape[2], x.shape[3]
        matrix = torch.eye(3, device=x.device).expand(count, -1, -1)
        zero = torch.zeros(count, device=x.device)

        def apply(change: Tensor, p: Tensor) -> None:
            nonlocal matrix
            identity = torch.eye(3, device=x.device)
            matrix = matrix @ torch.where(self._happens(x, p)[:, None, None], change, identity)

        if "flip" in self.policy:
            side = torch.randint(0, 2, (count,), device=x.device) * 2.0 - 1
            apply(_scale(torch.ones_like(zero), side), self.p)
        if "geometry" in self.policy:
            turned = 1 - (1 - self.p).sqrt()  # two rotations, so that one of them happens with probability p
            apply(_rotate(torch.randint(0, 4, (count,), device=x.device) * (math.pi / 2)), self.p)
            shifts = [(_uniform(x, -0.125, 0.125) * length).round() for length in (height, width)]
            apply(_shift(*shifts), self.p)
            size = torch.exp2(torch.randn(count, device=x.device) * 0.2)
            apply(_scale(size, size), self.p)
            apply(_rotate(_uniform(x, -math.pi, math.pi)), turned)
            size = torch.exp2(torch.randn(count, device=x.device) * 0.2)
            apply(_scale(size, 1 / size), self.p)
            apply(_rotate(_uniform(x, -math.pi, math.pi)), turned)
            shifts = [torch.randn(count, device=x.device) * 0.125 * length for length in (height, width)]
            apply(_shift(*shifts), self.p)
        rows = torch.arange(height, device=x.device) - (height - 1) / 2
        columns = torch.arange(width, device=x.device) - (width - 1) / 2
        places = [
            matrix[:, axis, 0, None, None] * rows[:, None]
            + matrix[:, axis, 1, None, None] * columns
            + matrix[:, axis, 2, None, None]
            + (length - 1) / 2
            for axis, length in ((0, height), (1, width))
        ]
        return sample(x, *places)

    def _color(self, x: Tensor) -> Tensor:
        """Brightness, contrast and, of three channels, luma flip, hue and saturation: one affine map of channels."""
        count, channels = len(x), x.shape[1]
        normal = torch.randn(count, 3, device=x.device)
        bias = torch.where(self._happens(x, self.p), normal[:, 0] * 0.2, 0)[:, None].expand(-1, channels)
        contrast = torch.where(self._happens(x, self.p), torch.exp2(normal[:, 1] * 0.5), 1)
        matrix = torch.eye(channels, device=x.device) * contrast[:, None, None]
        bias = bias * contrast[:, None]
        if channels == 3:
            luma = torch.full((3, 3), 1 / 3, device=x.device)  # the projection on the grey axis
            identity = torch.eye(3, device=x.device)
            flip = torch.where(self._happens(x, self.p / 2)[:, None, None], identity - 2 * luma, identity)
            angle = torch.where(self._happens(x, self.p), _uniform(x, -math.pi, math.pi), 0)
            axis = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=x.device) / math.sqrt(3)
            cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
            hue = luma + (identity - luma) * cosine + axis * sine  # Rodrigues about the grey axis
            factor = torch.where(self._happens(x, self.p), torch.exp2(normal[:, 2]), 1)[:, None, None]
            change = (luma + (identity - luma) * factor) @ hue @ flip
            matrix, bias = change @ matrix, (change @ bias[:, :, None])[:, :, 0]
        # Changes of colours cost a product of matrices: as a 1x1 convolution they would need one group a sample.
        changed = (matrix.to(x.dtype) @ x.flatten(2)).unflatten(2, x.shape[2:])
        return changed + bias[:, :, None, None].to(x.dtype)


def _matrix(*entries: Tensor) -> Tensor:
    last = torch.zeros_like(entries[0]), torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    return torch.stack([*entries, *last], 1).unflatten(1, (3, 3))


def _scale(rows: Tensor, columns: Tensor) -> Tensor:
    zero = torch.zeros_like(rows)
    return _matrix(1 / rows, zero, zero, zero, 1 / columns, zero)


def _rotate(angle: Tensor) -> Tensor:
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix(cosine, -sine, zero, sine, cosine, zero)


def _shift(rows: Tensor, columns: Tensor) -> Tensor:
    zero, one = torch.zeros_like(rows), torch.ones_like(rows)
    return _matrix(one, zero, -rows, zero, one, -columns)
