"""A trained network as an ONNX file for programs without PyTorch: any height and width, checked before it is kept."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from img2img.checkpoint import atomic
from img2img.pipeline import Pipeline, load

TOLERANCE = 1e-3
"""Largest difference of any output value to PyTorch's at which a file is kept; images are in [0, 1] or [-1, 1]."""
OPSET = 18
EXTRA = ("onnx", "onnxruntime", "onnxscript")


def export(source: str | Path | Pipeline, target: str | Path, *, check: bool = True) -> dict[str, Any]:
    """Write an upscaler or translator as ONNX, in fp32, for images of any size, or of the only one that it works at.

    The file's input is ``input`` (1, C, height, width) and its output ``output`` (1, C, height * scale, width * scale),
    in the network's own range and not clamped; height and width are multiples of ``multiple``, or ``side``. What a
    reader needs to know stands in the file's ``metadata_props``: ``name``, ``task``, ``scale``, ``range`` ("0 1" or
    "-1 1"), ``channels``, ``multiple`` and ``side`` (0: any). Only operators are used that OpenCV reads at any size,
    versions 4.10 and 5 alike.

    Args:
        source: a weight's name, run folder or file, or a pipeline.
        target: the .onnx file; replaced only by one that passed.
        check: run the file in onnxruntime and cv2.dnn at two sizes and compare with PyTorch.

    Returns:
        The path, the metadata, the size in bytes, and with ``check`` the sizes (height, width) tried and the largest
        difference of each runtime.

    Raises:
        ValueError: an optional package is missing; the model is unknown or makes images of noise; the network cannot be
            written; or a runtime cannot read the file, or differs from PyTorch by more than `TOLERANCE`.
        OSError: the file cannot be written.
    """
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"export needs {', '.join(missing)}: pip install {' '.join(missing)}")
    target = Path(target)
    if target.suffix.lower() != ".onnx":
        raise ValueError(f"{target}: the file's name must end in .onnx")
    pipe = source if isinstance(source, Pipeline) else load(source, device="cpu", precision="fp32")
    if pipe.verb == "synthesize":
        raise ValueError(f"{pipe.name} makes images from noise; only upscalers and translators can be exported")
    network = copy.deepcopy(pipe._plain).to("cpu", torch.float32)  # as loaded, not rounded to bf16
    name = Path(pipe.name).name.removesuffix(".safetensors").removesuffix(".pth")
    facts = {
        "name": name,
        "task": pipe.task,
        "scale": pipe.scale,
        "range": [int(value) for value in pipe.span],
        "channels": pipe.channels,
        "multiple": pipe.multiple,
        "side": getattr(network, "side", 0),
        "opset": OPSET,
    }
    with atomic(target) as temporary:
        _write(network, pipe, temporary, facts)
        found: dict[str, Any] = {"path": str(target), **facts, "bytes": temporary.stat().st_size}
        if check:
            sizes = _sizes(pipe.multiple, facts["side"])
            found["sizes"] = [list(size) for size in sizes]
            found["difference"] = _differences(network, pipe, sizes, temporary, target)
    return found


