"""Data sets from the pages of `datasets/`: fetched, verified and laid out as folders of images.

A page is data only. Its `[[source]]` tables name archives (see `img2img.data.fetch`) with checksum and licence (a
source without `sha256` is taken as it comes, and its checksum is told, so that it can be put into the page); its
`[[arrange]]` tables say which of their files become which images. `type` is a name of `ARRANGEMENTS` below, and the
function's keyword arguments are the options a page may set.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from inspect import Parameter, signature
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from img2img import registry
from img2img.data.fetch import cache, fetch, unpack
from img2img.data.images import FILES
from img2img.registry import checked, nearest

Item = tuple[str, Callable[[], Image.Image | bytes]]
"""A file to be written: its path below the data set's folder, and how to make it: an image, or the file's content."""

RECORD = "dataset.json"
PAGE = {"name": str, "about": str, "licence": str, "counts": dict, "source": list, "arrange": list}
SOURCE = {"name": str, "from": str, "sha256": str, "size": int, "licence": str, "unpack": tuple[str, ...]}
OPTIONAL = {"sha256", "size", "unpack"}


def pages() -> dict[str, Path]:
    """Return the pages of `datasets/` by name."""
    from img2img.recipe import root  # it brings torch along, which is not needed until here

    return {path.stem: path for path in sorted(root("datasets").glob("*.toml"))}


def prepare(name: str | Path, out: str | Path | None = None) -> Path:
    """Fetch, verify and lay out a data set; the same command again does only what is missing.

    Args:
        name: A page of `datasets/` by name, or the path of a page.
        out: The folder to fill; None for `cache()/datasets/NAME`.

    Returns:
        The folder, with the images below `train/` and `validation/`, and `dataset.json`: where they came from.
        Labelled sets have a folder per class, paired ones the folders `A` and `B`.

    Raises:
        ValueError: Unknown or faulty page, a source that cannot be fetched or is not the expected one, or a folder
            that holds another edition of the data set.
    """
    page = _page(name)
    out = Path(out) if out is not None else cache() / "datasets" / page["name"]
    shape = {"source": [source.get("sha256", source["from"]) for source in page["source"]], "arrange": page["arrange"]}
    edition = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
    record = {
        "name": page["name"],
        "about": page["about"],
        "licence": page["licence"],
        "counts": page["counts"],
        "sources": [{k: source[k] for k in ("from", "sha256", "licence") if k in source} for source in page["source"]],
        "edition": edition,
        "complete": False,
    }
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; choose a folder")
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        before = _record(out)
        if before and before.get("edition") != edition:
            raise ValueError(f"{out}: holds another edition of this data set; remove it or choose another folder")
        if before and before.get("complete") and all(_count(out / part) == n for part, n in page["counts"].items()):
            return out
        if not before and any(path.name != ".lock" for path in out.iterdir()):
            raise ValueError(f"{out}: is not empty, and no data set of ours; choose another folder")
        _write(out / RECORD, json.dumps(record, indent=2).encode())
        with tempfile.TemporaryDirectory(dir=out, prefix=".unpacked-") as scratch:
            folders = {source["name"]: _unpacked(source, Path(scratch)) for source in page["source"]}
            items = [item for spec in page["arrange"] for item in _arrange(spec, folders, page["name"])]
            _check(items, page)
            _make(items, out, page["name"])
        _write(out / RECORD, json.dumps(record | {"complete": True}, indent=2).encode())
    return out


# --- arrangements -----------------------------------------------------------------------------------------------------


def images(
    folder: Path,
    *,
    members: tuple[str, ...],
    leave_out: tuple[str, ...] = (),
    minimum: int = 0,
    reduce: int = 1,
    every: int = 0,
    first: int = 0,
) -> Iterator[Item]:
    """Single images, as RGB, named like their files.

    Args:
        folder: The unpacked source.
        members: Globs of the files to take (`*` also matches `/`), in place of those that a source names otherwise.
        leave_out: Globs of the files to leave out.
        minimum: Leave out images whose shorter side has fewer pixels.
        reduce: Divide width and height by this, with an antialiased Lanczos filter.
        every: Of the files sorted by name, every so-manyth is a validation image; 0: none is.
        first: The first of those, counted from 0.
    """
    found = [path for path in _matching(folder, members, leave_out) if not minimum or min(_size(path)) >= minimum]
    for index, path in enumerate(sorted(found, key=lambda path: path.name)):
        part = "validation" if every and index % every == first else "train"
        yield f"{part}/{path.stem}.png", lambda path=path: _reduced(_rgb(Image.open(path)), reduce)


def idx(
    folder: Path,
    *,
    images: str,
    labels: str,
    classes: tuple[str, ...] = (),
    part: str = "train",
    side: str = "",
    half: str = "",
    make: str = "",
    invert: bool = False,
) -> Iterator[Item]:
    """Grey images and labels in the IDX format of MNIST, plain or gzipped: a folder per class, named by its number.

    Args:
        folder: The unpacked source.
        images: The file of images, (N, H, W) uint8.
        labels: The file of labels, (N,) uint8.
        classes: A name per class, put after its number so that the folders keep the order of the labels.
        part: `train` or `validation`.
        side: A folder below that which the classes' folders go into; empty: none.
        half: `even` or `odd` takes that half of the images, counted in their order; empty: all.
        make: What is made of each image, e.g. `edges` (see `img2img.data.make`); empty: the image itself.
        invert: Whether that is turned into its negative.
    """
    pixels, targets = _idx(folder / images), _idx(folder / labels)
    if pixels.ndim != 3 or targets.shape != pixels.shape[:1]:
        raise ValueError(f"{images}: {pixels.shape} images and {targets.shape} labels do not belong together")
    if half not in ("", "even", "odd"):
        raise ValueError(f"half = {half!r} is none of even, odd")
    names = [f"{index}_{name}" for index, name in enumerate(classes)] or [str(n) for n in range(targets.max() + 1)]
    maker = registry.part("make", {"type": make}) if make else None

    def image(index: int) -> Image.Image:
        made = pixels[index][..., None]
        made = maker(made.repeat(3, 2), np.random.default_rng(index)) if maker else made
        made = 255 - made if invert else made
        return Image.fromarray(made[..., 0] if made.shape[2] == 1 else made)

    start, step = (half == "odd", 2) if half else (0, 1)
    for index in range(start, len(targets), step):
        folders = "/".join(filter(None, (part, side, names[targets[index]])))
        yield f"{folders}/{index:05}.png", lambda index=index: image(index)


def blended(
    folder: Path,
    *,
    images: str,
    labels: str,
    photos: str,
    members: tuple[str, ...],
    minimum: int = 0,
    reduce: int = 1,
    every: int = 6,
    part: str = "train",
    seed: int = 0,
) -> Iterator[Item]:
    """Grey images on patches of photographs, |patch - image|, a folder per class; after Ganin & Lempitsky 2014.

    The paper, https://arxiv.org/abs/1409.7495, section 4, calls the digits that are made so MNIST-M.

    Args:
        folder: The unpacked source of the grey images.
        images: The file of images, (N, H, W) uint8, in the IDX format.
        labels: The file of labels, (N,) uint8.
        photos: The name of the source of photographs.
        members: Globs of the photographs.
        minimum: Leave out photographs whose shorter side has fewer pixels.
        reduce: Divide width and height of the photographs by this first.
        every: Of the photographs sorted by name, every so-manyth, from the first on, is behind validation images only.
        part: `train` or `validation`.
        seed: Of the places of the patches.
    """
    pixels, targets = _idx(folder / images), _idx(folder / labels)
    found = _matching(folder.parent / photos, members, ())
    found = sorted((path for path in found if min(_size(path)) >= minimum), key=lambda path: path.name)
    chosen = [path for place, path in enumerate(found) if (place % every == 0) == (part == "validation")]
    if pixels.ndim != 3 or targets.shape != pixels.shape[:1] or not chosen:
        raise ValueError(f"{images}: {pixels.shape} images, {targets.shape} labels and {len(chosen)} photos do not fit")
    backdrops = [np.asarray(_reduced(_rgb(Image.open(path)), reduce)) for path in chosen]

    def blend(index: int) -> Image.Image:
        rng = np.random.default_rng((seed, part == "validation", index))
        photo, (height, width) = backdrops[rng.integers(len(backdrops))], pixels.shape[1:]
        y, x = (int(rng.integers(room + 1)) for room in (photo.shape[0] - height, photo.shape[1] - width))
        patch = photo[y : y + height, x : x + width].astype(np.int16)
        return Image.fromarray(np.abs(patch - pixels[index][..., None]).astype(np.uint8))

    for index, label in enumerate(targets):
        yield f"{part}/{label}/{index:05}.png", lambda index=index: blend(index)


def moving(
    folder: Path,
    *,
    images: str,
    clips: int,
    digits: int = 2,
    seen: int = 4,
    size: int = 64,
    speed: tuple[float, float] = (2.0, 5.0),
    reduce: int = 1,
    part: str = "train",
    seed: int = 0,
) -> Iterator[Item]:
    """Clips of grey images that fly about on black and bounce off the walls, as pairs: frames seen (A) and next (B).

    A is an array (H, W, ``seen``) uint8 whose channels are frames, the oldest first; B is a PNG file with the three
    frames that follow as red, green and blue. After the Moving MNIST of Srivastava et al. 2015,
    https://arxiv.org/abs/1502.04681.

    Args:
        folder: The unpacked source.
        images: The file of images, (N, H, W) uint8, in the IDX format.
        clips: How many.
        digits: Most images in a clip; it has 1 to so many, each as often. Where they overlap the brightest shows.
        seen: Frames in A.
        size: Side of the frames.
        speed: Least and greatest distance from frame to frame; each image keeps its own.
        reduce: Divide width and height of the frames by this, by area: places are whole pixels before.
        part: `train` or `validation`.
        seed: Of all chance.
    """
    pixels = _idx(folder / images)
    if pixels.ndim != 3 or max(pixels.shape[1:]) >= size or reduce < 1 or size % reduce or digits < 1:
        raise ValueError(f"{images}: {pixels.shape} images do not fit: size {size}, reduce {reduce}, digits {digits}")
    room = np.subtract(size, pixels.shape[1:])

    def clip(index: int) -> np.ndarray:
        rng = np.random.default_rng((seed, part == "validation", index))
        frames = np.zeros((size, size, seen + 3), np.uint8)
        for digit in rng.integers(len(pixels), size=rng.integers(digits) + 1):
            start, angle, length = rng.uniform(0, room), rng.uniform(0, 2 * np.pi), rng.uniform(*speed)
            velocity = length * np.array([np.sin(angle), np.cos(angle)])
            for time in range(seen + 3):
                y, x = np.rint(bounced(start + time * velocity, room)).astype(int)
                place = frames[y : y + pixels.shape[1], x : x + pixels.shape[2], time]
                np.maximum(place, pixels[digit], out=place)
        side = size // reduce
        means = frames.reshape(side, reduce, side, reduce, -1).mean((1, 3))
        return np.rint(means).astype(np.uint8)

    def first(index: int) -> bytes:
        np.save(buffer := BytesIO(), clip(index)[..., :seen])
        return buffer.getvalue()

    for index in range(clips):
        yield f"{part}/A/{index:05}.npy", lambda index=index: first(index)
        yield f"{part}/B/{index:05}.png", lambda index=index: Image.fromarray(clip(index)[..., seen:])


def bounced(position: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return where straight ways come to between walls at 0 and ``room``: a triangle wave."""
    return room - np.abs(position % (2 * room) - room)


