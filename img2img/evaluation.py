"""How good a trained system is on a folder of images, by the metrics of the registry."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from img2img.data.pairs import Pairs
from img2img.data.photos import images_in, rgb
from img2img.pipeline import Pipeline
from img2img.registry import part


def metric(name: str, **defaults):
    """Return a metric by its name, e.g. ``perceptual[hed_vgg16]``: (output, target) -> one value an image."""
    kind, _, option = name.partition("[")
    return part("metric", {"type": kind} | ({"network": option.rstrip("]")} if option else {}), **defaults)


def evaluate(
    pipe: Pipeline,
    folder: str | Path,
    *,
    metrics: list[str] | tuple[str, ...] = ("psnr", "ssim"),
    progress: bool = True,
) -> dict[str, float]:
    """Return the mean of each metric over a folder.

    An upscaler gets each image reduced as its recipe says, and is compared with the image itself on the Y channel with
    a border of ``scale`` pixels left out; a translator gets A and is compared with B. Results are rounded to 8 bits
    first, as a user gets them.

    Raises:
        ValueError: a metric or task that cannot be judged so, or a folder without images.
    """
    if pipe.task == "super_resolve":
        border = {"border": pipe.scale, "channel": "y"}
        spec = (pipe.recipe.data.degradation if pipe.recipe else None) or {"type": "bicubic"}
        degrade = part("degradation", spec)
        items = images_in(folder)
    elif pipe.task == "paired":
        border, degrade = {}, None
        pairs = Pairs(folder, pipe.recipe.data.size, pipe.channels)
        items = range(len(pairs))
    else:
        raise ValueError(f"{pipe.name}: task {pipe.task} has no targets to compare with")
    if not len(items):
        raise ValueError(f"{folder}: no readable pairs in it")
    functions = {name: metric(name, **border) for name in metrics}
    totals = dict.fromkeys(metrics, 0.0)
    for place, item in enumerate(tqdm(items, unit="image", disable=None if progress else True)):
        rng = np.random.default_rng(place)
        if pipe.task == "super_resolve":
            target = rgb(item, pipe.channels)
            h, w = (side // pipe.scale * pipe.scale for side in target.shape[:2])
            target = np.ascontiguousarray(target[:h, :w])
            given = degrade(target, pipe.scale, rng)
        else:
            pair = pairs.item(item, rng)
            given, target = (
                ((pair[k].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy() for k in ("input", "target")
            )
        output = pipe(given)
        tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255 for image in (output, target)]
        for name, function in functions.items():
            totals[name] += float(torch.as_tensor(function(*tensors)).mean()) / len(items)
    return totals
