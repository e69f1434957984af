"""img2img: image-to-image and generative adversarial networks on one core.

The verbs: `upscale`, `translate`, `synthesize`, `train`, `evaluate`, `prepare`, `check`, `export`; `load` for a trained
system as a function, `list_models` and `describe` for the catalogue. Each imports what it needs when it is called, so
that ``import img2img`` is quick.
"""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "check",
    "describe",
    "evaluate",
    "export",
    "list_models",
    "load",
    "prepare",
    "synthesize",
    "train",
    "translate",
    "upscale",
]

DEFAULT_UPSCALER = "fast"
"""Page whose weights `upscale` uses where no model is named."""

_loaded: dict[tuple, Any] = {}


def load(name: str | Path, *, device: str | None = None, precision: str | None = None, **controls: Any) -> Any:
    """Return a trained system as a function on images: `img2img.pipeline.load`."""
    from img2img.pipeline import load as load_pipeline

    return load_pipeline(name, device=device, precision=precision, **controls)


def _cached(name: str | Path, device: str | None, precision: str | None, **controls: Any) -> Any:
    from img2img.recipe import locate

    path = locate(name, weights=True)
    key = (str(name), path.stat().st_mtime_ns, device, precision, repr(sorted(controls.items())))
    if key not in _loaded:
        _loaded.clear()  # one system at a time: a caller that alternates holds its own pipelines
        _loaded[key] = load(name, device=device, precision=precision, **controls)
    return _loaded[key]


def upscaler_for(scale: float | None) -> str:
    """Return the default upscaler's weight for a scale: the smallest that reaches it, else the largest."""
    from img2img.recipe import names

    found = {name.rsplit(".x", 1)[1]: name for name in names("weights", ".safetensors", f"{DEFAULT_UPSCALER}.x*")}
    have = {int(scale): name for scale, name in found.items() if scale.isdecimal()}
    if not have:
        raise ValueError(
            "no upscaler is installed under weights/; train one (img2img train fast ...) or name one with --model"
        )
    return have[min((s for s in have if s >= (4 if scale is None else scale)), default=max(have))]