def glyphs(
    folder: Path,
    *,
    fonts: tuple[str, ...],
    each: int,
    characters: str = "0123456789",
    size: int = 28,
    part: str = "train",
    seed: int = 0,
) -> Iterator[Item]:
    """Characters of many fonts, white on black, a folder per character, all drawn in a slightly different way.

    It is turned and slanted (normal, 8 degrees each), then placed as MNIST's digits are: fitted into a box of 5/7 of
    the side, with its centre of mass in the middle.

    Args:
        folder: The unpacked source, one of those with fonts.
        fonts: The names of all sources whose fonts are drawn: every file that they unpack is to be one.
        each: Images of each character of a font.
        characters: Letters and digits, of which every font must have all.
        size: Side of the images in pixels.
        part: `train` or `validation`.
        seed: Of all chance.
    """
    if not characters.isalnum() or len(set(characters.casefold())) != len(characters):
        raise ValueError(f"characters = {characters!r} must be letters and digits, each once whatever its case")
    found = [path for name in fonts for path in sorted(_matching(folder.parent / name, ("*",), ()))]

    def draw(path: Path, character: str, place: int) -> Image.Image:
        rng = np.random.default_rng((seed, *map(ord, path.stem + character), place))
        sheet, middle = Image.new("L", (6 * size, 6 * size)), 3 * size
        font = ImageFont.truetype(path, 4 * size)
        ImageDraw.Draw(sheet).text((middle, middle), character, fill=255, font=font, anchor="mm")
        turn, slant = np.deg2rad(rng.normal(0, 8, 2))
        back = np.array([[1, np.tan(slant)], [0, 1]]) @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        shift = middle - back @ (middle, middle)
        plan = [*back[0], shift[0], *back[1], shift[1]]
        turned = sheet.transform(sheet.size, Image.Transform.AFFINE, plan, Image.Resampling.BICUBIC)
        if turned.getbbox() is None:
            raise ValueError(f"{path}: draws nothing for {character!r}; leave the font out")
        inked = turned.crop(turned.getbbox())
        inked.thumbnail((size * 5 // 7, size * 5 // 7), Image.Resampling.BOX)
        ink = np.asarray(inked, float)
        x, y = (size / 2 - (ink.sum(axis) @ (np.arange(n) + 0.5)) / ink.sum() for axis, n in enumerate(inked.size))
        image = Image.new("L", (size, size))
        image.paste(inked, (round(x), round(y)))
        return image

    for path, character, place in product(found, characters, range(each)):
        name = f"{part}/{character}/{path.stem}-{place:02}.png"
        yield name, lambda path=path, character=character, place=place: draw(path, character, place)


def drawings(
    folder: Path, *, a: str, b: str, size: int, leave_out: tuple[str, ...] = (), every: int = 0, group: str = ""
) -> Iterator[Item]:
    """Pairs of SVG drawings of equal name, rendered on white with resvg (`pip install resvg-py`): A and B.

    Args:
        folder: The unpacked source.
        a: The folder of the inputs.
        b: The folder of the targets.
        size: Width and height of the images.
        leave_out: Globs of the names to leave out.
        every: Of the groups sorted by name, every so-manyth, from the first on, is for validation; 0: none is.
        group: Names that are equal before the first of these characters are one group; empty: each is its own.
    """
    try:
        import resvg_py
    except ImportError:
        raise ValueError("rendering SVG drawings needs resvg; 'pip install resvg-py'") from None

    def render(path: Path) -> Image.Image:
        # Without this machine's fonts the result is the same everywhere; the drawings have their letters as shapes.
        png = resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True)
        return _rgb(Image.open(BytesIO(bytes(png))))

    def key(name: str) -> str:
        return name.split(group)[0] if group else name

    inputs, targets = ({path.stem for path in (folder / side).glob("*.svg")} for side in (a, b))
    names = sorted(inputs & targets)
    # Counted before anything is left out, so that leaving out one more moves no other from side to side.
    order = {name: index for index, name in enumerate(sorted({key(name) for name in names}))}
    for name in names:
        if any(fnmatchcase(name, glob) for glob in leave_out):
            continue
        part = "validation" if every and order[key(name)] % every == 0 else "train"
        for side, drawn in (("A", a), ("B", b)):
            yield f"{part}/{side}/{name}.png", lambda path=folder / drawn / f"{name}.svg": render(path)


def maps(
    folder: Path, *, a: str, b: str, land: str, size: int, share: float = 0.3, top: int = 0, bottom: int = 0
) -> Iterator[Item]:
    """Aligned tiles of two maps of the world: A and B; those of the western half are for validation.

    Args:
        folder: The unpacked source.
        a: The input map.
        b: The target map; it gives the size to which the others are brought with a box filter.
        land: A map on which the sea is bluer than it is red, and the land is not.
        size: Width and height of a tile; tiles do not overlap.
        share: Take tiles with more than this share of land.
        top: First row to cut from.
        bottom: Row to stop before; 0: the last.
    """
    width = _size(folder / b)[0]
    for x, name, crops in _tiles(folder, a, b, land, size, share, top, bottom):
        if not x < width / 2 < x + size:
            part = "validation" if x < width / 2 else "train"
            for side, crop in zip("AB", crops, strict=True):
                yield f"{part}/{side}/{name}", crop


def hemispheres(
    folder: Path,
    *,
    a: str,
    b: str,
    land: str,
    size: int,
    strip: tuple[int, int],
    partners: bool = False,
    share: float = 0.3,
    top: int = 0,
    bottom: int = 0,
) -> Iterator[Item]:
    """Tiles of two maps of the world without partners: A is from the eastern half, B from the western.

    Validation: aligned tiles of both from a strip from pole to pole, in which no training tile has a pixel.

    Args:
        folder: The unpacked source.
        a: The map of A.
        b: The map of B; it gives the size to which the others are brought with a box filter.
        land: A map on which the sea is bluer than it is red, and the land is not.
        size: Width and height of a tile; tiles do not overlap.
        strip: First column of the strip, and the column to stop before.
        partners: Both maps of every tile instead, to compare with what learns from pairs.
        share: Take tiles with more than this share of land.
        top: First row to cut from.
        bottom: Row to stop before; 0: the last.
    """
    width = _size(folder / b)[0]
    for x, name, crops in _tiles(folder, a, b, land, size, share, top, bottom):
        if strip[0] <= x and x + size <= strip[1]:
            for side, crop in zip("AB", crops, strict=True):
                yield f"validation/{side}/{name}", crop
        elif x + size <= strip[0] or x >= strip[1]:
            if partners:
                for side, crop in zip("AB", crops, strict=True):
                    yield f"train/{side}/{name}", crop
            elif x + size <= width / 2:
                yield f"train/B/{name}", crops[1]
            elif x >= width / 2:
                yield f"train/A/{name}", crops[0]


def emoji(
    folder: Path, *, table: str, images: str, vendors: tuple[str, ...], side: str, every: int, half: str = ""
) -> Iterator[Item]:
    """Emoji of one vendor on white, those that all of the vendors have drawn; without skin tones.

    Args:
        folder: The unpacked source.
        table: The JSON file that lists the emoji (of the emoji-datasource packages).
        images: The folder of the images.
        vendors: Only emoji that all of these have drawn.
        side: The folder below `train` and `validation`.
        every: Of the groups of emoji, sorted by the first part of their code, every so-manyth is for validation, from
            the first on, so that the variants of one person or flag stay on one side.
        half: `even` or `odd` takes that half of the other groups for training, counted in their order; empty: all.
    """
    for entry, part, place in _emoji(folder / table, vendors, every):
        if part == "train" and half and (place % 2 == 0) != (half == "even"):
            continue
        yield f"{part}/{side}/{entry['image']}", lambda path=folder / images / entry["image"]: _rgb(Image.open(path))


def captions(
    folder: Path, *, table: str, vendors: tuple[str, ...], sides: tuple[str, ...], every: int
) -> Iterator[Item]:
    """What the images of `emoji` show: `captions.csv` in `train` and in `validation`.

    Its columns are file (relative to it), name, category, keywords (separated by spaces).

    Args:
        folder: The unpacked source.
        table: As in `emoji`.
        vendors: As in `emoji`.
        sides: The folders with the images.
        every: As in `emoji`.
    """
    lines: dict[str, list[tuple[str, ...]]] = {"train": [], "validation": []}
    for entry, part, _ in _emoji(folder / table, vendors, every):
        words = " ".join([*entry["short_names"], entry["subcategory"]]).replace("_", " ").replace("-", " ").split()
        name = (entry["name"] or entry["short_name"].replace("-", " ")).lower()
        for side in sides:
            line = f"{side}/{entry['image']}", name, entry["category"], " ".join(dict.fromkeys(words))
            lines[part].append(line)
    for part, found in lines.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("file", "name", "category", "keywords"), *found])
        yield f"{part}/captions.csv", lambda text=text: text.getvalue().encode()


