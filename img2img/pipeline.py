"""A trained system as a function on images: paths, Pillow images, arrays, tensors and lists of them, kind for kind."""

import copy
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from img2img import checkpoint, engine
from img2img.adversarial.latent import slerp, truncate
from img2img.data.images import planes, signed, square
from img2img.imaging import tiles
from img2img.imaging.picture import LIMIT, Picture, on_white, read, with_alpha
from img2img.recipe import Recipe, locate
from img2img.systems.system import System, restore

LEAST = 4
"""Smallest tile in pixels: smaller ones would be almost all overlap."""

FAITHFUL = 50.0
"""Decibels between the results in bf16 and fp32 below which bf16 is not chosen by itself."""

SLACK = 0.1
"""How far a float image may overshoot [0, 1], as those of other networks do; it is clamped, and more is refused."""


class Pipeline:
    """A trained generator ready for images; `img2img.load` makes one.

    Attributes:
        name: what it was loaded as.
        task: "super_resolve", "paired", "unpaired", "generate", ...
        verb: which verb it serves: "upscale", "translate" or "synthesize".
        scale: output side / input side.
        channels: of the network's input; outputs: of its output.
        margin: receptive-field radius in input pixels, or None where the whole image is needed at once.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        *,
        task: str,
        scale: int,
        channels: int,
        span: tuple[float, float] = (0.0, 1.0),
        margin: int | None = None,
        outputs: int = 0,
        verb: str = "upscale",
        recipe: Recipe | None = None,
        system: System | None = None,
    ) -> None:
        self.name, self.task, self.scale, self.channels, self.span = name, task, scale, channels, span
        self.margin, self.verb, self.recipe, self.system = margin, verb, recipe, system
        self.outputs = outputs or channels
        self.silent = False  # whether it draws what a text says, and none was given
        self.multiple = getattr(network, "multiple", 1)
        self._plain = network.eval().requires_grad_(False)
        self._cost: dict[torch.dtype, float] = {}
        self.to()

    def to(self, device: str | None = None, precision: str | None = None) -> "Pipeline":
        """Move to a device and a precision; without names the best device, and bf16 where it is native and faithful."""
        self.device = engine.choose_device(device)
        self.automatic = precision in (None, "", "auto")
        precise = self.automatic and getattr(self._plain, "precise", False)
        self.dtype = engine.choose_precision("fp32" if precise else precision, self.device)
        self.network, self.exact = self._ready(self.dtype), None
        if self.automatic and self.dtype is torch.bfloat16 and self.verb != "synthesize":
            # A side that the network takes, at least 64.
            probe = (
                _probe(self.channels, -(-64 // self.multiple) * self.multiple).to(self.device)
                * (self.span[1] - self.span[0])
                + self.span[0]
            )
            exact = self._ready(torch.float32)
            error = (
                (self._run(self.network, probe, torch.bfloat16) - self._run(exact, probe, torch.float32))
                .square()
                .mean()
                .sqrt()
            )
            if -20 * math.log10(max(float(error) / (self.span[1] - self.span[0]), 1e-9)) < FAITHFUL:
                self.dtype, self.network = torch.float32, exact
        return self

    def _ready(self, dtype: torch.dtype) -> nn.Module:
        return copy.deepcopy(self._plain).to(self.device, dtype, memory_format=torch.channels_last)

    @staticmethod
    @torch.inference_mode()
    def _run(network: nn.Module, batch: Tensor, dtype: torch.dtype) -> Tensor:
        return network(batch.to(dtype).contiguous(memory_format=torch.channels_last)).float()

    @property
    def settings(self) -> str:
        """What a result depends on besides the image: the folder tool makes files anew when it changes."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.name} {checkpoint.digest(self._plain)} {dtype}{' for 8 bit' * self.automatic}"

    def __call__(self, images: Any, *, channels: str = "rgb", **options: Any) -> Any:
        """Return what the network makes of an image, as the kind of thing that was given.

        Args:
            images: a path (gives a Pillow image), a Pillow image, a numpy array (H, W) or (H, W, 1 to 4) of uint8 or
                uint16, a float tensor (C, H, W) or (N, C, H, W) in [0, 1], or a list of such.
            channels: "rgb", or "bgr" for OpenCV's arrays.
            options: see `picture`.

        Raises:
            ValueError: the image is unreadable, or of a kind, shape or range that is not listed, or the model makes
                images of noise.
        """
        if channels not in ("rgb", "bgr"):
            raise ValueError(f"channels = {channels!r} is neither 'rgb' nor 'bgr'")
        if isinstance(images, list | tuple):
            return [self(image, channels=channels, **options) for image in images]
        if isinstance(images, Tensor):
            return self.tensor(images, **options)
        if isinstance(images, str | Path):
            return self.picture(read(images), **options).to_pil()
        if isinstance(images, Image.Image):
            return self.picture(Picture.from_pil(images), **options).to_pil()
        if isinstance(images, np.ndarray):
            if images.dtype not in (np.uint8, np.uint16) or images.ndim not in (2, 3):
                raise ValueError(
                    f"an array must be (H, W) or (H, W, 1 to 4) of uint8 or uint16, not {images.shape} {images.dtype}; "
                    "floats in [0, 1] become one by (x * 255).round().astype('uint8')"
                )
            pixels = _swapped(images) if channels == "bgr" else images
            found = self.picture(Picture(pixels), **options).pixels
            found = _swapped(found) if channels == "bgr" else found
            return found[..., 0] if images.ndim == 2 and found.shape[2] == 1 else found
        raise ValueError(
            f"expected a path, a Pillow image, an array, a tensor or a list of such, not {type(images).__name__}"
        )

    def tensor(
        self, batch: Tensor, *, scale: float | None = None, size: str | None = None, tile: int | None = None
    ) -> Tensor:
        """Run a float tensor (C, H, W) or (N, C, H, W) in [0, 1] through the network in one piece.

        ``scale`` and ``size`` as in `picture`; ``tile`` has no effect.

        Raises:
            ValueError: another shape or type, values more than `SLACK` outside [0, 1], or as `picture` says.
        """
        self._check_verb()
        fits = batch.dim() in (3, 4) and batch.is_floating_point() and 0 not in batch.shape
        if not fits or batch.shape[-3] != self.channels:
            raise ValueError(
                f"a tensor must be ({self.channels}, H, W) or (N, {self.channels}, H, W) floats in [0, 1], "
                f"not {tuple(batch.shape)} {batch.dtype}" + "; x / 255 makes it so" * (batch.dtype is torch.uint8)
            )
        least, most = (float(value) for value in batch.aminmax())
        if not (least >= -SLACK and most <= 1 + SLACK):
            raise ValueError(f"a tensor must be in [0, 1], and this one {_mend(least, most)}")
        low, high = self.span
        height, width = batch.shape[-2:]
        wide, tall = self._target(width, height, scale, size)
        given = (batch if batch.dim() == 4 else batch[None]).to(self.device).float().clamp(0, 1) * (high - low) + low
        # Made large enough, as tiles.apply does, and cut back.
        bottom, right = (-(-max(side, 16) // self.multiple) * self.multiple - side for side in (height, width))
        rows, columns = (
            torch.from_numpy(np.pad(np.arange(side), (0, more), mode="reflect")).to(self.device)
            for side, more in ((height, bottom), (width, right))
        )
        given = given[..., rows, :][..., columns]
        found = self._run(self.network, given, self.dtype)[..., : height * self.scale, : width * self.scale]
        if found.shape[-2:] != (tall, wide):
            found = functional.interpolate(found, (tall, wide), mode="bicubic", antialias=True)
        found = ((found - low) / (high - low)).clamp(0, 1).to(batch.device, batch.dtype)
        return found if batch.dim() == 4 else found[0]

    def check(self, *, scale: float | None = None, size: str | None = None, tile: int | None = None) -> None:
        """Refuse options that no image can be made by.

        Raises:
            ValueError: a scale, size or tile outside its range, or a model that makes images of noise.
        """
        self._check_verb()
        wanted_size(1, 1, self.scale if scale is None else scale, size)
        if tile is not None and tile != 0 and tile < LEAST:
            raise ValueError(f"tile = {tile} must be 0 (the whole image at once), or {LEAST} pixels or more")

    def _check_verb(self) -> None:
        if self.verb == "synthesize":
            raise ValueError(
                f"{self.name} (task {self.task}) makes images of noise, not of images; .sample() draws them"
            )

    def _target(self, width: int, height: int, scale: float | None, size: str | None) -> tuple[int, int]:
        """Return the output's (width, height), refused where resampling to it would not fit into any memory."""
        wide, tall = wanted_size(width, height, self.scale if scale is None else scale, size)
        if wide * tall > LIMIT and (wide, tall) != (width * self.scale, height * self.scale):
            option = f"--size {size}" if size else f"--scale {scale}"
            raise ValueError(
                f"{option} makes {wide} x {tall} pixels, more than the limit of {LIMIT}; choose a smaller one"
            )
        return wide, tall

    @torch.inference_mode()
    def picture(
        self,
        picture: Picture,
        *,
        scale: float | None = None,
        size: str | None = None,
        tile: int | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Picture:
        """Run an image with its metadata through the network, in tiles when memory asks for it.

        Args:
            picture: 8 or 16 bit, grey or RGB, with or without alpha; all of it is kept.
            scale: output side / input side, where it is not the network's own: the network's result is resampled.
            size: "WIDTHx", "xHEIGHT" or "WIDTHxHEIGHT" in place of a scale.
            tile: side of the tiles in input pixels; None: chosen from free memory; 0: the whole image at once.
            advance: called with the number of the network's output pixels that were finished.

        Where the precision was not chosen, 16-bit images are computed in fp32: bf16 has steps of 256 of their levels.

        Raises:
            ValueError: a scale, size or tile outside its range, an output to resample to that has more than `LIMIT`
                pixels, or a model that makes images of noise.
        """
        self.check(scale=scale, size=size, tile=tile)
        target = self._target(picture.width, picture.height, scale, size)
        network, dtype = self.network, self.dtype
        if picture.pixels.dtype == np.uint16 and self.automatic and dtype is not torch.float32:
            self.exact = self.exact or self._ready(torch.float32)
            network, dtype = self.exact, torch.float32

        def run(batch: Tensor) -> Tensor:
            return network(batch)

        if tile is None:
            if dtype not in self._cost:
                self._cost[dtype] = tiles.activation_bytes(
                    run, self.channels, device=self.device, dtype=dtype, multiple=self.multiple
                )
            chosen = tiles.choose_tile(
                picture.height,
                picture.width,
                margin=self.margin,
                bytes_per_pixel=self._cost[dtype],
                device=self.device,
                multiple=self.multiple,
            )
        else:
            chosen = tile or None
        given, alpha = picture.pixels, None
        if self.verb == "translate":
            # What a translator makes has its own channels; alpha is a shape, and no business of it.
            given, alpha = converted(given, self.channels)
        pixels = tiles.apply(
            run,
            given,
            scale=self.scale,
            margin=self.margin,
            channels=self.channels,
            outputs=self.outputs if self.verb == "translate" else 0,
            tile=chosen,
            multiple=self.multiple,
            low=self.span[0],
            high=self.span[1],
            device=self.device,
            dtype=dtype,
            advance=advance,
        )
        pixels = resample(pixels if alpha is None else np.concatenate([pixels, alpha], 2), *target)
        return Picture(pixels, picture.exif, picture.icc, picture.xmp, picture.dpi)

    def ask(self, **controls: Any) -> "Pipeline":
        """Have the same system do something else from now on, e.g. draw another ``text``; ``controls`` as in `load`.

        Raises:
            ValueError: the system does not let one choose that.
        """
        if self.system is None:
            raise ValueError(f"{self.name} (task {self.task}): has no {next(iter(controls))!r} to choose")
        self._plain = _deployed(self.system, controls).eval().requires_grad_(False)
        self.silent = _silent(self.system, controls)
        self.channels, self.outputs = self.system.depths(**controls)
        self.network, self.exact, self._cost = self._ready(self.dtype), None, {}
        return self

    def placed(self) -> System:
        """Return a copy of the whole system on this pipeline's device; its own stays where it was loaded."""
        return copy.deepcopy(self.system).to(self.device)

    @torch.inference_mode()
    def classify(
        self, files: list[Path], *, batch: int = 256, failed: Callable[[Path, Exception], None] | None = None
    ) -> dict[Path, str]:
        """Return the class of each image file, by its name in training, as the system's own classifier reads it.

        Of each image the largest centred square counts, at the page's size, as in training.

        Args:
            files: images, or arrays as `img2img.data.images.planes` reads them.
            batch: how many at once.
            failed: called with a file that cannot be read, which is left out then; None: its error is raised.

        Raises:
            ValueError: the system has no classifier, or an image cannot be read.
        """
        if not hasattr(self.system, "classify"):
            raise ValueError(f"{self.name} (task {self.task}) reads no classes; use a model that does, e.g. of pixelda")
        data, system, found = self.recipe.data, self.placed(), {}
        for start in range(0, len(files), batch):
            images = {}
            for path in files[start : start + batch]:
                try:
                    images[path] = signed(square(planes(path, data.channels), data.size))
                except Exception as error:
                    if failed is None:
                        raise
                    failed(path, error)
            if images:
                labels = system.classify(torch.stack(list(images.values())).to(self.device)).tolist()
                found |= zip(images, labels, strict=True)
        names = dict(enumerate(system.classes))
        return {path: names.get(label, str(label)) for path, label in found.items()}

    def sample(
        self,
        count: int = 1,
        *,
        seed: int = 0,
        batch: int = 64,
        truncation: float | None = None,
        interpolate: int = 0,
        mix: bool = False,
    ) -> list[Image.Image]:
        """Draw images from a generator of noise; the same seed gives the same images whatever the batch size and count.

        Args:
            count: how many.
            seed: of the latents.
            batch: how many at once.
            truncation: see `draw`.
            interpolate: so many images on the way from each latent to the next, and from the last to the first; where
                classes would come in turn, all are of class 0.
            mix: count x count images, each with the coarse styles of one latent and the fine ones of another (see
                `mixed`); those of one latent alone are on the diagonal.

        Raises:
            ValueError: the system makes images of images, not of noise, or none that such a choice is for.
        """
        if self.silent:
            raise ValueError(f"{self.name}: draws what a text says; give one, e.g. --text 'a red heart'")
        z = self.latents(count, seed)
        if interpolate:
            share = torch.arange(interpolate).repeat(count) / interpolate
            z = slerp(z.repeat_interleave(interpolate, 0), z.roll(-1, 0).repeat_interleave(interpolate, 0), share)
        images = (
            self.mixed(z, truncation) if mix else self.draw(z, batch=batch, truncation=truncation, turn=not interpolate)
        )
        if images.shape[1] not in (1, 3):
            raise ValueError(f"{self.name}: makes no pictures; load(...).draw(latents) gives what it makes")
        values = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [Picture(np.ascontiguousarray(pixels)).to_pil() for pixels in values]

    def latents(self, count: int, seed: int = 0) -> Tensor:
        """Return latents (N, latent); the first are the same however many are drawn.

        Raises:
            ValueError: the system makes images of images, not of noise.
        """
        latent = getattr(self._plain, "latent", None)
        if latent is None:
            raise ValueError(f"{self.name} (task {self.task}) makes images from images; use upscale or translate")
        if count < 1:
            raise ValueError(f"count = {count} must be 1 or more")
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([torch.randn(latent, generator=generator) for _ in range(count)])

    @torch.inference_mode()
    def draw(self, latents: Tensor, *, batch: int = 64, truncation: float | None = None, turn: bool = True) -> Tensor:
        """Return the images (N, C, H, W) in [0, 1] of latents (N, latent).

        Args:
            latents: as `latents` draws them.
            batch: how many at once.
            truncation: trades variety for fidelity. Styles are pulled to their mean by this factor, 0 to 1; other
                generators get latents of the normal distribution cut at so many standard deviations, over 0.
            turn: where no class was chosen, whether all come in turn; else every image is of class 0.

        Raises:
            ValueError: a truncation outside its range.
        """
        options: dict[str, Any] = {}
        if truncation is not None:
            if self._styled:
                if not 0 <= truncation <= 1:
                    raise ValueError(f"truncation = {truncation} must be 0 to 1 for a generator with styles")
                options = {"truncation": truncation}
            else:
                latents = truncate(latents, truncation)
        found = []
        for place, part in enumerate(latents.split(batch)):
            if getattr(self._plain, "in_turn", False):
                options["first"] = place * batch if turn else None
            found.append(self.network(part.to(self.device, self.dtype), **options).float().cpu())
        return self._unit(torch.cat(found))

    @torch.inference_mode()
    def mixed(self, latents: Tensor, truncation: float | None = None) -> Tensor:
        """Return N x N images in [0, 1], row by row: the row's latent gives coarse styles, the column's the others.

        Coarse are the first four layers, as in StyleGAN's figure 3 (https://arxiv.org/abs/1812.04948).

        Raises:
            ValueError: the generator has no styles.
        """
        if not self._styled:
            raise ValueError(f"{self.name}: has no styles to mix; a stylegan_generator has")
        given = latents.to(self.device, self.dtype)
        styles = self.network.map(given, truncation=1.0 if truncation is None else truncation)
        rows = []
        for coarse in styles:
            mixed = styles[:, None].repeat(1, self.network.layers, 1)
            mixed[:, :4] = coarse
            rows.append(self.network.synthesise(mixed).float().cpu())
        return self._unit(torch.cat(rows))

    @property
    def _styled(self) -> bool:
        return hasattr(self._plain, "synthesise")

    def _unit(self, images: Tensor) -> Tensor:
        low, high = self.span
        return ((images - low) / (high - low)).clamp(0, 1)


def load(name: str | Path, *, device: str | None = None, precision: str | None = None, **controls: Any) -> Pipeline:
    """Return a trained system as a function on images.

    Args:
        name: a weight of the catalogue ("fast.x4"), a run folder, a .safetensors file, or a community upscaler's file.
        device: None for the best here.
        precision: None for bf16 where it is native and faithful, else fp32.
        controls: what the system lets one choose, e.g. ``direction="ba"`` of an unpaired translator.

    Raises:
        ValueError: no such weight or control, or a file that is damaged or not known.
    """
    path = locate(name, weights=True)
    if path.suffix != ".safetensors" or not checkpoint.ours(path):
        from img2img.networks.community import community

        found = community(path)
    else:
        system: System = restore(str(path))
        network = _deployed(system, controls)
        recipe = system.recipe
        channels, outputs = system.depths(**controls)
        try:
            found = Pipeline(
                network,
                str(name),
                task=recipe.task,
                scale=getattr(network, "scale", 1),
                channels=channels,
                outputs=outputs,
                span=system.span,
                margin=getattr(network, "margin", None),
                verb=system.verb,
                recipe=recipe,
                system=system,
            )
            found.silent = _silent(system, controls)
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{path}: its generator does not do the task {recipe.task} ({reason})") from error
    return found.to(device, precision) if device or precision else found


def _deployed(system: System, controls: dict[str, Any]) -> nn.Module:
    known = inspect.signature(system.deployed).parameters
    for key in controls:
        if key not in known and "controls" not in known:
            raise ValueError(f"{system.recipe.name}: has no {key!r} to choose, but {', '.join(known)}")
    return system.deployed(**controls)


def _silent(system: System, controls: dict[str, Any]) -> bool:
    return "text" in inspect.signature(system.deployed).parameters and not str(controls.get("text", "")).strip()


def wanted_size(width: int, height: int, scale: float, size: str | None = None) -> tuple[int, int]:
    """Return the output's (width, height) for a scale, or for "WIDTHx", "xHEIGHT" or "WIDTHxHEIGHT".

    Raises:
        ValueError: the text is none of these, or the scale is not positive.
    """
    if size:
        found = re.fullmatch(r"([1-9]\d{0,5})?x([1-9]\d{0,5})?", str(size), re.ASCII)
        if not found or size == "x":
            raise ValueError(f"size {size!r} is none of WIDTHx, xHEIGHT, WIDTHxHEIGHT (e.g. 3840x)")
        wide, high = (int(side or 0) for side in found.groups())
        return wide or max(1, round(width * high / height)), high or max(1, round(height * wide / width))
    if not 0 < scale <= 64:
        raise ValueError(f"scale {scale} must be over 0 and at most 64")
    return max(1, round(width * scale)), max(1, round(height * scale))


def resample(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return (H, W, C) pixels at another size: by area where it shrinks, else Lanczos; colour weighted by alpha."""
    if pixels.shape[:2] == (height, width):
        return pixels
    top = float(np.iinfo(pixels.dtype).max)
    values = pixels.astype(np.float32) / top
    alpha = pixels.shape[2] in (2, 4)
    if alpha:
        values[..., :-1] *= values[..., -1:]
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    values = (values if values.ndim == 3 else values[..., None]).clip(0, 1)
    if alpha:
        values[..., :-1] /= np.maximum(values[..., -1:], 0.5 / top)
    return (values.clip(0, 1) * top).round().astype(pixels.dtype)


def converted(pixels: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (H, W, 1 to 4) pixels as ``channels`` (1, 3 or 4) of them, and the alpha beside them or None.

    As in training, what is transparent lies on white where alpha is none of the channels, and is opaque where it is one
    that the pixels lack.
    """
    if channels == 4:
        return with_alpha(pixels), None
    count = pixels.shape[2]
    alpha = pixels[..., -1:] if count in (2, 4) and channels != count else None
    colours = pixels if alpha is None else on_white(pixels)
    if colours.shape[2] == channels:
        return np.ascontiguousarray(colours), alpha
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY)[..., None], alpha
    if channels == 3:
        return colours.repeat(3, axis=2), alpha
    raise ValueError(f"the model takes {channels} channels, and the image has {colours.shape[2]}")


def _mend(least: float, most: float) -> str:
    """Say what range a float image has, and what brings it to [0, 1]."""
    if math.isnan(least):
        return "holds NaN"
    found = f"is in [{least:.4g}, {most:.4g}]"
    if least < -SLACK:
        return found + "; (x + 1) / 2 brings it there" * (least >= -1 - SLACK and most <= 1 + SLACK)
    return found + "; x / 255 brings it there" * (most <= 256)


def _swapped(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return pixels
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def _probe(channels: int, side: int) -> Tensor:
    """Return an image with flat parts, slopes, edges and grain, for comparing precisions."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(0, 1, side).expand(1, channels, side, side)
    blocks = (
        torch.rand(1, channels, side // 8, side // 8, generator=generator)
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    grain = torch.randn(1, channels, side, side, generator=generator) * 0.03
    return (0.4 * slope + 0.6 * blocks + grain).clamp(0, 1)