def upscale(
    images: Any,
    *,
    model: str | Path | None = None,
    scale: float | None = None,
    size: str | None = None,
    channels: str = "rgb",
    tile: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Any:
    """Return an image, or a list of them, enlarged.

    Args:
        images: a path, Pillow image, uint8 or uint16 array, float tensor in [0, 1], or a list of such; what comes
            back is of the same kind (a Pillow image for a path).
        model: a weight's name, file or run folder; None for the default one that reaches the scale.
        scale: output side / input side; None for the model's own (4 without a model).
        size: "3840x", "x2160" or "3840x2160" in place of a scale.
        channels: "bgr" for OpenCV's arrays.
        tile: side of the tiles in input pixels; None: chosen from free memory; 0: none.
        device: None for the best here.
        precision: None for bf16 where it is native and faithful, else fp32.

    Raises:
        ValueError: an unreadable image, an unknown model.
    """
    pipe = _cached(model or upscaler_for(scale), device, precision)
    if pipe.verb != "upscale":
        raise ValueError(f"{pipe.name} is no upscaler (task {pipe.task})")
    return pipe(images, channels=channels, scale=scale, size=size, tile=tile)


def translate(
    images: Any,
    *,
    model: str | Path,
    direction: str | None = None,
    channels: str = "rgb",
    tile: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Any:
    """Return an image, or a list of them, translated by a trained translator; kinds as in `upscale`.

    ``direction`` is "ab" or "ba" where the model translates both ways.

    Raises:
        ValueError: an unreadable image, an unknown model, a model that does not translate, or not that way.
    """
    pipe = _cached(model, device, precision, **({"direction": direction} if direction else {}))
    if pipe.verb != "translate":
        raise ValueError(f"{pipe.name} is no translator (task {pipe.task})")
    return pipe(images, channels=channels, tile=tile)


def synthesize(
    model: str | Path,
    *,
    count: int = 1,
    seed: int = 0,
    truncation: float | None = None,
    interpolate: int = 0,
    mix: bool = False,
    device: str | None = None,
    precision: str | None = None,
    **controls: Any,
) -> list:
    """Return ``count`` Pillow images drawn from a trained generator; the same seed gives the same images.

    Args:
        model: a weight's name, file or run folder.
        count: how many.
        seed: of what is random in them.
        truncation: variety against fidelity, see `img2img.pipeline.Pipeline.draw`.
        interpolate: so many images on the way from each to the next, without a label all of class 0.
        mix: ``count`` x ``count`` images with the coarse styles of one and the fine ones of another (StyleGAN).
        device: None for the best here.
        precision: None for bf16 where it is native, else fp32.
        controls: what the model lets one choose, e.g. ``label=7`` or InfoGAN's ``code=(0.5, -1)``.

    Raises:
        ValueError: an unknown model or control, or one that does not make images of noise.
    """
    pipe = _cached(model, device, precision, **controls)
    return pipe.sample(count, seed=seed, truncation=truncation, interpolate=interpolate, mix=mix)


def train(
    recipe: str | Path,
    data: str | Path | list[str | Path] | None,
    out: str | Path,
    *,
    validation: str | Path | list[str | Path] | None = None,
    images: int | None = None,
    seed: int = 0,
    set: dict[str, Any] | list[str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    compile: bool = False,
    rollback: bool = False,
    doctor: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a page of the catalogue, a recipe file or a checkpoint's recipe; the same call resumes.

    Args:
        recipe: name or file.
        data: the training folder, or a list of two (A and B); folders with train/ and validation/ inside (as `prepare`
            makes them) stand for both. None for a toy that is drawn from a formula (``data.toy``).
        out: the run folder.
        validation: images to validate on, folder by folder as in ``data``, in place of those inside.
        images: how many images to see in all.
        seed: fixes everything random.
        set: keys to replace, e.g. ``{"networks.generator.width": 32}``.
        device: None for the best here.
        precision: None for bf16 where it is native, else fp32.
        compile: compile the networks.
        rollback: when the run collapses or diverges, go back to its best state and on at half the rate.
        doctor: look through the data before the first step and say what is wrong with it.
        progress: show a bar.

    Returns:
        The last line of the log.

    Raises:
        ValueError: a recipe, data or run folder that will not do.
        KeyboardInterrupt: the run was interrupted, and its state saved.
    """
    import os
    import shlex
    import sys
    from dataclasses import replace

    from img2img.data.doctor import examine
    from img2img.data.pairs import HALVES, side_by_side
    from img2img.data.photos import is_split
    from img2img.recipe import read
    from img2img.registry import lookup
    from img2img.trainer import Trainer

    page = replace(read(recipe), measured=[]).override(set or {})  # what was measured is not of this run
    if images is not None:
        page = page.override({"train.images": images})
    if data is None and not page.data.points:
        raise ValueError(f"{page.name}: learns from images; name their folder (--data)")
    folders = [Path(each) for each in (data if isinstance(data, list | tuple) else [data] if data else [])]
    held, layout = None, lookup("task", page.task).layout
    split = bool(folders) and all(map(is_split, folders))
    if validation is not None:
        held = [Path(each) for each in (validation if isinstance(validation, list | tuple) else [validation])]
        held = [each / "validation" if (each / "validation").is_dir() else each for each in held]
    elif split:
        held = [each / "validation" for each in folders]
    if split:
        folders = [each / "train" for each in folders]
    elif (
        held is None
        and layout == "unpaired"
        and len(folders) == 1
        and all((folders[0] / f"test{side}").is_dir() for side in "AB")
    ):
        held = folders  # trainA, trainB, testA, testB
    if doctor and folders and not (Path(out) / "last.safetensors").is_file() and os.environ.get("RANK", "0") == "0":
        minimum = page.data.size if page.task == "super_resolve" else 0
        findings = [
            f
            for f in examine(
                *folders,
                validation=None if held == folders else held,
                minimum=minimum,
                paired=layout == "paired",
                unpaired=layout == "unpaired",
            )
            if f.severity != "note" and not f.skipped
        ]
        if layout == "paired" and side_by_side(folders):
            print(f"{folders[0]}: {HALVES}", file=sys.stderr)  # noqa: T201
        for finding in findings[:20]:
            print(finding, file=sys.stderr)  # noqa: T201 (a training run speaks on stderr)
        if len(findings) > 20:
            command = ["img2img", "check", *map(str, folders)]
            command += ["--validation", *map(str, held)] if held and held != folders else []
            command += ["--minimum", str(minimum)] if minimum else []
            command += [f"--{layout}"] if layout else []
            print(f"... and {len(findings) - 20} more: {shlex.join(command)}", file=sys.stderr)  # noqa: T201
    trainer = Trainer(
        page,
        folders,
        out,
        validation=held,
        seed=seed,
        device=device,
        precision=precision,
        compile=compile,
        rollback=rollback,
        progress=progress,
    )
    return trainer.run()


def evaluate(
    model: str | Path,
    data: str | Path | list[str | Path],
    *,
    metrics: str | list[str] | tuple[str, ...] | None = None,
    images: int = 0,
    seed: int = 0,
    device: str | None = None,
    precision: str | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Return the mean of each metric of a trained system over the images of a folder: `img2img.evaluation.evaluate`.

    Metrics are names, or one text with commas; None for those that its page validates by, or PSNR and SSIM. Of a folder
    with train/ and validation/ inside, as `prepare` makes it, the held-out images count.
    """
    from img2img.data.photos import is_split
    from img2img.evaluation import evaluate as judge

    folders = [Path(each) for each in (data if isinstance(data, list | tuple) else [data])]
    folders = [each / "validation" if is_split(each) else each for each in folders]
    pipe = load(model, device=device, precision=precision)
    chosen = metrics.split(",") if isinstance(metrics, str) else list(metrics or ())
    if not chosen and pipe.recipe is not None:
        chosen = pipe.recipe.validate.metrics
    chosen = [name.strip() for name in chosen] or ["psnr", "ssim"]
    return judge(pipe, folders, metrics=chosen, images=images, seed=seed, progress=progress)


def prepare(
    name: str | None = None,
    out: str | Path | None = None,
    *,
    source: str | Path | None = None,
    make: str | dict[str, Any] | None = None,
    size: int = 0,
    seed: int = 0,
) -> Path:
    """Lay out images to train on; return their folder.

    Either a data set of ``datasets/`` by its ``name``, fetched and verified (`img2img.data.prepare.prepare`), or pairs
    that are made of a folder of images: ``source="photos/", make="edges", out="pairs/"`` (`img2img.data.make`).

    Raises:
        ValueError: neither or both are asked for, an unknown name or maker, a source that will not do.
    """
    if (name is None) == (source is None) or (source is None) != (make is None) or (source and out is None):
        raise ValueError("name a data set, or give a folder (--from), what to make of it (--make) and where (-o)")
    if source is not None:
        from img2img.data.make import make_pairs

        return make_pairs(source, make, out, size=size, seed=seed)
    if size:
        raise ValueError(f"size = {size} is for pairs that are made of a folder; the page of {name} says its own")
    from img2img.data.prepare import prepare as lay_out

    return lay_out(name, out)


def check(
    *folders: str | Path,
    validation: str | Path | list[str | Path] | None = None,
    minimum: int = 0,
    paired: bool = False,
    unpaired: bool = False,
) -> list:
    """Return what is wrong with folders of images: `img2img.data.doctor.examine`."""
    from img2img.data.doctor import examine

    return examine(*folders, validation=validation, minimum=minimum, paired=paired, unpaired=unpaired)


def export(model: str | Path, target: str | Path) -> dict[str, Any]:
    """Write a trained network as ONNX, checked against PyTorch: `img2img.exporter.export`."""
    from img2img.exporter import export as write

    return write(model, target)


def list_models(pattern: str = "*") -> list[dict[str, Any]]:
    """Return the catalogue: one entry a page with its name, task, paper, about and weights."""
    from img2img.recipe import names, read

    weights = names("weights", ".safetensors")
    found = []
    for name in names("models", ".toml", pattern):
        page = read(name)
        mine = [weight for weight in weights if weight.split(".")[0] == name]
        found.append({"name": name, "task": page.task, "about": page.about, "paper": page.paper, "weights": mine})
    return found


def describe(name: str | Path) -> dict[str, Any]:
    """Return a page, or the recipe in a checkpoint's header, as plain data."""
    from img2img.recipe import read

    return read(name).page()