def files(
    folder: Path, *, members: tuple[str, ...], leave_out: tuple[str, ...] = (), part: str = "train", side: str = ""
) -> Iterator[Item]:
    """Image files as they are, byte for byte: for sets whose makers have divided them.

    Args:
        folder: The unpacked source.
        members: Globs of the files to take (`*` also matches `/`).
        leave_out: Globs of the files to leave out.
        part: `train` or `validation`.
        side: `A` or `B`, for sets without pairs, or for pairs in two folders; empty: neither.
    """
    for path in sorted(_matching(folder, members, leave_out)):
        yield "/".join(filter(None, (part, side, path.name))), path.read_bytes


ARRANGEMENTS = {
    "images": images,
    "idx": idx,
    "blended": blended,
    "moving": moving,
    "glyphs": glyphs,
    "drawings": drawings,
    "maps": maps,
    "hemispheres": hemispheres,
    "emoji": emoji,
    "captions": captions,
    "files": files,
}


def _tiles(
    folder: Path, a: str, b: str, land: str, size: int, share: float, top: int, bottom: int
) -> Iterator[tuple[int, str, tuple[Callable[[], Image.Image], Callable[[], Image.Image]]]]:
    """Yield the first column, the file name and both crops of every tile that has enough land."""
    target = _rgb(Image.open(folder / b))
    width, height = target.size
    source, sea = (_rgb(Image.open(folder / name)) for name in (a, land))
    source, sea = (image.resize(target.size, Image.Resampling.BOX) for image in (source, sea))
    red, blue = (np.asarray(sea.getchannel(channel)) for channel in "RB")
    dry = red >= blue
    for y in range(top, (bottom or height) - size + 1, size):
        for x in range(0, width - size + 1, size):
            if dry[y : y + size, x : x + size].mean() > share:
                box = (x, y, x + size, y + size)
                crops = tuple(lambda whole=whole, box=box: whole.crop(box) for whole in (source, target))
                yield x, f"{y:04}_{x:04}.png", crops


