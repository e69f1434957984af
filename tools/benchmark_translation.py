"""Judge translators on held-out pairs: the input itself, and each model, by distances to the truth and between sets.

With --picture, some of the pairs are drawn as well: a row for the inputs, one for each model, and one for the truth.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import img2img
from img2img.data.pairs import Pairs
from img2img.evaluation import Judge, evaluate
from img2img.imaging.picture import Picture, write
from img2img.pipeline import Pipeline
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


def picture(pairs: Pairs, models: list[Pipeline], count: int) -> np.ndarray:
    """Return uint8 (H, W, 3) with evenly spread pairs as columns: input, what each model makes of it, target."""
    places = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
    items = [pairs.item(place, np.random.default_rng(0)) for place in places.tolist()]
    given, target = ([_pixels(item[side]) for item in items] for side in ("input", "target"))
    return np.concatenate([np.concatenate(row, 1) for row in (given, *(model(given) for model in models), target)])


def _pixels(image: torch.Tensor) -> np.ndarray:
    return ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


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
    parser.add_argument("--picture", type=Path, help="draw pairs into this file: inputs, each model's row, the truth")
    parser.add_argument("--columns", type=int, default=12, help="pairs drawn (default 12)")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    metrics, rows, pipes = a.metrics.split(","), {}, []
    try:
        for text in a.models:
            name, _, model = text.rpartition("=")
            pipe = img2img.load(model, precision="fp32")
            if pipe.verb != "translate":
                raise ValueError(f"{model} is no translator (task {pipe.task}); see: img2img models")
            data, first = pipe.recipe.data, (pipes or [pipe])[0].recipe.data
            if pipe.task == "paired" and data.direction != a.direction:
                raise ValueError(f"{model} learnt the direction {data.direction}; choose --direction {data.direction}")
            if data.size != first.size:
                raise ValueError(f"{model} is judged at {data.size} pixels, and others at {first.size}; judge it apart")
            pipes.append(pipe.ask(direction=a.direction) if pipe.task == "unpaired" else pipe)
            if not rows:
                rows["the input itself"] = identity(a.data, data.size, data.channels, a.direction, metrics)
            found = evaluate(pipe, [a.data], metrics=metrics)
            rows[name or model] = {metric: found.get(f"{metric}_{a.direction}", found[metric]) for metric in metrics}
        if a.picture:
            pairs = Pairs(a.data, data.size, data.channels, direction=a.direction)
            write(a.picture, Picture(picture(pairs, pipes, a.columns)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"benchmark_translation: {error}\n")
    print(json.dumps(rows, indent=2) if a.json else table(rows, metrics))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
