"""The verbs on the command line. Results go to stdout, progress and messages to stderr."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import img2img


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 after a failure, 2 after wrong usage, 130 after an interrupt."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _named(arguments)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt as stop:
        print(f"img2img: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        from img2img.data.fetch import cache

        text = str(error).strip().replace("\n", " ") or type(error).__name__
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        if isinstance(error, OSError) and error.filename and Path(str(error.filename)).is_relative_to(cache()):
            text += " (that is the cache; set IMG2IMG_CACHE to a folder that can be written to)"
        print(f"img2img: {kind}{text}", file=sys.stderr)
        return 1


def _named(a: argparse.Namespace) -> None:
    """See that no file or folder is called nothing, which would mean the current folder.

    Raises:
        ValueError: one is, as where a shell's variable is not set.
    """
    for key in ("inputs", "out", "data", "validation", "folder", "folders", "source", "model", "recipe"):
        given = getattr(a, key, None)
        if "" in (given if isinstance(given, list) else [given]):
            raise ValueError(f"{a.command}: a name is empty; is a variable not set? the current folder is '.'")


def _seed(text: str) -> int:
    """Return a seed from the command line."""
    if not (text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to 2^63 - 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="img2img", description="Upscale, translate and synthesize images; train what does it."
    )
    top.add_argument("--version", action="version", version=f"img2img {img2img.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=about, description=about)
        found.set_defaults(run=run)
        found.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
        return found

    def runs(found: argparse.ArgumentParser) -> None:
        found.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best here")
        found.add_argument(
            "--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 where it is native and faithful"
        )

    def folders(found: argparse.ArgumentParser) -> None:
        found.add_argument("inputs", nargs="+", metavar="IN", help="image files, folders (searched below) or globs")
        found.add_argument("-o", "--out", required=True, help="output file for one image, else output folder")
        found.add_argument(
            "--tile", type=int, help="side of the tiles in input pixels; 0: none; default: by free memory"
        )
        found.add_argument("--format", help="format of all outputs, e.g. png; default: each input's own")
        found.add_argument("--quality", type=int, default=95, help="of JPEG, WebP and AVIF, 1 to 100 (default 95)")
        found.add_argument("--suffix", default="", help="added to each file's name before its extension")
        found.add_argument("--overwrite", action="store_true", help="replace files that were not made by this command")
        found.add_argument("--json", action="store_true", help="print what was done as JSON")
        runs(found)

    found = command(
        "upscale", _upscale, "enlarge images: a folder tree in, the same tree out; the same command resumes"
    )
    folders(found)
    found.add_argument("--model", help="weight, run folder or file; default: the fast upscaler for the scale")
    large = found.add_mutually_exclusive_group()
    large.add_argument("--scale", type=float, help="output side / input side, e.g. 2 or 1.5; default: the model's own")
    large.add_argument("--size", help="WIDTHx, xHEIGHT or WIDTHxHEIGHT in place of a scale, e.g. 3840x")

    found = command("translate", _translate, "translate images with a trained translator; files as in upscale")
    folders(found)
    found.add_argument("--model", required=True, help="weight, run folder or file")

    found.add_argument("--direction", choices=("ab", "ba"), help="of a model that translates both ways (default ab)")

    found = command("synthesize", _synthesize, "draw images from a trained generator of noise")
    found.add_argument("model", help="weight, run folder or file")
    found.add_argument("-n", "--count", type=int, default=16, help="how many images (default 16)")
    found.add_argument("--seed", type=_seed, default=0)
    found.add_argument(
        "--label", help="class to draw, its name or number, where the model knows any; default: all in turn"
    )
    found.add_argument(
        "--code", type=float, nargs="+", metavar="C", help="values, -1 to 1, of InfoGAN's first codes; default: drawn"
    )
    said = found.add_mutually_exclusive_group()
    said.add_argument("--text", help="what to draw, where the model knows text")
    said.add_argument("--text-file", metavar="FILE", help="texts to draw, one a line, --count images each")
    found.add_argument("--box", metavar="X0,Y0,X1,Y1", help="where to draw it, in shares of the side, e.g. 0,0,0.5,0.5")
    found.add_argument(
        "--points",
        metavar="X,Y,X,Y,X,Y,X,Y",
        help="its leftmost, topmost, rightmost and bottommost point, in shares of the side, where a model knows such",
    )
    found.add_argument(
        "--truncation", type=float, metavar="T", help="less variety, more fidelity: 0 to 1 for styles, else over 0"
    )
    found.add_argument(
        "--interpolate",
        type=int,
        default=0,
        metavar="STEPS",
        help="so many images on the way from each to the next; without --label all of class 0",
    )
    found.add_argument("--mix", action="store_true", help="count x count images: coarse styles by row, fine by column")
    found.add_argument(
        "-o", "--out", required=True, help="an image file for one sheet, else a folder for single images"
    )
    found.add_argument("--overwrite", action="store_true", help="replace files that are there")
    runs(found)

    found = command("classify", _classify, "read the class of images with a system that learnt to: a table")
    found.add_argument("folder", help="images, searched below")
    found.add_argument("--model", required=True, help="weight, run folder or file, e.g. of pixelda")
    found.add_argument("-o", "--out", required=True, help="table with the columns file and label")
    found.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    runs(found)

    found = command("train", _train, "train a page of the catalogue on a folder; the same command resumes")
    found.add_argument("recipe", help="page, recipe file or checkpoint")
    found.add_argument(
        "--data",
        nargs="+",
        metavar="FOLDER",
        help="training images, or two folders A and B; folders with train/ and validation/ inside stand for both; "
        "none for points drawn from a formula",
    )
    found.add_argument("--validation", nargs="+", metavar="FOLDER", help="images to validate on")
    found.add_argument("-o", "--out", required=True, help="the run folder")
    found.add_argument("--images", type=int, help="how many images to see in all")
    found.add_argument("--seed", type=_seed, default=0)
    found.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a key of the recipe; repeatable"
    )
    found.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
    found.add_argument(
        "--rollback", action="store_true", help="after a collapse go back to the best state and on at half the rate"
    )
    found.add_argument("--compile", action="store_true", help="compile the networks (worth it on a GPU)")
    found.add_argument("--devices", type=int, default=1, help="processes, each with its own GPU or share of the CPU")
    found.add_argument("--no-check", action="store_true", help="do not look through the data first")
    runs(found)

    found = command("evaluate", _evaluate, "measure a trained system on a folder of images")
    found.add_argument("model", help="weight, run folder or file")
    found.add_argument(
        "--data",
        nargs="+",
        metavar="FOLDER",
        help="images, or pairs for a translator; none for points drawn from a formula",
    )
    found.add_argument("--metrics", help="e.g. psnr,ssim,perceptual[efficientnet_lite0]; default: the page's own")
    found.add_argument("--images", type=int, default=0, help="how many, evenly spread; default: all")
    found.add_argument("--seed", type=_seed, default=0, help="of what is random in it")
    runs(found)

    found = command("check", _check, "look through folders of images: corrupt, small, mismatched, repeated, leaking")
    found.add_argument("folders", nargs="+")
    found.add_argument("--validation", nargs="+", help="validation images, searched for copies of training images")
    found.add_argument("--minimum", type=int, default=0, help="least length of the shorter side")
    form = found.add_mutually_exclusive_group()
    form.add_argument("--paired", action="store_true", help="the images are pairs")
    form.add_argument("--unpaired", action="store_true", help="the images are two sets without partners")
    found.add_argument("--json", action="store_true")

    found = command("prepare", _prepare, "lay out a data set of the shelf datasets/, or pairs made of your own images")
    found.add_argument("name", nargs="?", help="data set; without it the list of them")
    found.add_argument("-o", "--out", help="folder; default: a folder of that name in the cache")
    found.add_argument("--from", dest="source", metavar="FOLDER", help="make pairs of the images in it")
    found.add_argument(
        "--make", metavar="WHAT", help="edges, soft_edges, outer_edges, grey, low_light, masks, blur or pixelate"
    )
    found.add_argument("--size", type=int, default=0, help="side of the pairs in pixels; default: as the images are")
    found.add_argument("--seed", type=_seed, default=0, help="of what is random in it")

    found = command("models", _models, "list the catalogue")
    found.add_argument("pattern", nargs="?", default="*")
    found.add_argument("--json", action="store_true")

    found = command("show", _show, "print a page, or the recipe in a checkpoint")
    found.add_argument("name")

    found = command("export", _export, "write a trained network as ONNX, checked against PyTorch")
    found.add_argument("model")
    found.add_argument("-o", "--out", required=True, help="the .onnx file")
    found.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    return top


def _upscale(a: argparse.Namespace) -> int:
    return _folder(a, a.model or img2img.upscaler_for(a.scale), {}, scale=a.scale, size=a.size)


def _translate(a: argparse.Namespace) -> int:
    return _folder(a, a.model, {"direction": a.direction} if a.direction else {})


def _folder(a: argparse.Namespace, model: str, controls: dict[str, Any], **options: Any) -> int:
    if not 1 <= a.quality <= 100:
        raise ValueError(f"--quality {a.quality} is not between 1 and 100")
    from img2img import engine
    from img2img.imaging.tree import process

    engine.keep_memory()
    pipe = img2img.load(model, device=a.device, precision=a.precision, **controls)
    if pipe.verb != a.command:
        raise ValueError(f"{model} does not {a.command} (task {pipe.task}); see: img2img models")
    pipe.check(tile=a.tile, **options)
    settings = json.dumps([pipe.settings, a.tile, controls, options], sort_keys=True)
    report = process(
        a.inputs,
        a.out,
        lambda picture, tick: pipe.picture(picture, tile=a.tile, advance=tick, **options),
        settings=settings,
        suffix=a.suffix,
        format=a.format,
        quality=a.quality,
        overwrite=a.overwrite,
        scale=pipe.scale,
        advance=True,
    )
    facts = {
        "written": report.written,
        "skipped": report.skipped,
        "failed": report.failed,
        "megapixels": round(report.pixels / 1e6, 3),
        "seconds": round(report.seconds, 3),
    }
    if a.json:
        print(json.dumps(facts | {"model": pipe.name, "outputs": [str(path) for path in report.outputs]}))
    elif report.written + report.skipped + report.failed > 1:
        print(", ".join(f"{value} {name}" for name, value in facts.items() if isinstance(value, int)), file=sys.stderr)
    return 1 if report.failed else 0


def _synthesize(a: argparse.Namespace) -> None:
    from img2img.imaging.picture import READABLE, WRITABLE, Picture, write

    controls = {key: value for key in ("label", "code", "text") if (value := getattr(a, key)) is not None}
    for key, names in (("box", "X0,Y0,X1,Y1"), ("points", "X,Y,X,Y,X,Y,X,Y")):
        if (given := getattr(a, key)) is not None:
            try:
                controls[key] = tuple(float(part) for part in given.split(","))
            except ValueError:
                raise ValueError(f"--{key} {given}: expected {names} in shares of the side, e.g. 0.5") from None
    if a.interpolate < 0:
        raise ValueError(f"--interpolate {a.interpolate} must be 0 or more")
    if a.interpolate and a.mix:
        raise ValueError("--interpolate and --mix make sheets of their own; choose one")
    sheet = (suffix := Path(a.out).suffix.lower()) in WRITABLE
    if suffix in READABLE and not sheet:
        raise ValueError(f"{a.out}: cannot write {suffix!r}; use one of {', '.join(WRITABLE)}, or name a folder")
    if sheet:
        _free(Path(a.out), a.overwrite)
    pipe = img2img.load(a.model, device=a.device, precision=a.precision, **controls)
    if pipe.verb == a.command and pipe.recipe.data.points:
        from img2img.data.toys import draw_points

        if a.interpolate or a.mix or a.truncation is not None:
            raise ValueError(f"{a.model}: makes points, without --interpolate, --mix and --truncation")
        draw_points(pipe, Path(a.out), count=a.count, seed=a.seed)
        return
    options = {"seed": a.seed, "truncation": a.truncation, "interpolate": a.interpolate, "mix": a.mix}
    if a.text_file:
        if Path(a.out).suffix:
            raise ValueError(f"{a.out}: many texts make single images; name a folder")
        try:
            lines = Path(a.text_file).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{a.text_file}: is no text in UTF-8; write one text a line") from None
        texts = [(place, line.strip()) for place, line in enumerate(lines, 1) if line.strip()]
        if not texts:
            raise ValueError(f"{a.text_file}: has no text in it; write one a line")
        for place, text in texts:
            name = re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:60]
            for number, image in enumerate(pipe.ask(**controls, text=text).sample(a.count, **options)):
                path = Path(a.out) / f"{place:04d}-{name}-{number:02d}.png"
                write(_free(path, a.overwrite), Picture.from_pil(image))
        return
    images = pipe.sample(a.count, **options)
    if sheet:
        from torchvision.transforms.functional import to_tensor
        from torchvision.utils import make_grid

        columns = a.interpolate or max(1, round(len(images) ** 0.5))
        tiles = make_grid([to_tensor(image) for image in images], nrow=columns, padding=2)
        write(a.out, Picture((tiles.permute(1, 2, 0).numpy() * 255).round().astype("uint8")))
        return
    paths = [Path(a.out) / f"{a.seed}-{place:05d}.png" for place in range(len(images))]
    for path in paths:
        _free(path, a.overwrite)
    for path, image in zip(paths, images, strict=True):
        write(path, Picture.from_pil(image))


def _classify(a: argparse.Namespace) -> int:
    import csv
    from functools import partial

    from img2img.checkpoint import atomic
    from img2img.data.images import files_in
    from img2img.imaging.tree import Report, fail

    _free(Path(a.out), a.overwrite)
    pipe, report = img2img.load(a.model, device=a.device, precision=a.precision), Report()
    found = pipe.classify(files_in(a.folder), failed=partial(fail, report))
    with atomic(Path(a.out)) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label"])
        for path, label in found.items():
            table.writerow([path.relative_to(a.folder).as_posix(), label])
    return 1 if report.failed else 0


def _free(path: Path, overwrite: bool) -> Path:
    """Return a path that may be written to.

    Raises:
        ValueError: it is a folder, or a file and nobody said to replace it.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists; choose another name, or replace it with --overwrite")
    return path