def _emoji(table: Path, vendors: tuple[str, ...], every: int) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield every emoji of a table with its part and the place of its group among those of that part."""
    found = [
        entry
        for entry in json.loads(table.read_text(encoding="utf-8"))
        if all(entry.get(f"has_img_{vendor}") for vendor in vendors)
    ]
    groups = sorted({entry["unified"].split("-")[0] for entry in found})
    held = {group: place for place, group in enumerate(groups[::every])}
    others = {group: place for place, group in enumerate(group for group in groups if group not in held)}
    for entry in sorted(found, key=lambda entry: entry["unified"]):
        group = entry["unified"].split("-")[0]
        yield entry, *(("validation", held[group]) if group in held else ("train", others[group]))


# --- pages ------------------------------------------------------------------------------------------------------------


def _page(name: str | Path) -> dict[str, Any]:
    """Read a page and check every key of it."""
    known = pages()
    path = known.get(str(name), Path(name))
    if not path.is_file():
        hint = nearest(str(name), known) or f"; known: {', '.join(known) or 'none'}"
        raise ValueError(f"unknown data set {str(name)!r}{hint}")
    try:
        page = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML page ({error})") from error
    page = _table(page, PAGE, str(path))
    if any(part not in ("train", "validation") or type(n) is not int for part, n in page["counts"].items()):
        raise ValueError(f"{path}: counts: expected train = NUMBER, validation = NUMBER")
    page["source"] = [_table(source, SOURCE, f"{path}: source") for source in page["source"]]
    names = [source["name"] for source in page["source"]]
    page["arrange"] = [_spec(spec, names, f"{path}: arrange") for spec in page["arrange"]]
    return page


def _table(table: Any, schema: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"{where}: expected a table")
    for key in table:
        if key not in schema:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, schema)}")
    for key in schema:
        if key not in table and key not in OPTIONAL:
            raise ValueError(f"{where}: key {key!r} is missing")
    return {key: checked(f"{where}: {key}", value, schema[key]) for key, value in table.items()}


def _spec(spec: Any, sources: list[str], where: str) -> dict[str, Any]:
    """Check an `[[arrange]]` table against the signature of the function that it names."""
    kind = spec.get("type") if isinstance(spec, dict) else None
    if kind not in ARRANGEMENTS:
        hint = nearest(str(kind), ARRANGEMENTS) or f"; known: {', '.join(ARRANGEMENTS)}"
        raise ValueError(f"{where}: unknown type {kind!r}{hint}")
    options = {key: option for key, option in signature(ARRANGEMENTS[kind]).parameters.items() if key != "folder"}
    schema = {"type": str, "source": str} | {key: option.annotation for key, option in options.items()}
    for key in spec:
        if key not in schema:
            raise ValueError(f"{where} {kind}: unknown key {key!r}{nearest(key, schema)}")
    needed = [key for key, option in options.items() if option.default is Parameter.empty]
    for key in ("source", *needed):
        if key not in spec:
            raise ValueError(f"{where} {kind}: key {key!r} is missing")
    if spec["source"] not in sources:
        raise ValueError(f"{where} {kind}: no source is named {spec['source']!r}{nearest(spec['source'], sources)}")
    return {key: checked(f"{where} {kind}: {key}", value, schema[key]) for key, value in spec.items()}


# --- making -----------------------------------------------------------------------------------------------------------


def _unpacked(source: dict[str, Any], scratch: Path) -> Path:
    archive = fetch(source["from"], sha256=source.get("sha256"), size=source.get("size"))
    folder = scratch / source["name"]
    for path in unpack(archive, folder, source.get("unpack", ("*",))):
        if path.suffix == ".rcc":  # an archive inside the archive becomes a folder beside it
            unpack(path, path.with_suffix(""))
    return folder


def _arrange(spec: dict[str, Any], folders: dict[str, Path], name: str) -> Iterator[Item]:
    options = {key: value for key, value in spec.items() if key not in ("type", "source")}
    try:
        yield from ARRANGEMENTS[spec["type"]](folders[spec["source"]], **options)
    except OSError as error:  # a file that the page names is not in the archive, or is no image
        raise ValueError(f"data set {name}: source {spec['source']}: {error}; correct its page") from error


def _check(items: list[Item], page: dict[str, Any]) -> None:
    """The pages say how many images there are, so a source that has silently changed its inside is noticed."""
    names = {path.casefold() for path, _ in items}
    if len(names) != len(items):
        raise ValueError(f"data set {page['name']}: two of its images have the same name; correct its page")
    for part in ("train", "validation"):
        found = sum(name.startswith(f"{part}/") and name.endswith(FILES) for name in names)
        expected = page["counts"].get(part, 0)
        if found != expected:
            raise ValueError(f"data set {page['name']}: {found} {part} images where its page expects {expected}")


def _make(items: list[Item], out: Path, name: str) -> None:
    """Write the images that are missing, each whole or not at all."""

    def write(item: Item) -> None:
        path = out / item[0]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = BytesIO()
            try:
                made = item[1]()
                if not isinstance(made, bytes):
                    made.save(buffer, "PNG")
                    made = buffer.getvalue()
            except (OSError, SyntaxError) as error:
                raise ValueError(f"data set {name}: {item[0]} cannot be made ({error}); correct its page") from error
            _write(path, made)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            done = pool.map(write, items)
            for _ in tqdm(done, total=len(items), desc=name, unit="image", disable=None, leave=False):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write(path: Path, content: bytes) -> None:
    # Without the flush to disk of checkpoint.atomic: it would take minutes for seventy thousand small files.
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _record(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{out / RECORD}: damaged; remove the folder and prepare it again")
    return found


def _count(folder: Path) -> int:
    found = folder.rglob("*")
    return sum(1 for path in found if path.suffix.lower() in FILES and not path.name.startswith("."))


def _matching(folder: Path, members: tuple[str, ...], leave_out: tuple[str, ...]) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = [path.relative_to(folder).as_posix() for path in found]
    for glob in (*members, *leave_out):  # a glob that has gone stale would silently change the set
        if not any(fnmatchcase(name, glob) for name in names):
            raise FileNotFoundError(f"no file matches {glob!r}")
    keep = [name for name in names if any(fnmatchcase(name, glob) for glob in members)]
    return [folder / name for name in keep if not any(fnmatchcase(name, glob) for glob in leave_out)]


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB; what is transparent becomes white."""
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    if factor == 1:
        return image
    width, height = image.width // factor, image.height // factor
    return image.resize((width, height), Image.Resampling.LANCZOS, box=(0, 0, width * factor, height * factor))


def _idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes: two zeros, type 8, the number of axes, their lengths, the values."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    axes = raw[3] if len(raw) > 4 else 0
    shape = tuple(int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if raw[:3] != b"\0\0\x08" or not axes or len(raw) != 4 + 4 * len(shape) + int(np.prod(shape)):
        raise OSError(f"{path.name} is not an IDX file of bytes, or is cut short")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
