"""Time upscalers from PNG files to PNG files: ours against a plain PyTorch loop and against Real-ESRGAN's way.

Every contestant has a process of its own, loads, warms up, and then waits for its turn: the repetitions of all are
interleaved, and ratios are medians over repetitions, so that a change of the machine's pace falls on all alike.
Peak memory is the process's largest resident set, Python and PyTorch included.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# name: what runs, its network, precision, how many images a repetition has and by what their side is divided
CONTESTANTS: dict[str, dict[str, Any]] = {
    "fast": {"way": "ours", "network": "fast.x4", "precision": "fp32", "images": 8},
    "fast bf16": {"way": "ours", "network": "fast.x4", "precision": "bf16", "images": 8},
    "fast, plain loop": {"way": "plain", "network": "fast.x4", "images": 8},
    "srresnet": {"way": "ours", "network": "srresnet.x4", "precision": "fp32", "images": 2},
    "srresnet bf16": {"way": "ours", "network": "srresnet.x4", "precision": "bf16", "images": 2},
    "srresnet, plain loop": {"way": "plain", "network": "srresnet.x4", "images": 2},
    "compact 64x16, Real-ESRGAN's way": {"way": "realesrgan", "network": "compact16", "images": 2},
    "compact 64x16, ours": {"way": "ours", "network": "compact16", "precision": "fp32", "images": 2},
    "compact 64x16, ours bf16": {"way": "ours", "network": "compact16", "precision": "bf16", "images": 2},
    "compact 64x32, Real-ESRGAN's way": {"way": "realesrgan", "network": "compact32", "images": 2},
    "compact 64x32, ours": {"way": "ours", "network": "compact32", "precision": "fp32", "images": 2},
    "compact 64x32, ours bf16": {"way": "ours", "network": "compact32", "precision": "bf16", "images": 2},
    "RRDB 23, Real-ESRGAN's way": {"way": "realesrgan", "network": "rrdb23", "images": 1, "divide": 2},
    "limit": {"way": "limit", "precision": "fp32"},
    "limit bf16": {"way": "limit", "precision": "bf16"},
}
RATIOS = [
    ("fast", "RRDB 23, Real-ESRGAN's way"),
    ("fast bf16", "RRDB 23, Real-ESRGAN's way"),
    ("fast", "compact 64x16, Real-ESRGAN's way"),
    ("fast bf16", "compact 64x16, Real-ESRGAN's way"),
    ("fast bf16", "compact 64x32, Real-ESRGAN's way"),
    ("fast", "fast, plain loop"),
    ("fast bf16", "fast, plain loop"),
    ("srresnet", "srresnet, plain loop"),
    ("srresnet bf16", "srresnet, plain loop"),
    ("compact 64x16, ours", "compact 64x16, Real-ESRGAN's way"),
    ("compact 64x16, ours bf16", "compact 64x16, Real-ESRGAN's way"),
    ("compact 64x32, ours", "compact 64x32, Real-ESRGAN's way"),
    ("compact 64x32, ours bf16", "compact 64x32, Real-ESRGAN's way"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--size", type=int, default=256, help="side of the input images in pixels (default 256); RRDB's is half"
    )
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument(
        "--tile", type=int, default=0, help="tile of Real-ESRGAN's way; 0, its default: the whole image"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants by name or pattern, e.g. 'fast*' limit")
    parser.add_argument("--data", type=Path, help="folder of photos to cut the inputs from; default: slopes and grain")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(json.loads(options.child))
        return 0
    try:
        found = benchmark(options)
    except (ValueError, OSError) as error:
        print(f"benchmark_upscale: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found) if options.json else tables(found))
    return 0


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Start the contestants, give each its turn in every repetition, and sum up."""
    import torch
    from tqdm import tqdm

    from img2img import engine

    if options.size < 32 or options.repeats < 1:
        raise ValueError("--size must be at least 32 and --repeats at least 1")
    chosen = [
        name for name in CONTESTANTS if not options.only or any(fnmatch.fnmatch(name, each) for each in options.only)
    ]
    if not chosen:
        raise ValueError(f"no contestant is called {' or '.join(options.only)}; there are: {'; '.join(CONTESTANTS)}")
    native = engine.native_bf16(torch.device("cpu"))
    if not native:
        print("bf16 is not native here: left out", file=sys.stderr)
        chosen = [name for name in chosen if CONTESTANTS[name].get("precision") != "bf16"]
    found: dict[str, Any] = {
        "size": options.size,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "native_bf16": native,
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="img2img-upscale-")))
        files = networks(folder, {CONTESTANTS[name].get("network") for name in chosen})
        found["weights"] = {name: "trained" if trained else "random" for name, (_, trained) in files.items()}
        running: dict[str, Child] = {}
        for name in tqdm(chosen, desc="load", unit="contestant", file=sys.stderr, disable=None):
            setup = {**CONTESTANTS[name], "tile": options.tile, "out": str(folder / f"out{len(running)}")}
            if "network" in setup:
                setup["file"] = str(files[setup["network"]][0])
                setup["in"] = str(inputs(folder, options.size // setup.get("divide", 1), setup["images"], options.data))
            running[name] = stack.enter_context(contextlib.closing(Child(name, setup)))
        turns: dict[str, list[dict]] = {name: [] for name in chosen}
        for _ in tqdm(range(options.repeats), desc="measure", unit="repetition", file=sys.stderr, disable=None):
            for name, process in running.items():
                turns[name].append(process.ask("run"))
        facts = {name: process.ask("facts") for name, process in running.items()}
        found["contestants"] = {name: summary(facts[name], turns[name]) for name in chosen}
        found["fidelity"] = fidelities(folder, list(running))
    found["ratios"] = {
        f"{ours} / {peer}": statistics.median(
            (a["pixels"] / a["seconds"]) / (b["pixels"] / b["seconds"])
            for a, b in zip(turns[ours], turns[peer], strict=True)
        )
        for ours, peer in RATIOS
        if ours in turns and peer in turns
    }
    found["limit_share"] = shares(found["contestants"])
    return found


def summary(facts: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a contestant's medians."""
    found = {key: value for key, value in facts.items() if value is not None}
    if "pixels" in turns[0]:
        found["megapixels_per_second"] = statistics.median(turn["pixels"] / turn["seconds"] for turn in turns) / 1e6
    for key in ("network_seconds", "gflops_per_second"):
        if key in turns[0]:
            found[key] = statistics.median(turn[key] for turn in turns)
    found["seconds"] = [turn["seconds"] for turn in turns]
    return found


def shares(contestants: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Return what share of the convolution limit our drivers reach: the network alone, and from file to file."""
    found = {}
    for name, facts in contestants.items():
        limit = contestants.get("limit bf16" if facts.get("precision") == "bf16" else "limit")
        if limit and "network_seconds" in facts:
            rate = facts["gflops"] / facts["network_seconds"]
            whole = facts["gflops"] / facts["pixels"] * facts["megapixels_per_second"] * 1e6
            found[name] = {
                "network": rate / limit["gflops_per_second"],
                "file_to_file": whole / limit["gflops_per_second"],
            }
    return found


def fidelities(folder: Path, names: list[str]) -> dict[str, float]:
    """Return the decibels between a contestant's bf16 outputs and its fp32 outputs."""
    from img2img.imaging.picture import read
    from img2img.metrics import psnr

    found = {}
    for place, name in enumerate(names):
        exact = name.removesuffix(" bf16")
        if name != exact and exact in names and CONTESTANTS[name]["way"] == "ours":
            first, second = (sorted((folder / f"out{at}").rglob("*.png"))[0] for at in (place, names.index(exact)))
            found[name] = min(float(psnr(read(first).pixels, read(second).pixels)), 99.0)
    return found


def inputs(folder: Path, side: int, count: int, photos: Path | None) -> Path:
    """Write ``count`` square PNG images and return their folder."""
    import cv2
    import numpy as np

    found = folder / f"in-{side}-{count}"
    if found.is_dir():
        return found
    found.mkdir()
    random = np.random.default_rng(0)
    cut = []
    if photos:
        from img2img.data.photos import images_in, rgb

        cut = [rgb(path)[..., ::-1] for path in images_in(photos)[:count]]
    for place in range(count):
        small = random.integers(0, 256, (max(2, side // 16), max(2, side // 16), 3), np.uint8)
        image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = (image + random.integers(-4, 5, image.shape, np.int16)).clip(0, 255).astype(np.uint8)
        if cut:
            image = cut[place % len(cut)]
            top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
            image = cv2.resize(image[top : top + side, left : left + side], (side, side))
        cv2.imwrite(str(found / f"{place}.png"), image)
    return found


def networks(folder: Path, wanted: set[str | None]) -> dict[str, tuple[Path, bool]]:
    """Return for each network its file, and whether its weights are trained; random ones do for timing."""
    import torch

    from img2img import checkpoint
    from img2img.recipe import read, root
    from img2img.systems.system import build

    torch.manual_seed(0)
    found = {}
    for name in sorted(each for each in wanted if each):
        path = root("weights") / f"{name}.safetensors"
        if path.is_file():
            found[name] = path, True
            continue
        path = folder / f"{name}.{'safetensors' if '.x' in name else 'pth'}"
        if ".x" in name:
            page, scale = name.split(".x")
            recipe = read(page).override({"data.scale": int(scale)})
            tensors = {f"generator.{key}": value for key, value in build(recipe).generator.state_dict().items()}
            checkpoint.save(path, tensors, {"recipe": recipe.page()})
        else:
            torch.save({"params": architecture(name).state_dict()}, path)
        found[name] = path, False
    return found


def architecture(name: str) -> Any:
    """Return one of the peers' networks for x4."""
    try:
        from spandrel.architectures.Compact import Compact
        from spandrel.architectures.ESRGAN import ESRGAN
    except ImportError:
        raise ValueError("the peers' networks come from spandrel: pip install 'img2img[community]'") from None
    if name.startswith("compact"):
        return Compact(num_feat=64, num_conv=int(name.removeprefix("compact")), upscale=4)
    return ESRGAN(num_filters=64, num_blocks=int(name.removeprefix("rrdb")), scale=4)


class Child:
    """A contestant in a process of its own, which answers each request with a line of JSON."""

    def __init__(self, name: str, setup: dict[str, Any]) -> None:
        environment = dict(os.environ)
        if setup["way"] == "ours":
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self._answer()  # loaded and warm
        except BaseException:
            self.close()
            raise

    def ask(self, request: str) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{self.name}: ended with exit code {self.process.wait()}, see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


# In the child


def child(setup: dict[str, Any]) -> None:
    """Load a contestant, warm up, and serve requests."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints, prints on stderr

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    run, facts = {"ours": ours, "plain": plain, "realesrgan": realesrgan, "limit": limit}[setup["way"]](setup)
    run()
    answer({})
    for line in sys.stdin:
        if line.strip() == "run":
            answer(run())
        else:
            answer({"peak_bytes": peak_bytes(), "precision": setup.get("precision", "fp32"), **facts})


def peak_bytes() -> int:
    """Return the largest resident set of this process so far."""
    with contextlib.suppress(OSError):
        # On Linux getrusage would also count the process that started this one, from before it became this program.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


Contestant = tuple[Callable[[], dict[str, Any]], dict[str, Any]]


def ours(setup: dict[str, Any]) -> Contestant:
    """The folder tool, as the command line drives it; and the network alone on one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from img2img import engine, load
    from img2img.imaging.picture import read
    from img2img.imaging.tree import process

    engine.keep_memory()
    pipe = load(setup["file"], device="cpu", precision=setup["precision"])
    pixels = read(next(Path(setup["in"]).iterdir())).pixels
    image = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pipe.tensor(image)

    def run() -> dict[str, Any]:
        shutil.rmtree(setup["out"], ignore_errors=True)  # else there would be nothing to do
        start = time.perf_counter()
        report = process(
            setup["in"],
            setup["out"],
            lambda picture, tick: pipe.picture(picture, advance=tick),
            settings=pipe.settings,
            scale=pipe.scale,
            advance=True,
            progress=False,
        )
        seconds = time.perf_counter() - start
        if report.failed or not report.written:
            raise ValueError(f"{report.failed} images failed")
        start = time.perf_counter()
        pipe.tensor(image)
        return {"seconds": seconds, "pixels": report.pixels, "network_seconds": time.perf_counter() - start}

    return run, {"gflops": counter.get_total_flops() / 1e9, "pixels": image[0, 0].numel() * pipe.scale**2}


def plain(setup: dict[str, Any]) -> Contestant:
    """The same network in a plain loop: eager, fp32, the memory layout PyTorch starts with, one image after another."""
    import cv2
    import torch

    from img2img.systems.system import restore

    network = restore(setup["file"]).generator
    network = network.deploy() if setup["network"].startswith("fast") else network  # re-parameterised nets are deployed

    def enlarge(image):
        values = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            values = network(values)
        pixels = (values[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)

    return folder_loop(setup, enlarge), {}


def realesrgan(setup: dict[str, Any]) -> Contestant:
    """Real-ESRGAN's script on a CPU with --fp32: cv2 reads and writes, whole images or tiles with 10 pixels around."""
    import cv2
    import numpy as np
    import torch

    network = architecture(setup["network"])
    network.load_state_dict(torch.load(setup["file"], weights_only=True)["params"])
    network.eval()
    scale, tile, around = 4, setup["tile"], 10

    def tiles(image):
        if not tile:
            return network(image)
        _, channels, height, width = image.shape
        result = image.new_zeros(1, channels, height * scale, width * scale)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                above, before = max(top - around, 0), max(left - around, 0)
                bottom, right = min(top + tile, height), min(left + tile, width)
                part = network(image[:, :, above : min(bottom + around, height), before : min(right + around, width)])
                y, x = (top - above) * scale, (left - before) * scale
                high, wide = (bottom - top) * scale, (right - left) * scale
                result[:, :, top * scale : bottom * scale, left * scale : right * scale] = part[
                    :, :, y : y + high, x : x + wide
                ]
        return result

    @torch.no_grad()
    def enhance(image):
        values = image.astype(np.float32)
        values = values / (65535 if np.max(values) > 256 else 255)
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB)
        tensor = torch.from_numpy(np.transpose(values, (2, 0, 1))).float().unsqueeze(0)
        result = tiles(tensor).data.squeeze().float().clamp_(0, 1).numpy()
        return (np.transpose(result[[2, 1, 0]], (1, 2, 0)) * 255.0).round().astype(np.uint8)

    return folder_loop(setup, enhance), {}


def folder_loop(setup: dict[str, Any], enlarge: Callable) -> Callable[[], dict[str, Any]]:
    """Return a function that reads, enlarges and writes the images of a folder one after another."""
    import cv2

    paths, out = sorted(Path(setup["in"]).iterdir()), Path(setup["out"])
    out.mkdir(exist_ok=True)

    def run() -> dict[str, Any]:
        start, pixels = time.perf_counter(), 0
        for path in paths:
            result = enlarge(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
            cv2.imwrite(str(out / path.name), result)
            pixels += result.shape[0] * result.shape[1]
        return {"seconds": time.perf_counter() - start, "pixels": pixels}

    return run


def limit(setup: dict[str, Any]) -> Contestant:
    """The rate of large 3x3 convolutions, channels-last: what no network of such layers can pass."""
    import torch
    from torch.nn import functional

    from img2img import engine

    engine.keep_memory()
    dtype = engine.PRECISIONS[setup["precision"]]
    shapes = [(64, 256), (128, 128), (256, 96)]  # channels, side
    cases = []
    for channels, side in shapes:
        tensors = [torch.rand(1, channels, side, side), torch.rand(channels, channels, 3, 3)]
        cases.append([tensor.to(dtype).contiguous(memory_format=torch.channels_last) for tensor in tensors])

    @torch.no_grad()
    def run() -> dict[str, Any]:
        best, begin = 0.0, time.perf_counter()
        for (channels, side), (image, kernel) in zip(shapes, cases, strict=True):
            functional.conv2d(image, kernel, padding=1)
            start = time.perf_counter()
            for _ in range(4):
                functional.conv2d(image, kernel, padding=1)
            best = max(best, 4 * 2 * 9 * channels**2 * side**2 / 1e9 / (time.perf_counter() - start))
        return {"seconds": time.perf_counter() - begin, "gflops_per_second": best}

    return run, {}


def tables(found: dict[str, Any]) -> str:
    """Return the result as Markdown tables."""
    random = [name for name, kind in found["weights"].items() if kind == "random"]
    lines = [
        f"x4 of {found['size']} x {found['size']} pixels, PNG to PNG, {found['threads']} threads, "
        f"medians of {found['repeats']} repetitions" + (f"; random weights: {', '.join(random)}" if random else ""),
        "",
        "| | MP/s of output | peak MB | bf16 to fp32, dB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, facts in found["contestants"].items():
        if "megapixels_per_second" in facts:
            rate, peak = facts["megapixels_per_second"], facts["peak_bytes"] / 2**20
            decibels = f"{found['fidelity'][name]:.1f}" if name in found["fidelity"] else ""
            lines.append(f"| {name} | {rate:.3g} | {peak:.0f} | {decibels} |")
    if found["ratios"]:
        lines += ["", "| ratio of rates | |", "| --- | ---: |"]
        lines += [f"| {name} | {value:.2f} |" for name, value in found["ratios"].items()]
    limits = {
        name: facts["gflops_per_second"] for name, facts in found["contestants"].items() if "gflops_per_second" in facts
    }
    if limits:
        lines += ["", "| convolution " + " | convolution ".join(limits) + " |", "|" + " ---: |" * len(limits)]
        lines += ["| " + " | ".join(f"{value:.0f} GFLOP/s" for value in limits.values()) + " |"]
    if found["limit_share"]:
        lines += ["", "| share of the limit | network alone | file to file |", "| --- | ---: | ---: |"]
        lines += [
            f"| {name} | {share['network']:.0%} | {share['file_to_file']:.0%} |"
            for name, share in found["limit_share"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