def _train(a: argparse.Namespace) -> None:
    from dataclasses import replace

    from img2img.recipe import read

    if a.devices < 1:
        raise ValueError(f"--devices {a.devices} must be 1 or more")
    if a.dry_run:
        page = replace(read(a.recipe), measured=[]).override(a.set)
        print((page if a.images is None else page.override({"train.images": a.images})).toml(), end="")
        return
    options = {
        "recipe": a.recipe,
        "data": a.data,
        "out": a.out,
        "validation": a.validation,
        "images": a.images,
        "seed": a.seed,
        "set": a.set,
        "device": a.device,
        "precision": a.precision,
        "compile": a.compile,
        "rollback": a.rollback,
        "doctor": not a.no_check,
    }
    if a.devices > 1 and "LOCAL_RANK" not in os.environ:
        from img2img.engine import launch

        line = launch(train_process, options, a.devices)
    else:
        line = train_process(options)
    print(json.dumps(line))


def train_process(options: dict[str, Any]) -> dict[str, Any]:
    """Train in this process; several of them make one run (see `img2img.engine.launch`)."""
    from img2img import engine

    engine.keep_memory()
    return img2img.train(**options)


def _evaluate(a: argparse.Namespace) -> None:
    found = img2img.evaluate(
        a.model,
        a.data or [],
        metrics=a.metrics,
        images=a.images,
        seed=a.seed,
        device=a.device,
        precision=a.precision,
    )
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


