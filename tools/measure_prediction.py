"""Judge predicted frames on held-out clips, frame by frame: the last frame seen, black ones, and each model.

For example: python tools/measure_prediction.py gaze=runs/gaze --data data/moving_digits/validation --picture clips.png
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import img2img
from img2img.data.pairs import Pairs
from img2img.data.stream import together
from img2img.evaluation import metric
from img2img.imaging.picture import Picture, write

METRICS = ("l1", "psnr")
COPY, BLACK = "the last frame seen", "black frames"


def judged(output: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """Return each metric of each frame, by its number, and of all: (N, T, H, W) in [0, 1] against the truth."""
    frames = {str(place + 1): slice(place, place + 1) for place in range(output.shape[1])} | {"all": slice(None)}
    found: dict[str, dict[str, float]] = {}
    for name in METRICS:
        for frame, part in frames.items():
            mean = metric(name)
            mean.update(output[:, part], target[:, part])
            found.setdefault(name, {})[frame] = mean.compute()
    return found


def picture(seen: Tensor, rows: list[Tensor], count: int) -> np.ndarray:
    """Return uint8 (H, W, 1): of ``count`` evenly spread clips the frames of ``seen``, then those of each of ``rows``.

    A clip is a line; a grey bar stands before each of ``rows``, all (N, T, H, W) in [0, 1].
    """
    places = np.linspace(0, len(seen) - 1, min(count, len(seen))).round().astype(int)
    bar = torch.full((len(places) * seen.shape[2], 2), 0.5)
    parts = [part[places].permute(0, 2, 1, 3).reshape(len(bar), -1) for part in (seen, *rows)]
    whole = torch.cat([strip for part in parts for strip in (bar, part)][1:], 1)
    return (whole * 255).round().byte().numpy()[..., None]


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the results as a table in Markdown."""
    columns = [(name, frame) for name in METRICS for frame in rows[COPY][name]]
    lines = ["|  | " + " | ".join(f"{name} {frame}" for name, frame in columns) + " |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for row, found in rows.items():
        lines.append(f"| {row} | " + " | ".join(f"{found[name][frame]:.4g}" for name, frame in columns) + " |")
    return "\n".join(lines)


@torch.inference_mode()
def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="weights, run folders or files; NAME=MODEL names a row")
    parser.add_argument("--data", type=Path, required=True, help="held-out clips: frames seen in A/, the next in B/")
    parser.add_argument("--picture", type=Path, help="draw clips into this file: seen, what each model predicts, truth")
    parser.add_argument("--clips", type=int, default=8, help="clips drawn (default 8)")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    outputs: dict[str, Tensor] = {}
    first = None
    try:
        for text in a.models:
            name, _, model = text.rpartition("=")
            pipe = img2img.load(model, precision="fp32")
            if pipe.task != "paired":
                raise ValueError(f"{model} learns from no pairs (task {pipe.task}); see: img2img models")
            data, system = pipe.recipe.data, pipe.placed()
            shape = (data.size, data.input_channels or data.channels, data.channels, data.direction)
            if first is None:
                first = shape
                clips = Pairs(a.data, data.size, data.channels, input_channels=shape[1], direction=data.direction)
                batches = list(together(clips, seed=0))
                seen, target = (torch.cat([batch[side] for batch in batches]) / 2 + 0.5 for side in ("input", "target"))
                outputs |= {COPY: seen[:, -1:].expand_as(target), BLACK: torch.zeros_like(target)}
            if shape != first:
                raise ValueError(f"{model} sees and predicts other frames than the first model; judge it apart")
            made = [system.infer(batch["input"].to(pipe.device)).cpu() / 2 + 0.5 for batch in batches]
            outputs[name or model] = (torch.cat(made) * 255).round() / 255
        if a.picture:
            drawn = [output for row, output in outputs.items() if row not in (COPY, BLACK)]
            write(a.picture, Picture(picture(seen, [*drawn, target], a.clips)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"measure_prediction: {error}\n")
    rows = {row: judged(output, target) for row, output in outputs.items()}
    print(json.dumps(rows, indent=2) if a.json else table(rows))


if __name__ == "__main__":
    main()
