"""The data doctor: what is wrong with folders of images, one line each, before hours are spent on them.

| finding | severity |
| --- | --- |
| a file that cannot be read; an image below the smallest size | error |
| a pair without its partner, or of two sizes; a side-by-side image of odd width; a missing file of a table | error |
| the same pixels in training and validation | error |
| nearly the same picture (recompressed, resized, brightened, mirrored, not cropped) in both | warning |
| the same pixels twice in training, or twice in validation | warning |
| an array (.npy) of other channels than most | error |
| grey among colour, colour among grey, alpha, 16 bit among 8 bit, several frames | warning |
| turned upright by its EXIF tag; how many files cannot be read, where there are several | note |
"""

import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from img2img.data.images import FILES, array
from img2img.data.pairs import TABLE as PAIRS
from img2img.data.pairs import halves_in, rows
from img2img.data.photos import files_below, is_split
from img2img.data.unpaired import domains
from img2img.imaging.picture import READABLE, read

SIDE = 16  # pixels of the grey thumbnails that are compared
# Correlation of two thumbnails from which on they count as the same picture. Copies of photos at half the size and JPEG
# quality 30 have 0.999, at 64 x 48 pixels 0.998; two different photos at most 0.8, two digits of MNIST 0.995.
ALIKE = 0.998
FLAT = 2.0  # standard deviation, in grey levels, below which a thumbnail shows nothing to compare
BLOCK, TABLE = 512, 8192  # validation and training images compared at a time
EXIF_ORIENTATION = 274


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, as one line: `severity: path: what; mend`.

    ``skipped``: training leaves the file out, and names it when it does.
    """

    path: Path
    severity: Literal["error", "warning", "note"]
    what: str
    mend: str
    skipped: bool = False

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.what}; {self.mend}"


def examine(
    *folders: str | Path,
    validation: str | Path | Sequence[str | Path] | None = None,
    minimum: int = 0,
    paired: bool = False,
    unpaired: bool = False,
    workers: int | None = None,
) -> list[Finding]:
    """Decode every image below the folders and say what is wrong, errors first.

    Decoded images are dropped one by one; about 1 kB is kept of each.

    Args:
        folders: Training images, searched recursively. A single folder that holds `train` and `validation`, as
            `img2img.prepare` lays them out, stands for both.
        validation: Validation images: a folder, or several; with `paired`, of the same form as the training ones.
        minimum: Smallest allowed length of the shorter side in pixels; of each half, for side-by-side pairs.
        paired: The images are pairs: two folders, or one that holds `A` and `B`, where partners have the same path
            apart from its extension, or one of side-by-side images, or a CSV file (see `img2img.data.pairs.rows`).
        unpaired: The images are two sets without partners: two folders, or one that holds `A` and `B`, or `trainA` and
            `trainB`, of which `testA` and `testB` are the validation images.
        workers: Threads; None for one per processor.

    Raises:
        ValueError: A folder is missing, `paired` or `unpaired` with more than two folders, or a table that is none.
    """
    if not folders:
        raise ValueError("the doctor needs at least one folder of images")
    places = [Path(folder) for folder in folders]
    if validation is None and len(places) == 1 and is_split(places[0]):
        validation, places = places[0] / "validation", [places[0] / "train"]
    if unpaired and validation is None and len(places) == 1 and (places[0] / "testA").is_dir():
        validation = places[0]
    kept = [Path(each) for each in ([validation] if isinstance(validation, str | Path) else validation or [])]
    form = "unpaired" if unpaired else "paired" if paired else ""
    if paired:
        places, kept = (
            [each[0] / PAIRS] if len(each) == 1 and (each[0] / PAIRS).is_file() else each for each in (places, kept)
        )
    training = _roles(places, form)
    held_out = _roles(kept, form, validation=True) if kept else {}
    for folder in (*training.values(), *held_out.values()):
        for path in folder:
            if not path.is_dir() and not _table(path):
                raise ValueError(f"{path}: no such folder")
    halves = 2 if paired and _side_by_side(training) else 1
    if halves == 2 and files_below(training[""][0]):
        halves_in(training[""][0])  # tells of another layout
    if paired and held_out and _side_by_side(held_out) != _side_by_side(training):
        raise ValueError(f"{kept[0]}: its pairs are laid out in another way than those to train on; use the same")
    for there in itertools.chain(*held_out.values()):
        inside = next((path for path in itertools.chain(*training.values()) if _within(there, path)), None)
        if inside is not None:
            mend = "move it out of there, or name the training folder below it"
            return [Finding(kept[0], "error", f"the validation folder lies within {inside}", mend)]

    findings: list[Finding] = []
    parts: dict[str, dict[str, list[_Seen]]] = {}
    units: dict[str, list[list[_Unit]]] = {}
    for part, roles in (("training", training), ("validation", held_out)):
        table = roles.get("", [None])[0] if paired else None
        lines = rows(table) if table is not None and _table(table) else None
        if lines is None:
            files = {role: _files(folders) for role, folders in roles.items()}
        else:
            findings += _missing(table, lines)
            columns = (("A", [a for _, a, _ in lines]), ("B", [b for _, _, b in lines]))
            files = {
                role: [(path, path.parent) for path in sorted({*paths}) if path.is_file()] for role, paths in columns
            }
        parts[part] = {role: _look(found, workers, part) for role, found in files.items()}
        for role, seen in parts[part].items():
            place = table if lines is not None else roles[role][0]
            if not seen:
                mend = f"put images there ({', '.join(READABLE)})"
                findings.append(Finding(place, "error", "no images below it", mend))
            findings += _single(seen, minimum, halves)
            findings += _unreadable(seen)
        sides = parts[part]
        if paired and halves == 1 and roles:
            findings += _partners(sides) if lines is None else []
            couples = _couples(sides, lines)
            findings += _sizes(couples)
            units[part] = [_pairs(couples)]
        else:
            units[part] = [_singles(seen) for seen in sides.values()]
    for role, seen in parts["training"].items():
        findings += _mixtures(seen + parts["validation"].get(role, []))
    for found in itertools.chain(*units.values()):
        findings += _repeated(found)
    for known, new in zip(units["training"], units["validation"], strict=False):
        findings += _leaks(known, new)
    order = ["error", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.severity))


# --- looking at files -------------------------------------------------------------------------------------------------


@dataclass
class _Seen:
    """What is kept of a file; `trouble` says why it could not be read, and then the rest means nothing."""

    path: Path
    key: str
    trouble: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    deep: bool = False
    turned: bool = False
    frames: int = 1
    digest: bytes = b""
    thumbnail: np.ndarray | None = None


def _array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _side_by_side(roles: dict[str, list[Path]]) -> bool:
    return set(roles) == {""} and not _table(roles[""][0])


def _within(path: Path, folder: Path) -> bool:
    return not _table(path) and not _table(folder) and path.resolve().is_relative_to(folder.resolve())


def _roles(folders: list[Path], form: str, validation: bool = False) -> dict[str, list[Path]]:
    """Return the folders by what their images are: `A` and `B` of two sides, or an empty name."""
    if form == "unpaired":
        return {side: [folder] for side, folder in zip("AB", domains(folders, validation), strict=True)}
    if not form:
        return {"": folders}
    if len(folders) == 2:
        return {"A": folders[:1], "B": folders[1:]}
    if len(folders) > 2:
        raise ValueError(f"pairs come from one folder or two, not from {len(folders)}")
    if any((folders[0] / side).is_dir() for side in "AB"):
        return {side: [folders[0] / side] for side in "AB"}
    return {"": folders}


def _files(folders: list[Path]) -> list[tuple[Path, Path]]:
    """Return every image below the folders, with the folder that its name is relative to."""
    return [(path, folder) for folder in folders for path in files_below(folder, FILES)]


def _look(found: list[tuple[Path, Path]], workers: int | None, part: str) -> list[_Seen]:
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            seen = pool.map(lambda pair: _see(*pair), found)
            return list(tqdm(seen, total=len(found), desc=f"checking {part}", unit="image", disable=None, leave=False))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _see(path: Path, folder: Path) -> _Seen:
    seen = _Seen(path, path.relative_to(folder).with_suffix("").as_posix())
    try:
        pixels = array(path) if _array(path) else read(path).pixels
    except ValueError as error:
        seen.trouble = str(error).removeprefix(f"{path}: ")
        return seen
    seen.height, seen.width, seen.channels = pixels.shape
    seen.deep = pixels.dtype == np.uint16
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    seen.digest = digest.digest()
    colour = pixels[..., : 1 if seen.channels < 3 else 3]
    # Reduced before it is made grey and 8-bit: that is cheaper by far for a large photo.
    small = cv2.resize(np.ascontiguousarray(colour), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small if small.ndim == 2 else small @ np.float32([0.299, 0.587, 0.114])
    seen.thumbnail = np.rint(grey / (257 if seen.deep else 1)).astype(np.uint8)
    try:
        with Image.open(path) as image:
            if image.format != "MPO":  # a camera's preview is no frame
                seen.frames = getattr(image, "n_frames", 1)
            seen.turned = image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)
    except Exception:  # the picture itself could be read, so the rest is not worth a line
        return seen
    return seen


# --- findings ---------------------------------------------------------------------------------------------------------


def _single(images: list[_Seen], minimum: int, halves: int) -> Iterator[Finding]:
    for seen in images:
        width = seen.width // halves
        if seen.trouble:
            yield Finding(seen.path, "error", seen.trouble, "fetch it again, or remove it", skipped=True)
            continue
        if halves == 2 and seen.width % 2:
            what = f"{seen.width} pixels wide, so it has no two equal halves"
            yield Finding(seen.path, "error", what, "A and B side by side must have the same width")
        if min(width, seen.height) < minimum:
            what = f"{width} x {seen.height} pixels, smaller than {minimum}"
            yield Finding(seen.path, "error", what, "remove it, or train on smaller crops")
        if seen.frames > 1:
            yield Finding(seen.path, "warning", f"{seen.frames} frames", "only the first is used; save others as files")
        if seen.turned:
            what = "stored turned, set upright by its EXIF tag"
            yield Finding(seen.path, "note", what, "nothing to do here; other programs may show it turned")


def _unreadable(images: list[_Seen]) -> Iterator[Finding]:
    bad = [seen.path for seen in images if seen.trouble]
    if len(bad) > 1:
        folder = Path(os.path.commonpath([path.parent for path in bad]))
        share = f"{len(bad)} of {len(images)} images cannot be read ({len(bad) / len(images):.1%})"
        yield Finding(folder, "note", share, "training leaves them out")


def _missing(table: Path, lines: list[tuple[int, Path, Path]]) -> Iterator[Finding]:
    for line, *pair in lines:
        for path in pair:
            if not path.is_file():
                mend = "paths are relative to the table's folder; correct it, or remove the line"
                yield Finding(table, "error", f"line {line}: no such file {path}", mend)


def _partners(sides: dict[str, list[_Seen]]) -> Iterator[Finding]:
    by_key = {side: {seen.key: seen for seen in images} for side, images in sides.items()}
    for side, images in sides.items():
        for key, repeats in Counter(seen.key for seen in images).items():
            if repeats > 1:
                what = f"{repeats} images in {side} differ by their extension only"
                yield Finding(by_key[side][key].path, "error", what, "keep one of them")
    for here, there in ("AB", "BA"):
        for key, seen in by_key[here].items():
            other = by_key[there].get(key)
            if other is None:
                yield Finding(seen.path, "error", f"no partner {key!r} in {there}", "add it, or remove this one")


_Couple = tuple[_Seen, _Seen]


def _couples(sides: dict[str, list[_Seen]], lines: list[tuple[int, Path, Path]] | None) -> list[_Couple]:
    """Return the readable pairs: of equal names, or of the lines of a table."""
    a, b = (
        {(seen.key if lines is None else seen.path): seen for seen in images if not seen.trouble}
        for images in sides.values()
    )
    names = [(key, key) for key in a] if lines is None else [(given, target) for _, given, target in lines]
    return [(a[given], b[target]) for given, target in names if given in a and target in b]


def _sizes(couples: list[_Couple]) -> Iterator[Finding]:
    for couple in couples:
        sizes = [f"{image.width} x {image.height}" for image in couple]
        if sizes[0] != sizes[1]:
            what = f"{sizes[0]} pixels where its partner has {sizes[1]}"
            yield Finding(couple[0].path, "error", what, "bring both to the same size")


def _mixtures(images: list[_Seen]) -> Iterator[Finding]:
    """Report what only some of the images are, each, and an alpha channel that most of them have, once."""
    images = [seen for seen in images if not seen.trouble]
    arrays, images = ([seen for seen in images if _array(seen.path) == kind] for kind in (True, False))
    usual = Counter(seen.channels for seen in arrays).most_common(1)
    for seen in arrays:
        if seen.channels != usual[0][0]:
            what = f"an array of {seen.channels} channels where most have {usual[0][0]}"
            yield Finding(seen.path, "error", what, "save all alike")

    def some(test: Callable[[_Seen], bool]) -> list[_Seen]:
        return [seen for seen in images if test(seen)]

    grey, colour = some(lambda seen: seen.channels < 3), some(lambda seen: seen.channels >= 3)
    odd, what = (grey, "grey among colour images") if len(grey) <= len(colour) else (colour, "colour among grey images")
    yield from (Finding(seen.path, "warning", what, "convert it, or remove it") for seen in odd)
    deep, flat = some(lambda seen: seen.deep), some(lambda seen: not seen.deep)
    odd, what = (deep, "16 bit among 8-bit images") if len(deep) <= len(flat) else (flat, "8 bit among 16-bit images")
    yield from (Finding(seen.path, "warning", what, "bring all to the same depth") for seen in odd)
    alpha = some(lambda seen: seen.channels in (2, 4))
    mend = "flatten on a background, since what is transparent may hide any colour"
    if 1 < len(alpha) > len(images) / 2:
        folder = Path(os.path.commonpath([seen.path.parent for seen in alpha]))
        yield Finding(folder, "warning", f"{len(alpha)} of {len(images)} images have an alpha channel", mend)
    else:
        yield from (Finding(seen.path, "warning", "it has an alpha channel", mend) for seen in alpha)


_Unit = tuple[Path, bytes, np.ndarray]
"""What is compared as a whole, an image or a pair: path of the (first) file, digest of the pixels, thumbnail."""


def _singles(images: list[_Seen]) -> list[_Unit]:
    return [(seen.path, seen.digest, seen.thumbnail) for seen in images if not seen.trouble]


def _pairs(couples: list[_Couple]) -> list[_Unit]:
    return [(a.path, a.digest + b.digest, np.hstack([a.thumbnail, b.thumbnail])) for a, b in couples]


def _repeated(units: Sequence[_Unit]) -> Iterator[Finding]:
    first: dict[bytes, Path] = {}
    for path, digest, _ in units:
        if digest in first:
            yield Finding(path, "warning", f"the same pixels as {first[digest]}", "remove one of them")
        else:
            first[digest] = path


def _leaks(training: Sequence[_Unit], validation: Sequence[_Unit]) -> Iterator[Finding]:
    if not training or not validation:
        return
    known = defaultdict(list)
    for path, digest, _ in training:
        known[digest].append(path)
    rest = []
    for path, digest, thumbnail in validation:
        if digest in known:
            what = f"validation image with the same pixels as {known[digest][0]} in training"
            yield Finding(path, "error", what, "remove it from one of them")
        else:
            rest.append((path, thumbnail))
    for start in range(0, len(rest), BLOCK):
        some = rest[start : start + BLOCK]
        straight = np.stack([thumbnail for _, thumbnail in some])
        nearest = [_nearest(view, [unit[2] for unit in training]) for view in (straight, _mirror(straight))]
        for (path, _), *views in zip(some, *nearest, strict=True):
            mirrored = views[1][0] > views[0][0]
            score, index = views[mirrored]
            if score > ALIKE:
                how = "a mirror image of" if mirrored else "nearly the same as"
                what = f"validation image, {how} {training[index][0]} in training (correlation {score:.4f})"
                yield Finding(path, "warning", what, "look at both, and remove one if they show the same")


def _nearest(views: np.ndarray, thumbnails: list[np.ndarray]) -> list[tuple[float, int]]:
    """Return for each of (N, H, W) the correlation with the most similar thumbnail, and its index."""
    queries = _normal(views)
    best = [(-1.0, 0)] * len(views)
    for start in range(0, len(thumbnails), TABLE):
        scores = queries @ _normal(np.stack(thumbnails[start : start + TABLE])).T
        found = scores.argmax(axis=1)
        here = [(float(scores[row, column]), start + int(column)) for row, column in enumerate(found)]
        best = [max(pair, key=lambda scored: scored[0]) for pair in zip(best, here, strict=True)]
    return best


def _mirror(thumbnails: np.ndarray) -> np.ndarray:
    """Mirror each SIDE x SIDE square of (N, SIDE, k * SIDE), of which a pair has two."""
    count, height, width = thumbnails.shape
    return thumbnails.reshape(count, height, width // SIDE, SIDE)[..., ::-1].reshape(count, height, width)


def _normal(thumbnails: np.ndarray) -> np.ndarray:
    """Return (N, pixels) float32 rows whose products are correlations, for pairs the mean of both; flat ones give 0."""
    count, side, width = thumbnails.shape
    squares = thumbnails.reshape(count, side, width // side, side).swapaxes(1, 2).reshape(count, width // side, -1)
    squares = squares - squares.mean(axis=2, keepdims=True, dtype=np.float32)
    length = np.linalg.norm(squares, axis=2, keepdims=True)
    squares[length[..., 0] <= FLAT * side] = 0
    return (squares / np.maximum(length, 1e-6) / np.sqrt(squares.shape[1])).reshape(count, -1)
