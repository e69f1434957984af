"""The way back from images to latents, brushes that a generator follows, and directions that mean something."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from img2img.pipeline import Pipeline


def _descended(
    pipe: Pipeline,
    start: Tensor,
    cost: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    rate: float,
    settle: Callable[[Tensor], None] = lambda z: None,
) -> Tensor:
    """Return the latents to which Adam descends on ``cost(G(z), z)``, (N,); ``settle`` changes them after each step."""
    z = start.clone().requires_grad_()
    network = copy.deepcopy(pipe.network).float()
    optimizer = torch.optim.Adam([z], lr=rate)
    with torch.enable_grad():
        for _ in range(steps):
            # Summed: each image has a descent of its own.
            (z.grad,) = torch.autograd.grad(cost(network(z).float(), z).sum(), z)
            optimizer.step()
            with torch.no_grad():
                settle(z)
    return z.detach().cpu()


def invert(
    pipe: Pipeline,
    images: Tensor,
    *,
    start: Tensor | None = None,
    steps: int = 200,
    rate: float = 0.1,
    prior: float = 0.0,
    limit: float = 3.0,
    seed: int = 0,
) -> Tensor:
    """Return the latents whose images come nearest to some images, found by gradient descent with Adam.

    Minimises the mean of (G(z) - x)^2, minus prior * log p(z): Creswell & Bharath 2016
    (https://arxiv.org/abs/1611.05644). A number of a latent that leaves [-limit, limit] is drawn anew from the normal
    prior there: the stochastic clipping of Lipton & Tripathi 2017 (https://arxiv.org/abs/1702.04782), for a normal in
    place of a uniform latent.

    Args:
        pipe: a trained generator of noise, as `img2img.load` gives it.
        images: (N, C, H, W) in [0, 1], of the generator's channels and size.
        start: latents (N, latent) to start from, e.g. an encoder's codes of the images; None for drawn ones.
        steps: of the descent.
        rate: Adam's.
        prior: weight of the latent's log density.
        limit: in standard deviations.
        seed: of what is drawn.

    Returns:
        Latents (N, latent) on the CPU in float32; `Pipeline.draw` makes images of them.

    Raises:
        ValueError: images or a start of another shape than the generator's, or not a generator of noise.
    """
    drawn = pipe.latents(len(images), seed).to(pipe.device)
    if start is not None and start.shape != drawn.shape:
        raise ValueError(f"start: latents must be {tuple(drawn.shape)}, not {tuple(start.shape)}")
    low, high = pipe.span
    wanted = (images.to(pipe.device).float() * (high - low) + low).detach()
    z = drawn if start is None else start.detach().to(pipe.device).float()
    generator = torch.Generator().manual_seed(seed + 1)

    def apart(made: Tensor, z: Tensor) -> Tensor:
        if made.shape != wanted.shape:
            raise ValueError(f"images are {tuple(wanted.shape)}, and the generator makes {tuple(made.shape)}")
        return (made - wanted).square().flatten(1).mean(1) + prior * z.square().sum(1) / 2

    def clip(z: Tensor) -> None:
        out = z.abs() > limit
        fresh = nn.init.trunc_normal_(torch.empty(z.shape), a=-limit, b=limit, generator=generator)
        z[out] = fresh.to(z.device)[out]

    return _descended(pipe, z, apart, steps, rate, clip)


def edit(
    pipe: Pipeline,
    latents: Tensor,
    painted: Tensor,
    mask: Tensor,
    *,
    steps: int = 200,
    rate: float = 0.05,
    keep: float = 0.3,
    stay: float = 1e-3,
) -> Tensor:
    """Return latents near some others, whose images follow what was painted onto the images of those.

    Minimises by Adam the mean of (G(z) - painted)^2 over the mask, plus stay * |z - z0|^2: what was painted and the
    smoothness of Zhu et al. 2016 (iGAN, https://arxiv.org/abs/1609.03552), by pixels in place of their features; plus
    keep times the mean of (G(z) - G(z0))^2 over the rest, for the brush of Brock et al. 2017 (IAN,
    https://arxiv.org/abs/1609.07093) is to change little else.

    Args:
        pipe: a trained generator of noise, as `img2img.load` gives it.
        latents: z0, (N, latent).
        painted: (N, C, H, W) in [0, 1], of the generator's channels and size; read within the mask alone.
        mask: (N or 1, 1, H, W), 1 where it was painted, 0 elsewhere; between for a soft brush.
        steps: of the descent.
        rate: Adam's.
        keep: weight of the image outside the mask.
        stay: weight of the latent's way.

    Returns:
        Latents (N, latent) on the CPU in float32; `Pipeline.draw` makes images of them.

    Raises:
        ValueError: latents, images or a mask of another shape than the generator's, or not a generator of noise.
    """
    drawn = pipe.latents(len(painted))
    if latents.shape != drawn.shape:
        raise ValueError(f"latents must be {tuple(drawn.shape)}, not {tuple(latents.shape)}")
    low, high = pipe.span
    start = latents.detach().to(pipe.device).float()
    kept = pipe.draw(start)
    if painted.shape != kept.shape:
        raise ValueError(f"images are {tuple(painted.shape)}, and the generator makes {tuple(kept.shape)}")
    if mask.shape not in ((1, 1, *kept.shape[2:]), (len(kept), 1, *kept.shape[2:])):
        raise ValueError(f"a mask must be {(len(kept), 1, *kept.shape[2:])}, not {tuple(mask.shape)}")
    mask = mask.detach().to(pipe.device).float()
    wanted = torch.lerp(kept.to(pipe.device), painted.detach().to(pipe.device).float(), mask) * (high - low) + low
    inside, outside = (part / part.sum((1, 2, 3), keepdim=True).clamp(min=1) for part in (mask, 1 - mask))

    def apart(made: Tensor, z: Tensor) -> Tensor:
        squares = (made - wanted).square().mean(1, keepdim=True)
        return ((inside + keep * outside) * squares).sum((1, 2, 3)) + stay * (z - start).square().sum(1)

    return _descended(pipe, start, apart, steps, rate)


def concepts(latents: Tensor, labels: Tensor) -> Tensor:
    """Return what sets each class apart: the mean of its latents minus the mean of the others, (classes, latent).

    Radford et al. 2015 (https://arxiv.org/abs/1511.06434), section 6.3.2: latents plus a multiple of such a vector
    give images with more of that class; ``pipe.draw(z + 2 * concepts(latents, labels)[7])``.

    Args:
        latents: (N, latent), of images found by `invert` or an encoder, or those that samples were drawn from.
        labels: (N,), whole numbers from 0; or (N, classes), true where an image has an attribute.

    Raises:
        ValueError: another number of labels, or a class of all images or of none.
    """
    has = labels if labels.dim() == 2 else nn.functional.one_hot(labels.long())
    has = has.to(latents.dtype)
    if len(has) != len(latents):
        raise ValueError(f"{len(latents)} latents and {len(has)} labels must be as many")
    counts = has.sum(0)
    if ((counts == 0) | (counts == len(has))).any():
        place = int(torch.nonzero((counts == 0) | (counts == len(has)))[0])
        raise ValueError(
            f"class {place} has {int(counts[place])} of {len(has)} latents; it needs some, and others none"
        )
    inside = has.T @ latents / counts[:, None]
    outside = (1 - has).T @ latents / (len(has) - counts)[:, None]
    return inside - outside
