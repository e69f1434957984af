"""Time the Frechet distance of two sets of features: ours against scipy's sqrtm, torch-fidelity and torchmetrics."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=1280, help="features of an image (default 1280)")
    parser.add_argument(
        "--images", type=int, nargs="+", default=[5000, 1000, 256], help="of each set (default 5000 1000 256)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(argv)
    if min(options.features, options.repeats, options.threads, *(n - 1 for n in options.images)) < 1:
        print("benchmark_frechet: features, repeats and threads must be 1 or more, images 2 or more", file=sys.stderr)
        return 1

    import torch

    torch.set_num_threads(options.threads)
    ways = {"img2img": _ours()}
    for name, way in (("scipy", _scipy), ("torch-fidelity", _fidelity), ("torchmetrics", _torchmetrics)):
        try:
            ways[name] = way()
        except ImportError:
            print(f"{name} is left out: pip install {name}", file=sys.stderr)
    rows = [measure(ways, images, options.features, options.repeats) for images in options.images]
    if options.json:
        print(json.dumps(rows))
        return 0
    print(f"{options.features} features, medians of {options.repeats}, {options.threads} threads of PyTorch\n")
    print("| images | way | statistics, s | distance, s | ours is faster | distance alone | difference |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        for name, way in row["ways"].items():
            cells = [f"{way['statistics']:.3f}", f"{way['distance']:.3f}", f"{way['ratio']:.1f}x"]
            cells += [f"{way['ratio_distance']:.1f}x", f"{way['difference']:.0e}"]
            print(f"| {row['images']} | {name} | {' | '.join(cells)} |")
    return 0


def measure(ways: dict[str, tuple[Callable, Callable]], images: int, width: int, repeats: int) -> dict:
    """Return each way's seconds for both sets' statistics and for their distance, and how they compare with ours."""
    import torch

    generator = torch.Generator().manual_seed(0)
    # Features of images are correlated, and their spread falls off as a power.
    mix = torch.randn(width, width, generator=generator) * torch.arange(1, width + 1).float().pow(-0.7)[:, None]
    x, y = ((torch.randn(images, width, generator=generator) @ mix + shift).relu() for shift in (0.0, 0.1))
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    values = {}
    for _ in range(repeats):
        for name, (statistic, distance) in ways.items():
            start = time.perf_counter()
            known = statistic(x), statistic(y)
            middle = time.perf_counter()
            values[name] = float(distance(*known))
            seconds[name].append((middle - start, time.perf_counter() - middle))
    ours = seconds["img2img"]
    return {
        "images": images,
        "features": width,
        "ways": {
            name: {
                "statistics": statistics.median(a for a, _ in spent),
                "distance": statistics.median(b for _, b in spent),
                "ratio": statistics.median(sum(their) / sum(our) for their, our in zip(spent, ours, strict=True)),
                "ratio_distance": statistics.median(their[1] / our[1] for their, our in zip(spent, ours, strict=True)),
                "value": values[name],
                "difference": abs(values[name] - values["img2img"]) / values["img2img"],
            }
            for name, spent in seconds.items()
        },
    }


def _ours() -> tuple[Callable, Callable]:
    from img2img.metrics.frechet import frechet, gaussian

    return gaussian, frechet


def _scipy() -> tuple[Callable, Callable]:
    import numpy as np
    from scipy.linalg import sqrtm

    def distance(x, y):
        shift = x[0] - y[0]
        return shift @ shift + np.trace(x[1]) + np.trace(y[1]) - 2 * np.trace(sqrtm(x[1] @ y[1])).real

    return lambda x: (x.double().numpy().mean(0), np.cov(x.double().numpy(), rowvar=False)), distance


def _fidelity() -> tuple[Callable, Callable]:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    def distance(x, y):
        return fid_statistics_to_metric(x, y, verbose=False)["frechet_inception_distance"]

    return lambda x: fid_features_to_statistics(x.double()), distance


def _torchmetrics() -> tuple[Callable, Callable]:
    from torchmetrics.image.fid import _compute_fid

    return lambda x: (x.double().mean(0), x.double().T.cov()), lambda x, y: _compute_fid(*x, *y)


if __name__ == "__main__":
    sys.exit(main())
