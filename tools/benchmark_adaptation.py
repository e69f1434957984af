"""Measure what adaptation is worth on held-out images of the target: trained on the source, adapted, on the target.

For example: python tools/benchmark_adaptation.py pixelda --data data/digits data/digits_m -o runs/adaptation
Rendered digits: python tools/benchmark_adaptation.py simgan --data data/glyphs data/digits -o runs/refined
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor
from train_classifier import accuracy, signed, train, whole

import img2img
from img2img.data.labelled import Labelled
from img2img.data.unpaired import domains
from img2img.systems.system import System


@torch.inference_mode()
def adapted(system: System, images: Tensor) -> Tensor:
    """Return uint8 source images (N, C, H, W) as the system makes them, uint8 too."""
    return torch.cat([((system.infer(signed(part)) + 1) * 127.5).round().byte() for part in images.split(256)])


@torch.inference_mode()
def reads(system: System, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images that the system's own classifier reads right."""
    read = torch.cat([system.classify(signed(part)) for part in images.split(256)])
    return float((read == labels).double().mean())


def measure(page: str, folders: list[Path], out: Path, *, seed: int, shown: int = 100_000, **options) -> dict:
    """Train a page and three classifiers of one seed; return their accuracies on the target's validation images.

    "adapted" is the system's own classifier, or where it has none one that learnt from nothing but adapted images. The
    classifiers see ``shown`` images each, however many there are.
    """
    learnt, held = (
        [folder / part if (folder / part).is_dir() else folder for folder in folders]
        for part in ("train", "validation")
    )
    img2img.train(page, learnt, out, validation=held, seed=seed, **options)
    system = img2img.load(out / "last.safetensors", device="cpu", precision="fp32").system
    data, sides, judging = system.recipe.data, domains(learnt), domains(held, validation=True)[1]
    source = Labelled(sides[0], data.size, data.input_channels or data.channels)
    given, names = whole(source), source.names  # classes are numbered alike everywhere, also where some lack
    judged = whole(Labelled(judging, data.size, data.channels, names=names))

    def learn(images: Tensor, labels: Tensor) -> float:
        return accuracy(train(images, labels, epochs=-(-shown // len(images)), seed=seed), *judged)

    found = {"source_only": learn(*whole(Labelled(sides[0], data.size, data.channels)))}
    if hasattr(system, "classify"):
        found["adapted"] = reads(system, *judged)
    else:
        found["adapted"] = learn(adapted(system, given[0]), given[1])
    found["target_only"] = learn(*whole(Labelled(sides[1], data.size, data.channels, names=names)))
    return found | {"error_cut": 1 - (1 - found["adapted"]) / max(1 - found["source_only"], 1e-9)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "page", help="pixelda, cogan_labelled, simgan, dtn, or another that reads or makes target images"
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="as in img2img train: source and target, or one folder with both; only judges look at the target's labels",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the runs, one a seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default 3)")
    parser.add_argument("--images", type=int, help="as in img2img train")
    parser.add_argument("--shown", type=int, default=100_000, help="images that each classifier sees (default 100,000)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in img2img train")
    a = parser.parse_args()
    if a.seeds < 1:
        parser.error("--seeds must be 1 or more")
    rows = []
    try:
        for seed in range(a.seeds):
            options = {"images": a.images, "set": a.set, "doctor": False, "shown": a.shown}
            rows.append(measure(a.page, a.data, a.out / f"{a.page}-{seed}", seed=seed, **options))
            print(json.dumps({"seed": seed} | {name: round(value, 4) for name, value in rows[-1].items()}), flush=True)
    except (ValueError, OSError) as error:
        parser.exit(1, f"benchmark_adaptation: {error}\n")
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: {statistics.mean(values):.4f} +- {spread:.4f} over {len(values)} seeds")


if __name__ == "__main__":
    main()
