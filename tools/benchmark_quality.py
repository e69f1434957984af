"""Judge upscalers on photos by PSNR, SSIM and perceptual distance: bicubic, Lanczos, our weights and others."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from img2img.registry import TABLES, part

JUDGES = ("efficientnet_lite0", "hed_vgg16")
CROP = 256  # the perceptual distance is computed on the central square of this side


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Photos are cut to a multiple of the scale and reduced by Pillow's bicubic, or damaged as fast_real "
        "learns to mend (photo number n by the seed n); outputs are 8 bit. "
        f"PSNR and SSIM leave out a border of SCALE pixels, distances see the central {CROP} pixels; all are means.",
    )
    parser.add_argument("--data", type=Path, help="folder of photos that no model was trained on")
    parser.add_argument(
        "--classic", action="store_true", help="photos of scikit-image and scikit-learn in place of a folder"
    )
    parser.add_argument("--scale", type=int, default=4, help="2, 3, 4, ... (default 4)")
    parser.add_argument("--degradation", choices=sorted(TABLES["degradation"]), default="bicubic")
    parser.add_argument(
        "--models", nargs="*", help="weights, run folders or files; default: all of weights/ for the scale"
    )
    parser.add_argument("--peer", nargs="*", default=[], metavar="FILE", help="community upscalers for the scale, too")
    parser.add_argument(
        "--judges", nargs="*", default=list(JUDGES), help=f"feature networks (default {' '.join(JUDGES)})"
    )
    parser.add_argument("--images", type=int, help="only so many photos")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best here")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: as a user gets it")
    parser.add_argument("--markdown", action="store_true", help="the table only, without JSON")
    options = parser.parse_args(argv)
    if bool(options.data) == options.classic:
        parser.error("choose either --data FOLDER or --classic")
    try:
        found = benchmark(options)
    except (ValueError, OSError) as error:
        print(f"benchmark_quality: {error}", file=sys.stderr)
        return 1
    print(table(found))
    if not options.markdown:
        print(json.dumps(found))
    return 0


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Return the mean of every measure for every contestant."""
    import numpy as np
    from tqdm import tqdm

    from img2img.evaluation import CEILING
    from img2img.metrics import perceptual_distance, psnr, ssim

    scale = options.scale
    photos = classic() if options.classic else folder(options.data)
    photos = photos[: options.images] if options.images else photos
    judges = usable(options.judges)
    contestants = list(resamplers(scale)) + list(upscalers(options))
    reduce = part("degradation", {"type": options.degradation})
    border = {"border": scale}
    measures: dict[str, Callable] = {
        "psnr_y": lambda a, b: min(psnr(a, b, channel="y", **border), CEILING),
        "ssim_y": lambda a, b: ssim(a, b, channel="y", **border),
        "psnr_rgb": lambda a, b: min(psnr(a, b, **border), CEILING),
        "ssim_rgb": lambda a, b: ssim(a, b, **border),
    }
    for judge in judges:
        measures[judge] = lambda a, b, judge=judge: perceptual_distance(centre(a), centre(b), network=judge)
    values = {name: {measure: [] for measure in measures} for name, _, _ in contestants}
    with tqdm(total=len(photos) * len(contestants), unit="image", file=sys.stderr, disable=None) as bar:
        for number, (name, photo) in enumerate(photos):
            height, width = (side // scale * scale for side in photo.shape[:2])
            target = np.ascontiguousarray(photo[:height, :width])
            small = reduce(target, scale, np.random.default_rng(number))
            for contestant, enlarge, _ in contestants:
                bar.set_postfix_str(f"{contestant}, {name}", refresh=False)
                output = enlarge(small)
                if output.shape != target.shape:
                    raise ValueError(f"{contestant}: gave {output.shape} for {target.shape}; is its scale {scale}?")
                for measure, function in measures.items():
                    values[contestant][measure].append(float(function(output, target)))
                bar.update()
    rows = [
        {"name": name, **facts} | {measure: float(np.mean(numbers)) for measure, numbers in values[name].items()}
        for name, _, facts in contestants
    ]
    found = {"scale": scale, "degradation": options.degradation, "photos": [name for name, _ in photos]}
    return found | {"judges": judges, "crop": CROP, "rows": rows}


def centre(image):
    """Return the central square of at most `CROP` pixels a side."""
    top, left = (max(0, (side - CROP) // 2) for side in image.shape[:2])
    return image[top : top + CROP, left : left + CROP]


def folder(path: Path) -> list[tuple[str, Any]]:
    """Return the photos of a folder by name, (H, W, 3) uint8."""
    from img2img.data.photos import images_in, rgb

    return [(file.name, rgb(file)) for file in images_in(path)]


def classic() -> list[tuple[str, Any]]:
    """Return the photos that come with scikit-image and, where it is installed, scikit-learn."""
    try:
        from skimage import data
    except ImportError:
        raise ValueError("--classic needs scikit-image: pip install scikit-image") from None
    found = [(name, getattr(data, name)()[..., :3]) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        print("china is left out: scikit-learn is not installed", file=sys.stderr)
        return found
    return [*found, ("china", load_sample_image("china.jpg"))]


def usable(names: Sequence[str]) -> list[str]:
    """Return the judges whose weights are at hand or can be fetched; say which are not."""
    from img2img.networks.features import features

    found = []
    for name in names:
        try:
            features(name)
            found.append(name)
        except ValueError as error:
            print(f"no distance by {name}: {error}", file=sys.stderr)
    return found


def resamplers(scale: int):
    """Yield Pillow's bicubic and Lanczos as contestants: (name, function of an array, facts)."""
    import numpy as np
    from PIL import Image

    for name, kind in (("bicubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS)):

        def enlarge(small, kind=kind):
            size = small.shape[1] * scale, small.shape[0] * scale
            return np.asarray(Image.fromarray(small).resize(size, kind))

        yield name, enlarge, {"parameters": 0}


def upscalers(options: argparse.Namespace):
    """Yield networks as contestants, as a user gets them: arrays in, arrays out."""
    from img2img import load
    from img2img.recipe import names

    models = options.models
    if models is None:
        models = names("weights", ".safetensors", f"*.x{options.scale}")
        if not models:
            print(f"no weight for x{options.scale} under weights/", file=sys.stderr)
    for model in [*models, *options.peer]:
        pipe = load(model, device=options.device, precision=options.precision)
        if pipe.task != "super_resolve" or pipe.scale != options.scale:
            raise ValueError(f"{model}: no upscaler for x{options.scale} (task {pipe.task}, scale {pipe.scale})")
        facts = {
            "parameters": sum(value.numel() for value in pipe.network.parameters()),
            "precision": str(pipe.dtype).removeprefix("torch."),
        }
        yield Path(model).stem if Path(model).is_file() else str(model), pipe, facts


def table(found: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    judges = found["judges"]
    heads = ["", "parameters", "PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB", *(f"distance ({judge})" for judge in judges)]
    lines = [
        f"x{found['scale']}, {found['degradation']} reduction, means over {len(found['photos'])} photos; "
        f"distances on the central {found['crop']} pixels, lower is better.",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * (len(heads) - 1),
    ]
    for row in found["rows"]:
        cells = [
            row["name"],
            f"{row['parameters']:,}" if row["parameters"] else "",
            f"{row['psnr_y']:.2f}",
            f"{row['ssim_y']:.4f}",
            f"{row['psnr_rgb']:.2f}",
            f"{row['ssim_rgb']:.4f}",
            *(f"{row[judge]:.4f}" for judge in judges),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