def _check(a: argparse.Namespace) -> int:
    findings = img2img.check(
        *a.folders, validation=a.validation, minimum=a.minimum, paired=a.paired, unpaired=a.unpaired
    )
    if a.json:
        print(
            json.dumps(
                [{"path": str(f.path), "severity": f.severity, "what": f.what, "mend": f.mend} for f in findings]
            )
        )
    else:
        for finding in findings:
            print(finding)
        print(f"{len(findings)} findings" if findings else "nothing wrong", file=sys.stderr)
    return 1 if any(f.severity == "error" for f in findings) else 0


def _prepare(a: argparse.Namespace) -> None:
    if a.make and a.source is None:
        raise ValueError(f"--make {a.make} makes pairs of images; name their folder (--from)")
    if a.name is None and a.source is None:
        from img2img.data.prepare import pages

        for name in pages():
            print(name)
        return
    print(img2img.prepare(a.name, a.out, source=a.source, make=a.make, size=a.size, seed=a.seed))


def _models(a: argparse.Namespace) -> None:
    found = img2img.list_models(a.pattern)
    if a.json:
        print(json.dumps(found))
        return
    if not found:
        raise ValueError(f"no page is called {a.pattern}; try '*{a.pattern.strip('*')}*', or img2img models for all")
    wide = [max(len(entry[key]) for entry in found) for key in ("name", "task")]
    for entry in found:
        print(
            f"{entry['name']:{wide[0]}}  {entry['task']:{wide[1]}}  {entry['about']}"
            + (f" [{', '.join(entry['weights'])}]" if entry["weights"] else "")
        )


def _show(a: argparse.Namespace) -> None:
    from img2img.recipe import read

    print(read(a.name).toml(), end="")


def _export(a: argparse.Namespace) -> None:
    _free(Path(a.out), a.overwrite)
    print(json.dumps(img2img.export(a.model, a.out)))


if __name__ == "__main__":
    sys.exit(main())
