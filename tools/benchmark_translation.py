"""Judge translators on held-out pairs: the input itself, and each model, by distances to the truth and between sets."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import img2img
from img2img.data.pairs import Pairs
from img2img.evaluation import Judge, evaluate
from img2img.systems.system import Trial

METRICS = "l1,ssim,perceptual[efficientnet_lite0],fid[efficientnet_lite0],kid[efficientnet_lite0]"


def identity(folder: Path, size: int, channels: int, direction: str, metrics: list[str]) -> dict[str, float]:
    """Return the metrics of a translator that gives its input back."""
    judge = Judge(metrics)
    pairs = Pairs(folder, size, channels, direction=direction)
    for place in range(len(pairs)):
        item = pairs.item(place, np.random.default_rng(place))
        given, target = item["input"][None], item["target"][None]
        judge.update({"": Trial(given, given, target, target)}, (-1.0, 1.0))
    return judge.compute()


def table(rows: dict[str, dict[str, float]], metrics: list[str]) -> str:
    """Return the results as a table in Markdown."""
    lines = ["|  | " + " | ".join(metrics) + " |", "| --- |" + " ---: |" * len(metrics)]
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{found[metric]:.4g}" for metric in metrics) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="weights, run folders or files; NAME=MODEL names a row")
    parser.add_argument("--data", type=Path, required=True, help="held-out pairs: a folder with A/ and B/")
    parser.add_argument("--direction", choices=("ab", "ba"), default="ab")
    parser.add_argument("--metrics", default=METRICS)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    metrics, rows = a.metrics.split(","), {}
    try:
        for text in a.models:
            name, _, model = text.rpartition("=")
            pipe = img2img.load(model, precision="fp32")
            if pipe.verb != "translate":
                raise ValueError(f"{model} is no translator (task {pipe.task}); see: img2img models")
            data = pipe.recipe.data
            if not rows:
                rows["the input itself"] = identity(a.data, data.size, data.channels, a.direction, metrics)
            found = evaluate(pipe, [a.data], metrics=metrics)
            rows[name or model] = {metric: found.get(f"{metric}_{a.direction}", found[metric]) for metric in metrics}
    except (ValueError, OSError) as error:
        parser.exit(1, f"benchmark_translation: {error}\n")
    print(json.dumps(rows, indent=2) if a.json else table(rows, metrics))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
