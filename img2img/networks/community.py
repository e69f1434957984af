"""Community upscalers: networks that spandrel knows, from weight files that are read without executing anything.

spandrel's own loader reads .pth files by an unpickler of its own and .pt files as TorchScript; here only its
architectures are used, and files are read by PyTorch's weights-only unpickler or by safetensors.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from img2img.imaging.tiles import margin_of
from img2img.pipeline import Pipeline

REACH = 64
"""Largest receptive-field radius, in input pixels, for which tiles are made exact; beyond it context costs too much."""
OVERLAP = 16
"""Least context of a tile, in input pixels, of a network that sees further than `REACH`."""
VISIBLE = 0.25 / 255
"""Change of an output value beyond which the context of such a network must reach: a quarter of a grey level."""


class Community(nn.Module):
    """A network of spandrel's by our contract: (N, C, H, W) -> (N, C, H * scale, W * scale), both in [0, 1], clamped.

    Inputs smaller than the network takes, or no multiple of what it needs, are padded by reflection and the result is
    cropped; whole images come as multiples already (`multiple`).

    Args:
        descriptor: spandrel's `ImageModelDescriptor`.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        # Copies of this module stay whole: the descriptor's network is this very child.
        self.descriptor, self.model = descriptor, descriptor.model
        self.scale, self.multiple = descriptor.scale, descriptor.size_requirements.multiple_of
        self.precisions = {"fp32": True, "bf16": descriptor.supports_bfloat16, "fp16": descriptor.supports_half}

    def forward(self, x: Tensor) -> Tensor:
        return self.descriptor(x)


class CommunityPipeline(Pipeline):
    """A pipeline that computes only in numbers that the network is known to bear."""

    def to(self, device: str | None = None, precision: str | None = None) -> Pipeline:
        """Move to a device and choose a precision, fp32 where spandrel knows the network to need it.

        Raises:
            ValueError: no such device, or a precision that the network does not bear.
        """
        bears = self._plain.precisions
        if not bears.get(precision or "bf16", True):
            if precision not in (None, "", "auto"):
                raise ValueError(f"{self.name}: this network does not work in {precision}; use --precision fp32")
            precision = "fp32"
        return super().to(device, precision)


def community(path: str | Path) -> Pipeline:
    """Load a community upscaler or restorer through spandrel.

    Tiles are exact where the receptive field's radius is at most `REACH`. Deeper networks get the context beyond which
    a trial found no effect that could be seen (`VISIBLE`), at least `OVERLAP`: not exact, as in the tools for which
    they were made. Where the effect has no end, or spandrel advises against tiles, the image is taken whole. An image
    that fits into memory is one tile and exact anyway.

    Args:
        path: a .safetensors file, or a .pth, .pt or .ckpt file with tensors in dictionaries and nothing else.

    Returns:
        A pipeline with ``task`` "super_resolve"; its ``scale`` may be 1.

    Raises:
        ValueError: spandrel is missing; the file is unreadable or holds more than tensors; spandrel does not know
            the network; or it is no image-to-image network for grey or RGB (faces, inpainting).
    """
    path = Path(path)
    try:
        import spandrel
    except ImportError:
        raise ValueError(f"{path}: a community upscaler needs spandrel: pip install spandrel") from None
    state = _state(path)
    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except Exception as error:  # the detectors of forty architectures raise whatever they stumble over
        detail = f" ({type(error).__name__}: {' '.join(str(error).split())[:200]})" if str(error) else ""
        raise ValueError(f"{path}: no network that spandrel knows{detail}; is it an upscaler's file?") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.purpose not in ("SR", "Restoration"):
        raise ValueError(f"{path}: a network for {descriptor.purpose}, not for upscaling; choose an upscaler's file")
    channels = descriptor.input_channels
    if channels not in (1, 3) or descriptor.output_channels != channels:
        raise ValueError(
            f"{path}: the network takes {channels} channels and gives {descriptor.output_channels}; "
            "only grey to grey (1) and RGB to RGB (3) can be used"
        )
    network = Community(descriptor).float().eval()
    margin = _margin(network, channels)
    return CommunityPipeline(
        network, str(path), task="super_resolve", scale=descriptor.scale, channels=channels, margin=margin
    )


def _state(path: Path) -> dict[str, Any]:
    """Read a file's tensors by name (dictionaries around them are spandrel's to unwrap)."""
    try:
        if path.suffix.lower() == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what matters is in the error
                state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, it is no plain file of weights: what else it holds could run code; "
            "use a .safetensors file of the same network"
        ) from error
    except Exception as error:  # a damaged file leads the readers to errors of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a readable file of weights ({reason}); fetch it again") from error
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path}: holds no weights by name; is it an upscaler's file?")
    return state


def _margin(network: Community, channels: int) -> int | None:
    import spandrel

    needs = network.descriptor.size_requirements
    if needs.square:
        return None

    def slim(image: Tensor) -> Tensor:
        with _Slim():
            return network(image)

    options = {"multiple": network.multiple, "limit": REACH}
    margin = margin_of(slim, channels, network.scale, **options)
    if margin is None:
        if network.descriptor.tiling is not spandrel.ModelTiling.SUPPORTED:
            return None
        margin = margin_of(network, channels, network.scale, tolerance=VISIBLE, **options)
        if margin is None:
            return None
        margin = max(margin, OVERLAP)
    # With at least the smallest side as context, only images that small are ever padded: tile and whole image alike.
    return -(-max(margin, needs.minimum) // network.multiple) * network.multiple


class _Slim(TorchFunctionMode):
    """Lets each convolution see one averaged channel: the same reach for a thousandth of the work."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Weights that are computed from the image are left alone: they carry its influence too.
        if function is functional.conv2d and not kwargs and len(args) > 2 and isinstance(args[1], nn.Parameter):
            image, weight, _, *how = args
            kernel = weight.new_full((1, 1, *weight.shape[2:]), 1 / weight[0, 0].numel())
            return functional.conv2d(image.mean(1, keepdim=True), kernel, None, *how[:3]).repeat(1, len(weight), 1, 1)
        return function(*args, **(kwargs or {}))