def _write(network: nn.Module, pipe: Pipeline, path: Path, facts: dict[str, Any]) -> None:
    from onnxscript import optimizer

    several, side = pipe.multiple > 1, facts["side"]
    unit, names = pipe.multiple, ("rows", "columns") if several else ("height", "width")
    sides = [unit * torch.export.Dim(name) if several else torch.export.Dim(name) for name in names]
    shape = (side, side) if side else (max(2, 24 // unit) * unit, max(3, 40 // unit) * unit)
    example = torch.zeros(1, pipe.channels, *shape)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    try:
        exporter.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Portable(network, pipe.span[0]),
                (example,),
                dynamo=True,
                dynamic_shapes=None if side else ({2: sides[0], 3: sides[1]},),
                input_names=["input"],
                output_names=["output"],
                opset_version=OPSET,
                verbose=False,
            )
            # What depends on weights alone (rearranged and constant kernels) is worked out now.
            optimizer.optimize(program.model, input_size_limit=2**40, output_size_limit=2**40)
    except Exception as error:  # the exporter wraps whatever the network's code raised
        error = error.__cause__ or error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{pipe.name}: this network cannot be written as ONNX ({reason[:200]})") from error
    finally:
        exporter.setLevel(level)
    for node in program.model.graph:
        node.metadata_props.clear()  # the exporter's notes name the files of this computer
    for key in ("name", "task", "scale", "channels", "multiple", "side"):
        program.model.metadata_props[key] = str(facts[key])
    program.model.metadata_props["range"] = " ".join(map(str, facts["range"]))
    program.save(path, external_data=False)


def _sizes(multiple: int, side: int = 0) -> tuple[tuple[int, int], ...]:
    """Return two (height, width), odd ones where the network takes them; or the only one that it works at."""
    if side:
        return ((side, side),)
    if multiple == 1:
        return (24, 37), (51, 33)
    few = max(1, 24 // multiple)
    return (few * multiple, (few + 1) * multiple), ((few + 2) * multiple, few * multiple)


def _differences(
    network: nn.Module, pipe: Pipeline, sizes: tuple[tuple[int, int], ...], path: Path, target: Path
) -> dict[str, float]:
    """Return each runtime's largest difference to PyTorch, and refuse one beyond `TOLERANCE`."""
    low, high = pipe.span
    random = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, pipe.channels, *size, generator=random) for size in sizes]
    images = [image * (high - low) + low for image in noise]
    with torch.no_grad():
        wanted = [network(image).numpy() for image in images]
    found = {}
    for name, runtime in (("onnxruntime", _onnxruntime), ("cv2.dnn", _opencv)):
        try:
            outputs = runtime(path, [image.numpy() for image in images])
        except Exception as error:  # each runtime has its own errors
            reason = " ".join(str(error).split())
            raise ValueError(f"{target}: not written, {name} cannot run it ({reason[:300]})") from error
        worst = 0.0
        for output, want in zip(outputs, wanted, strict=True):
            if output.shape != want.shape:
                raise ValueError(f"{target}: not written, {name} gives {output.shape} instead of {want.shape}")
            worst = max(worst, float(np.nan_to_num(np.abs(output - want), nan=np.inf).max()))
        if worst > TOLERANCE:
            found = f"{name} differs from PyTorch by {worst:.2g}"
            raise ValueError(f"{target}: not written, {found}, more than {TOLERANCE:g}")
        found[name] = worst
    return found


def _onnxruntime(path: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return [session.run(["output"], {"input": image})[0] for image in images]


def _opencv(path: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    log = getattr(cv2.utils, "logging", None)  # some builds of version 4 have none
    level = log and log.getLogLevel()
    if log:
        log.setLogLevel(log.LOG_LEVEL_SILENT)  # its errors come as exceptions too
    try:
        found = []
        for image in images:
            network = cv2.dnn.readNetFromONNX(np.frombuffer(path.read_bytes(), np.uint8))
            network.setInput(image)
            found.append(network.forward().copy())
        return found
    finally:
        if log:
            log.setLogLevel(level)


class _Portable(nn.Module):
    """A network spelled in operators that OpenCV reads at any size."""

    def __init__(self, network: nn.Module, black: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("black", torch.full((1, 1, 1, 1), black))

    def forward(self, image: Tensor) -> Tensor:
        # OpenCV 4 takes unknown sides as 0 when it reads a file, and as 1 behind the first sum. A maximum that changes
        # no image brings both arms of every later sum behind one.
        image = torch.maximum(image, self.black)
        with _Spelling():
            return self.network(image)


class _Spelling(TorchFunctionMode):
    """Replaces operators whose ONNX form needs known sizes by convolutions with constant kernels of the same effect."""

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.pixel_shuffle and not kwargs:
            return _shuffled(*args)
        if function is functional.interpolate:
            given = dict(zip(("input", "size", "scale_factor", "mode"), args, strict=False)) | kwargs
            factor = given.get("scale_factor")
            if given.get("mode", "nearest") == "nearest" and isinstance(factor, int | float) and factor == int(factor):
                return _repeated(given["input"], int(factor))
        if function is torch.Tensor.repeat_interleave and args[0].dim() == 4 and kwargs == {"dim": 1}:
            image, times = args
            return functional.conv2d(image, torch.eye(image.shape[1]).repeat_interleave(times, 0)[:, :, None, None])
        if function is torch.prelu and args[1].numel() == 1:
            return torch.prelu(args[0], args[1].expand(args[0].shape[1]).contiguous())
        return function(*args, **kwargs)


def _shuffled(image: Tensor, factor: int) -> Tensor:
    """Pixel shuffle as a transposed convolution: each of a pixel's channels goes to its own place."""
    places = torch.eye(factor**2).reshape(factor**2, 1, factor, factor)
    channels = image.shape[1] // factor**2
    return functional.conv_transpose2d(image, places.repeat(channels, 1, 1, 1), stride=factor, groups=channels)


def _repeated(image: Tensor, factor: int) -> Tensor:
    """Nearest-neighbour enlargement as a transposed convolution."""
    channels = image.shape[1]
    return functional.conv_transpose2d(image, torch.ones(channels, 1, factor, factor), stride=factor, groups=channels)
