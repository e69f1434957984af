"""Judge translators on held-out images: the input itself, and each model, by distances to the truth and between sets.

With --picture, some are drawn as well: a row for the inputs, one for each model, and one for the truth. Of sets without
pairs, choose --metrics that need none.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import img2img
from img2img.data.stream import together
from img2img.evaluation import Judge, evaluate
from img2img.imaging.picture import Picture, write
from img2img.pipeline import Pipeline
from img2img.systems.adapt import coloured
from img2img.systems.system import System, Trial

METRICS = "l1,ssim,perceptual[efficientnet_lite0],fid[efficientnet_lite0],kid[efficientnet_lite0]"


def tried(system: System, batch: dict[str, torch.Tensor], direction: str) -> Trial:
    """Return what a translator makes of a batch in one direction."""
    with torch.inference_mode():
        found = system.trial(batch)
    return found.get(direction) or found[""]


def identity(pipe: Pipeline, folders: list[Path], direction: str, metrics: list[str]) -> dict[str, float]:
    """Return the metrics of a translator that gives its input back, on what a model is judged by."""
    judge, system = Judge(metrics), pipe.placed()
    for batch in together(system.source(folders, validation=True), 0):
        batch = {name: value.to(pipe.device) for name, value in batch.items()}
        trial = tried(system, batch, direction)
        judge.update({"": trial._replace(output=coloured(trial.input, trial.output.shape[1]))}, system.span)
    return judge.compute()


def picture(models: list[Pipeline], folders: list[Path], direction: str, count: int) -> np.ndarray:
    """Return uint8 (H, W, 3) with evenly spread images as columns: input, what each model makes of it, target.

    Where there is no target, an image of those that outputs should be like stands in its place.
    """
    system = models[0].placed()
    source = system.source(folders, validation=True)
    rows: list[list[np.ndarray]] = []
    for place in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int).tolist():
        item = source.item(place, np.random.default_rng(0))
        trial = tried(system, {name: value[None].to(models[0].device) for name, value in item.items()}, direction)
        given = _pixels(trial.input[0])
        goal = trial.real if trial.target is None else trial.target
        row = [given, *(model(given) for model in models), _pixels(goal[0])]
        rows.append([image.repeat(3 // image.shape[2], 2) for image in row])
    return np.concatenate([np.concatenate(row, 1) for row in zip(*rows, strict=True)])


def _pixels(image: torch.Tensor) -> np.ndarray:
    return ((image.cpu() + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


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
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="held-out pairs or sets: two folders, or one with A/ and B/"
    )
    parser.add_argument("--direction", choices=("ab", "ba"), default="ab")
    parser.add_argument("--metrics", default=METRICS)
    parser.add_argument("--picture", type=Path, help="draw some into this file: inputs, each model's row, the truth")
    parser.add_argument("--columns", type=int, default=12, help="how many are drawn (default 12)")
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
                rows["the input itself"] = identity(pipe, a.data, a.direction, metrics)
            found = evaluate(pipe, a.data, metrics=metrics)
            rows[name or model] = {metric: found.get(f"{metric}_{a.direction}", found[metric]) for metric in metrics}
        if a.picture:
            write(a.picture, Picture(picture(pipes, a.data, a.direction, a.columns)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"benchmark_translation: {error}\n")
    print(json.dumps(rows, indent=2) if a.json else table(rows, metrics))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
