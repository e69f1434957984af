"""Run a network over an image of any size: in tiles that give exactly the whole image's result, in bounded memory."""

import contextlib
import copy
import gc
import random
import re
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from img2img.networks.norms import NotGathered, Statistics, frozen, gathering

Network = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> (N, C', H * scale, W * scale)."""

MINIMUM_TILE = 32
"""Side in input pixels below which a tile is not halved any more when memory runs out."""
CPU_BUDGET = 512 * 2**20
"""Most bytes of activations that a tile may take on a CPU, where larger tiles are no faster; an image that fits into
twice as much is not cut, since the context of its few tiles would cost more than that."""
PATCHES = 16
"""Patches whose statistics are gathered at once: few are no fair sample of an image, small ones are mostly border."""


class TooLittleMemory(ValueError):  # noqa: N818 (a name that reads well at the raise)
    """Not even the smallest tile fits into memory."""


# Tiles


def tiled(
    network: Network,
    image: Tensor | np.ndarray,
    emit: Callable[[int, int, Tensor], None],
    *,
    scale: int,
    margin: int | None,
    tile: int | tuple[int, int] | None = None,
    multiple: int = 1,
    prepare: Callable[[Any], Tensor] = lambda patch: patch,
) -> None:
    """Run a network over tiles whose context is cut at the image's borders only: the whole image's result, exactly.

    A tile is computed together with ``margin`` pixels around it, clipped at the image's border, so that the network
    pads with its own zeros at true borders only; then its context is cut off. When memory runs out the tiles are
    halved and the work goes on.

    Instance norms (`img2img.networks.norms.InstanceNorm`) look at the whole image by their statistics. Where there are
    several tiles, these are gathered first, in one more pass over the image, and then hold for all tiles alike: no
    seams show, whatever the tiles. They are those of the whole image as nearly as sets of patches can tell.

    Args:
        network: the network; it may be on any device.
        image: (N, C, H, W), a tensor or an array of any type that ``prepare`` takes.
        emit: called as ``emit(top, left, result)`` with each finished tile, in output pixels.
        scale: output side / input side.
        margin: radius of the network's receptive field in input pixels (`margin_of`), that of instance norms aside;
            None: one tile, the whole image.
        tile: input pixels of a tile's side, or (height, width); None: one tile.
        multiple: what H, W and every cut must be a multiple of (networks that go down and up again); H and W are.
        prepare: applied to each piece of ``image`` before the network (type, range, device).

    Raises:
        TooLittleMemory: a tile of `MINIMUM_TILE` does not fit.
    """
    height, width = image.shape[-2:]
    if margin is None or not tile:
        high, wide = height, width
    else:
        high, wide = (tile, tile) if isinstance(tile, int) else tile
    regions = deque(_split((0, 0, height, width), high, wide, multiple))
    around = 0 if margin is None else -(-margin // multiple) * multiple
    known: Statistics | None = None
    while regions:
        region = regions.popleft()
        top, left, bottom, right = region
        above, before = max(0, top - around), max(0, left - around)
        whole = region == (0, 0, height, width)
        result = None
        try:
            with contextlib.nullcontext() if whole else frozen(known):
                result = network(prepare(image[..., above : bottom + around, before : right + around]))
        except NotGathered:
            area = (min(bottom + around, height) - above) * (min(right + around, width) - before)
            known = _statistics(network, image, area, multiple, prepare)
            regions.appendleft(region)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if result is None:  # outside of the handler, whose traceback would keep the tensors alive
            _release()
            high, wide = _half(bottom - top, multiple), _half(right - left, multiple)
            if margin is None or (high, wide) == (bottom - top, right - left):
                what = "the whole image, which this network needs at once," if margin is None else "the smallest tile"
                raise TooLittleMemory(
                    f"out of memory: {what} of {right - left} x {bottom - top} pixels does not fit; "
                    "use a smaller image, a smaller model or a device with more memory"
                )
            pending = [region, *regions]
            regions = deque(part for each in pending for part in _split(each, high, wide, multiple))
            continue
        expected = ((min(bottom + around, height) - above) * scale, (min(right + around, width) - before) * scale)
        if tuple(result.shape[-2:]) != expected:
            raise ValueError(f"the network gave {tuple(result.shape[-2:])} pixels instead of {expected}")
        y, x = (top - above) * scale, (left - before) * scale
        part = result[..., y : y + (bottom - top) * scale, x : x + (right - left) * scale]
        emit(top * scale, left * scale, part)
        del result, part


def _statistics(
    network: Network, image: Tensor | np.ndarray, area: int, multiple: int, prepare: Callable[[Any], Tensor]
) -> Statistics:
    """Return the statistics of an image's instance norms, from no more than ``area`` pixels at once.

    Each set of patches, drawn from all over the image, goes through the network together and is normalised as if it
    were the image, so that deeper layers see nearly what they would see of the image. A single tile is no such sample:
    statistics of tiles normalised by their own were further from the image's than if none had been shared.
    """
    wanted = -(-max(MINIMUM_TILE, int((area / PATCHES) ** 0.5)) // multiple) * multiple
    high, wide = sides = [min(length, wanted) for length in image.shape[-2:]]
    rows, columns = (
        [multiple * round(place) for place in np.linspace(0, (length - side) / multiple, -(-length // side))]
        for length, side in zip(image.shape[-2:], sides, strict=True)
    )
    corners = [(top, left) for top in rows for left in columns]
    random.Random(0).shuffle(corners)
    count = -(-len(corners) // max(1, area // (high * wide)))
    sets = deque(corners[place::count] for place in range(count))
    known = Statistics()
    stack = torch.cat if isinstance(image, Tensor) else np.concatenate
    while sets:
        chosen = sets.popleft()
        found = Statistics()
        try:
            with gathering(found, len(chosen)):
                network(prepare(stack([image[..., y : y + high, x : x + wide] for y, x in chosen])))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            found = None
        if found is not None:
            known.add(found)
        elif len(chosen) > 1:
            _release()
            sets.extendleft((chosen[::2], chosen[1::2]))
        else:
            raise TooLittleMemory(
                f"out of memory: a patch of {wide} x {high} pixels does not fit; "
                "use a smaller model or a device with more memory"
            )
    return known


def _split(region: tuple[int, int, int, int], high: int, wide: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """Cut a region into equal parts of at most (high, wide), at multiples."""
    top, left, bottom, right = region
    return [(y, x, v, u) for y, v in _cuts(top, bottom, high, multiple) for x, u in _cuts(left, right, wide, multiple)]


def _cuts(start: int, stop: int, side: int, multiple: int) -> list[tuple[int, int]]:
    units, most = (stop - start) // multiple, max(1, side // multiple)
    count = -(-units // most)
    marks = [start + multiple * (units * index // count) for index in range(count)] + [stop]
    return list(zip(marks, marks[1:], strict=False))


def _half(side: int, multiple: int) -> int:
    smallest = max(MINIMUM_TILE, multiple)
    return side if side <= smallest else max(smallest, -(-side // 2 // multiple) * multiple)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception of PyTorch or Python says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = r"out of memory|not enough memory|can't allocate|cannot allocate|failed to allocate|alloc_cpu|std::bad_alloc"
    return isinstance(error, RuntimeError) and re.search(said, str(error), re.IGNORECASE) is not None


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


# Measuring a network


def margin_of(
    network: Network,
    channels: int = 3,
    scale: int = 1,
    *,
    multiple: int = 1,
    limit: int = 1024,
    tolerance: float = 0.0,
) -> int | None:
    """Measure the radius of a network's receptive field, in input pixels.

    The centre of a random image is poisoned with NaN, which spreads to every output pixel that depends on it whatever
    the weights; a finite change is tried too, for networks that do not let NaN through. A full column, then a full
    row, is changed at once: two thin strips tell the same as a square image in a fraction of the time. The strip
    grows until the influence no longer touches its ends. All in float32 on the CPU, on a copy of the network (poison
    needs no precision, and float64 takes seven times as long).

    Args:
        network: an `nn.Module`, or a function of float32 tensors on the CPU.
        channels: of the input.
        scale: output side / input side.
        multiple: what the input's sides and the cuts must be a multiple of.
        limit: largest radius of interest.
        tolerance: 0 for the whole radius. Above, the distance from a cut beyond which cutting random images (noise,
            and noise enlarged) changed the output by no more than this: a measurement instead of a proof, for networks
            so deep that most of their radius is without effect (RRDBNet: 349 pixels).

    Returns:
        The radius, rounded up to a ``multiple``; None if the influence reaches further than ``limit`` (global pooling
        or normalisation over the image): such a network cannot be tiled exactly.
    """
    if isinstance(network, nn.Module):
        network = copy.deepcopy(network).to("cpu", torch.float32).eval()
    found = 0
    for upright in (False, True):
        if tolerance:
            radius = _effect(network, channels, scale, multiple, limit, tolerance, upright)
        else:
            radius = _radius(network, channels, scale, multiple, limit, upright)
        if radius is None:
            return None
        found = max(found, radius)
    return -(-found // multiple) * multiple


@torch.no_grad()
def _radius(network: Network, channels: int, scale: int, multiple: int, limit: int, upright: bool) -> int | None:
    random = torch.Generator().manual_seed(0)
    thick = -(-8 // multiple) * multiple
    reach = 32
    while True:
        units = -(-reach // multiple)
        length, start = (2 * units + 1) * multiple, units * multiple
        image = torch.rand(1, channels, thick, length, generator=random)

        def run(value: float | None, image: Tensor = image, start: int = start) -> Tensor:
            changed = image.clone()
            if value is not None:
                changed[..., start : start + multiple] = value
            return network(changed.transpose(2, 3) if upright else changed)

        def ends(touched: Tensor) -> tuple[int, int]:
            places = touched.flatten(0, 1).any(0).any(1 if upright else 0).nonzero().flatten().tolist()
            return (places[0], places[-1]) if places else (start * scale, start * scale)  # noqa: B023 (used at once)

        try:
            first, last = ends(run(torch.nan).isnan())
            inside = first > 0 and last < length * scale - 1
            if inside:
                plain, moved = run(None), run(3.0)
                low, high = ends((moved - plain).abs() > 1e-6 * plain.abs().max())
                first, last = min(first, low), max(last, high)
                inside = first > 0 and last < length * scale - 1
        except RuntimeError:  # a network that does not work on so thin a strip
            if thick >= length:
                raise
            thick = min(length, 4 * thick // multiple * multiple)
            continue
        if inside:
            radius = max(start - first // scale, last // scale - (start + multiple - 1), 0)
            return radius if radius <= limit else None
        if reach > limit:
            return None
        reach *= 4


@torch.no_grad()
def _effect(
    network: Network, channels: int, scale: int, multiple: int, limit: int, tolerance: float, upright: bool
) -> int | None:
    """Cut strips in two and return how far from the cut the output changes by more than ``tolerance``."""
    random = torch.Generator().manual_seed(0)
    half = 64
    while half <= 4 * limit:
        wide, thick = -(-half // multiple) * multiple, -(-32 // multiple) * multiple
        fine = torch.rand(1, channels, thick, 2 * wide, generator=random)
        coarse = functional.interpolate(fine[..., ::8, ::8], size=fine.shape[2:], mode="bilinear")
        image = torch.cat([fine, coarse])
        image = image.transpose(2, 3) if upright else image
        whole, part = network(image), network(image[:, :, :wide] if upright else image[..., :wide])
        whole = whole[:, :, : wide * scale] if upright else whole[..., : wide * scale]
        error = (whole - part).abs().amax((0, 1, 3) if upright else (0, 1, 2))
        changed = (~(error <= tolerance)).nonzero().flatten().tolist()
        radius = wide - changed[0] // scale if changed else 0
        if radius < wide // 2:
            return radius if radius <= limit else None
        half *= 4
    return None


class _Ledger(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage not in self.seen:
                    self.seen.add(storage)
                    self.alive += storage.nbytes()
                    weakref.finalize(storage, self._drop, storage.nbytes())
                    self.peak = max(self.peak, self.alive)
        return result

    def _drop(self, size: int) -> None:
        self.alive -= size


@torch.no_grad()
def activation_bytes(
    network: Network,
    channels: int = 3,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    multiple: int = 1,
    side: int = 64,
) -> float:
    """Measure the peak of a network's living tensors, in bytes per input pixel, on one small image.

    What kernels take for themselves is not seen; `choose_tile` leaves room for it.
    """
    side = -(-side // multiple) * multiple
    image = torch.zeros(1, channels, side, side, device=device, dtype=dtype)
    with _Ledger() as ledger:
        network(image)
    return max(ledger.peak, image.nbytes) / side**2


def choose_tile(
    height: int,
    width: int,
    *,
    margin: int | None,
    bytes_per_pixel: float,
    device: str | torch.device = "cpu",
    multiple: int = 1,
    budget: int | None = None,
) -> tuple[int, int] | None:
    """Choose a tile's (height, width) from the memory that is free.

    Args:
        height: of the image, in input pixels.
        width: of the image.
        margin: see `tiled`; None gives None.
        bytes_per_pixel: of activations, see `activation_bytes`; a third is added for the kernels' own.
        device: where the network runs.
        multiple: what the sides must be a multiple of.
        budget: bytes for one tile; None: half of what is free on the CPU, but at most `CPU_BUDGET` unless most of each
            tile would be context; 70% on CUDA.

    Returns:
        None where the whole image fits; sides of at least `MINIMUM_TILE` else.
    """
    if margin is None:
        return None
    if budget is None:
        device = torch.device(device)
        if device.type == "cuda":
            budgets = [int(0.7 * torch.cuda.mem_get_info(device)[0])]
        else:
            half = psutil.virtual_memory().available // 2
            if height * width * 1.34 * bytes_per_pixel <= min(half, 2 * CPU_BUDGET):
                return None
            budgets = [min(half, CPU_BUDGET), half]
    else:
        budgets = [budget]
    for budget in budgets:
        area = budget / (1.34 * bytes_per_pixel)  # pixels that may be computed at once, context included
        if height * width <= area:
            return None
        side = int(area**0.5) - 2 * margin
        if side >= 2 * margin:
            break
    smallest = max(MINIMUM_TILE, multiple)
    high = wide = max(smallest, side)
    # A strip thinner than a square tile leaves room for a longer one.
    if height <= high:
        high, wide = height, max(wide, int(area / height) - 2 * margin)
    elif width <= wide:
        high, wide = max(high, int(area / width) - 2 * margin), width
    return tuple(max(multiple, value // multiple * multiple) for value in (high, wide))


# Pictures through networks


@torch.no_grad()
def apply(
    network: Network,
    pixels: np.ndarray,
    *,
    scale: int,
    margin: int | None,
    channels: int = 3,
    outputs: int = 0,
    tile: int | tuple[int, int] | None = None,
    multiple: int = 1,
    minimum: int = 16,
    low: float = 0.0,
    high: float = 1.0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Run a network over an image's samples of 1 to 4 channels and 8 or 16 bit, tile by tile.

    Grey goes through an RGB network as three equal channels, and the mean comes back; RGB goes through a one-channel
    network channel by channel. Colour with alpha goes through premultiplied, so that invisible colours leave no
    fringes, and alpha goes through as grey, held between the least and the most of its 3 x 3 neighbours so that flat
    areas stay flat. Each tile is quantised into the result at once, so memory holds input, result and one tile.

    Args:
        network: takes and gives (N, ``channels``, H, W) in [``low``, ``high``].
        pixels: (H, W, 1 to 4) uint8 or uint16.
        scale: output side / input side.
        margin: radius of the receptive field (`margin_of`); None: the whole image at once.
        channels: of the network, 1 or 3.
        outputs: channels that come out, where they are not those of ``pixels``, which then has ``channels``.
        tile: input pixels of a tile's side, or (height, width); None: the whole image at once.
        multiple: what the network needs H and W to be a multiple of; the image is padded by reflection and cropped.
        minimum: smallest side the network takes; smaller images are padded likewise.
        low: the network's black.
        high: the network's white.
        device: where tiles go.
        dtype: what they become.
        channels_last: memory layout of the tiles (quicker for most convolutional networks on a CPU).
        advance: called with the number of output pixels finished.

    Returns:
        (H * scale, W * scale, C) of the same type.

    Raises:
        TooLittleMemory: a tile of `MINIMUM_TILE` does not fit.
        ValueError: the network's output is not finite, or of a wrong size.
    """
    height, width, count = pixels.shape
    top_value = int(np.iinfo(pixels.dtype).max)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    tall, wide = (-(-max(side, minimum) // multiple) * multiple for side in (height, width))
    padded = pixels
    if (tall, wide) != (height, width):
        padded = np.pad(pixels, ((0, tall - height), (0, wide - width), (0, 0)), mode="reflect")
    translucent = count in (2, 4) and bool((pixels[:, :, -1] < top_value).any())
    colours = count - (count in (2, 4) and not outputs)
    assert not outputs or count == channels
    translucent &= not outputs
    result = np.empty((height * scale, width * scale, outputs or count), pixels.dtype)
    if translucent and margin is not None:
        margin = max(margin, 1)  # for alpha's neighbours

    def prepare(patch: np.ndarray) -> Tensor:
        # Back to the memory's own order; int32 because PyTorch computes with few unsigned types.
        values = np.array(patch.transpose(0, 2, 3, 1), np.uint8 if top_value == 255 else np.int32, order="C")
        return torch.from_numpy(values).to(device).permute(0, 3, 1, 2).to(torch.float32) / top_value

    def through(values: Tensor) -> Tensor:
        if channels == 1 or values.shape[1] == channels:
            folded = values.reshape(-1, channels, *values.shape[2:])
        else:
            folded = values.expand(-1, channels, -1, -1)
        if (low, high) != (0, 1):
            folded = folded * (high - low) + low
        found = network(folded.to(dtype).contiguous(memory_format=layout)).to(torch.float32)
        if (low, high) != (0, 1):
            found = (found - low) / (high - low)
        if channels == 1:
            return found.reshape(len(values), -1, *found.shape[2:])
        return found if outputs or values.shape[1] == channels else found.mean(1, keepdim=True)

    def run(values: Tensor) -> Tensor:
        if not translucent:
            return through(values[:, :colours])
        alpha = values[:, -1:]
        colour = through(values[:, :colours] * alpha)
        most = functional.max_pool2d(alpha, 3, 1, 1)
        least = -functional.max_pool2d(-alpha, 3, 1, 1)
        spread = [functional.interpolate(bound, scale_factor=scale, mode="nearest") for bound in (least, most)]
        alpha = torch.minimum(torch.maximum(through(alpha), spread[0]), spread[1])
        return torch.cat([colour / alpha.clamp(min=0.5 / top_value), alpha], 1)

    def emit(top: int, left: int, part: Tensor) -> None:
        part = part[0, :, : max(0, result.shape[0] - top), : max(0, result.shape[1] - left)]
        found, high, wide = part.shape
        if not part.numel():
            return
        if not torch.isfinite(part.sum()):
            raise ValueError("the network's output is not finite; try --precision fp32")
        values = part.permute(1, 2, 0).cpu().numpy().reshape(high, wide * found)
        area = result[top : top + high, left : left + wide]
        # One pass that scales, rounds, clamps and stores; PyTorch takes five.
        rounded = cv2.multiply(values, top_value, dtype=cv2.CV_8U if top_value == 255 else cv2.CV_16U)
        area[:, :, :found] = rounded.reshape(high, wide, found)
        if found < result.shape[2]:  # opaque
            area[:, :, -1] = top_value
        if advance:
            advance(high * wide)

    image = padded.transpose(2, 0, 1)[None]
    tiled(run, image, emit, scale=scale, margin=margin, tile=tile, multiple=multiple, prepare=prepare)
    return result
