"""Random crops of large photos: Pillow's decode for every crop against the memory maps that training reads from."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of photos; default: three JPEG images of noise and slopes")
    parser.add_argument(
        "--width", type=int, default=2560, help="of the default images, height 3/4 of it (default 2560)"
    )
    parser.add_argument("--size", type=int, default=96, help="side of a crop in pixels (default 96)")
    parser.add_argument("--crops", type=int, default=20, help="crops in a repetition (default 20)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="img2img-crops-") as folder:
            # A cache of its own, so that the decoding is measured too and nothing is left behind.
            before = os.environ.get("IMG2IMG_CACHE")
            os.environ["IMG2IMG_CACHE"] = str(Path(folder, "cache"))
            try:
                found = measure(options, options.data or pictures(Path(folder, "photos"), options.width))
            finally:
                os.environ.pop("IMG2IMG_CACHE")
                if before is not None:
                    os.environ["IMG2IMG_CACHE"] = before
    except (ValueError, OSError) as error:
        print(f"benchmark_crops: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{found['photos']} photos of {found['megapixels']:.1f} MP, medians of crops of {options.size} pixels\n")
    print("| | crops per second |\n| --- | ---: |")
    print(f"| Pillow, whole photo decoded | {found['pillow']:.1f} |")
    print(f"| memory map of decoded photos | {found['store']:.0f} |")
    print(f"\n{found['ratio']:.0f} times as fast; decoding once took {found['decode_seconds']:.2f} s.")
    return 0


def pictures(folder: Path, width: int) -> Path:
    """Write three JPEG images with slopes and grain and return their folder."""
    import cv2
    import numpy as np

    folder.mkdir()
    random = np.random.default_rng(0)
    for place in range(3):
        small = random.integers(0, 256, (width * 3 // 64, width // 16, 3), np.uint8)
        image = cv2.resize(small, (width, width * 3 // 4), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += random.integers(-8, 9, image.shape, np.int16)
        cv2.imwrite(str(folder / f"{place}.jpg"), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return folder


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return crops per second both ways, interleaved, and their ratio."""
    import numpy as np
    from PIL import Image

    from img2img.data.photos import Store, images_in

    start = time.perf_counter()
    store = Store(images_in(folder))
    decode = time.perf_counter() - start
    shapes = [store[place].shape for place in range(len(store))]
    large = [place for place, shape in enumerate(shapes) if min(shape[:2]) >= options.size]
    if not large:
        raise ValueError(f"{folder}: no photo is {options.size} pixels high and wide; lower --size")

    def decoded(place: int) -> np.ndarray:
        return np.asarray(Image.open(store.files[place]).convert("RGB"))

    def crops(photo, seed: int) -> float:
        random = np.random.default_rng(seed)
        start = time.perf_counter()
        for _ in range(options.crops):
            image = photo(large[random.integers(len(large))])
            y, x = (int(random.integers(side - options.size + 1)) for side in image.shape[:2])
            np.array(image[y : y + options.size, x : x + options.size])
        return options.crops / (time.perf_counter() - start)

    rates = [(crops(decoded, seed), crops(store.__getitem__, seed)) for seed in range(options.repeats)]
    pillow, mapped = (statistics.median(column) for column in zip(*rates, strict=True))
    return {
        "photos": len(store),
        "megapixels": float(np.mean([height * width for height, width, _ in shapes])) / 1e6,
        "size": options.size,
        "pillow": pillow,
        "store": mapped,
        "ratio": statistics.median(store_rate / pillow_rate for pillow_rate, store_rate in rates),
        "decode_seconds": decode,
    }


if __name__ == "__main__":
    sys.exit(main())
