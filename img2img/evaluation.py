"""How good a trained system is on a folder of images, by the metrics of the registry."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from img2img.data.pairs import HALVES, side_by_side
from img2img.data.photos import images_in, rgb
from img2img.data.stream import together
from img2img.imaging.tree import Report, fail
from img2img.metrics import HIGHER_IS_BETTER
from img2img.pipeline import Pipeline
from img2img.registry import part
from img2img.systems.system import Trial

POINTS = 10_000
"""How many points of a formula are looked at where nobody says how many."""


CEILING = 60.0
"""Most that an image counts for in a mean: PSNR in dB beyond the rounding to 8 bits; a flat image would be infinite."""


class Mean:
    """A distance of one output to its target as a metric: averaged over the images, `CEILING` at most for each."""

    against = "target"

    def __init__(self, function: Any) -> None:
        self.function = function
        self.reset()

    def reset(self) -> None:
        """Forget the outputs."""
        self.total, self.count = 0.0, 0

    def update(self, output: Tensor, reference: Tensor) -> None:
        """Take in outputs and their targets, (N, C, H, W) in [0, 1]."""
        self.total += float(self.function(output, reference).double().clamp(max=CEILING).sum())
        self.count += len(output)

    def compute(self) -> float:
        """Return the mean."""
        return self.total / self.count


class Spread:
    """How much outputs differ from one another, in units of how much real images do: 0 is total collapse."""

    against = "real"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the outputs."""
        self.count, self.sums = 0, [0.0] * 4

    def update(self, output: Tensor, reference: Tensor) -> None:
        """Take in outputs and real images, (N, C, H, W) in [0, 1]."""
        self.count += len(output)
        for place, images in enumerate((output, reference)):
            self.sums[2 * place] = self.sums[2 * place] + images.double().sum(0)
            self.sums[2 * place + 1] = self.sums[2 * place + 1] + images.double().square().sum(0)

    def compute(self) -> float:
        """Return the ratio of the two standard deviations, each averaged over pixels."""
        spreads = []
        for total, square in (self.sums[:2], self.sums[2:]):
            variance = square / self.count - (total / self.count).square()
            spreads.append(float(variance.clamp(min=0).sqrt().mean()))
        return spreads[0] / max(spreads[1], 1e-6)


def metric(name: str, **defaults: Any) -> Any:
    """Return a metric over sets of images by its name, e.g. ``perceptual[hed_vgg16]``."""
    kind, _, option = name.partition("[")
    found = part("metric", {"type": kind} | ({"network": option.rstrip("]")} if option else {}), **defaults)
    return found if hasattr(found, "update") else Mean(found)


def is_better(name: str, value: float, other: float) -> bool:
    """Return whether a value of a metric is better than another one."""
    return value > other if name.split("[")[0] in HIGHER_IS_BETTER else value < other


class Judge:
    """Metrics by name over what a system makes of validation data, direction by direction.

    Args:
        names: metrics of the registry. options: used where a metric takes them.
    """

    def __init__(self, names: list[str] | tuple[str, ...], **options: Any) -> None:
        self.names, self.options = list(names), options
        self.metrics: dict[tuple[str, str], Any] = {(name, ""): metric(name, **options) for name in names}
        self.spread: dict[str, Spread] = {}

    def reset(self) -> None:
        """Forget all outputs; what is known of real images stays."""
        for found in self.metrics.values():
            found.reset()
        self.spread = {}

    @torch.no_grad()
    def update(self, trials: dict[str, Trial], span: tuple[float, float]) -> None:
        """Take in a batch of trials whose images lie in ``span``.

        Raises:
            ValueError: a metric that compares with what the task does not have.
        """
        low, high = span

        def unit(images: Tensor) -> Tensor:
            return ((images.float() - low) / (high - low)).clamp(0, 1)

        for direction, trial in trials.items():
            output, known = unit(trial.output), {}
            if output.dim() == 4 and output.shape[1] > 3 and self.names:
                raise ValueError(
                    f"metrics compare grey or RGB images, and here are {output.shape[1]} channels; choose none for "
                    "validate.metrics"
                )
            for name in self.names:
                key = (name, direction)
                if key not in self.metrics:
                    self.metrics[key] = metric(name, **self.options)
                found = self.metrics[key]
                reference = getattr(trial, found.against)
                if reference is None:
                    pairs = ", unless two sets hold files of the same names" if found.against == "target" else ""
                    raise ValueError(
                        f"metric {name}: there is no {found.against} to compare with in this task{pairs}; "
                        "choose others for validate.metrics (--metrics)"
                    )
                # Metrics on one network share their features by the tensor that they are of.
                if found.against not in known:
                    known[found.against] = unit(reference) if reference.dim() == 4 else reference
                found.update(output, known[found.against])
            if trial.real is not None:
                self.spread.setdefault(direction, Spread()).update(output, unit(trial.real))

    def compute(self) -> dict[str, float]:
        """Return each metric's value; with several directions their mean, and each as ``NAME_DIRECTION``."""
        table: dict[str, dict[str, float]] = {}
        several = any(direction for _, direction in self.metrics)
        for (name, direction), found in self.metrics.items():
            if not direction and several:
                continue
            table.setdefault(name, {})[direction] = float(found.compute())
        for direction, found in self.spread.items():
            if found.count > 1:
                table.setdefault("diversity", {})[direction] = found.compute()
        values = {name: sum(row.values()) / len(row) for name, row in table.items()}
        for name, row in table.items():
            values |= {f"{name}_{direction}": value for direction, value in row.items() if direction}
        return values


def evaluate(
    pipe: Pipeline,
    folders: list[Path],
    *,
    metrics: list[str] | tuple[str, ...] = ("psnr", "ssim"),
    images: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Return each metric over folders of images.

    An upscaler gets each image reduced as its recipe says, and is compared with the image itself on the Y channel with
    a border of ``scale`` pixels left out; one that cannot be judged costs a line on stderr. Any other system is tried
    out as its training validates it, at the page's size. Images are rounded to 8 bits first, as a user gets them;
    points of a toy are not.

    Args:
        pipe: the trained system.
        folders: as for the validation of its training; none for a toy that is drawn from a formula.
        metrics: names of the registry.
        images: how many, evenly spread; 0 for all, of a formula `POINTS`.
        seed: of what is random in it.
        progress: show a bar.

    Raises:
        ValueError: a metric or task that cannot be judged so, no folder, or one without images that can be judged.
    """
    if images < 0:
        raise ValueError(f"images = {images} must be 0 (all) or more")
    points = bool(pipe.recipe and pipe.recipe.data.points)
    if not folders and not points:
        raise ValueError(f"{pipe.name}: is judged on images; name their folder (--data)")
    if pipe.system is not None and pipe.task != "super_resolve":
        judge, system = Judge(metrics), pipe.placed()
        source = system.source(folders, validation=True)
        if points:
            source.count = images or POINTS
        if not len(source):
            raise ValueError(f"{folders[0]}: no readable images in it")
        if system.layout == "paired" and side_by_side(folders):
            tqdm.write(f"{folders[0]}: {HALVES}", file=sys.stderr)
        bar = tqdm(total=min(images or len(source), len(source)), unit="image", disable=None if progress else True)
        for place, batch in enumerate(together(source, seed, images)):
            # Mixed first: of a seed torch's generator on the CPU takes the lower 32 bits alone.
            torch.manual_seed(int(np.random.SeedSequence([seed, place]).generate_state(1)[0]))
            batch = {name: value.to(pipe.device) for name, value in batch.items()}
            with torch.inference_mode():
                trials = system.trial(batch)
            span = system.span
            if not points:
                trials = {name: trial._replace(output=_rounded(trial.output, *span)) for name, trial in trials.items()}
            judge.update(trials, span)
            bar.update(len(next(iter(batch.values()))))
        bar.close()
        return judge.compute()
    judge = Judge(metrics, border=pipe.scale, channel="y")
    spec = (pipe.recipe.data.degradation if pipe.recipe else None) or {"type": "bicubic"}
    degrade = part("degradation", spec)
    items = [item for folder in folders for item in images_in(folder)]
    count = min(images or len(items), len(items))
    items = [items[place * len(items) // count] for place in range(count)]
    failures = Report()
    for place, item in enumerate(tqdm(items, unit="image", disable=None if progress else True)):
        try:
            target = rgb(item, pipe.channels)
            if min(target.shape[:2]) < 4 * pipe.scale:
                raise ValueError(f"{target.shape[1]} x {target.shape[0]} pixels are too few to judge x{pipe.scale} by")
        except ValueError as error:
            fail(failures, item, error)
            continue
        h, w = (side // pipe.scale * pipe.scale for side in target.shape[:2])
        target = np.ascontiguousarray(target[:h, :w])
        given = degrade(target, pipe.scale, np.random.default_rng((seed, place)))
        trial = (
            torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
            for image in (pipe(given), given, target)
        )
        judge.update({"": Trial(*trial)}, (0.0, 1.0))
    if failures.failed == len(items):
        raise ValueError(f"{', '.join(map(str, folders))}: no image could be judged")
    return judge.compute()


def _rounded(images: Tensor, low: float, high: float) -> Tensor:
    return ((images - low) / (high - low) * 255).round() / 255 * (high - low) + low
