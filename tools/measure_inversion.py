"""Measure how near latents found by gradient descent bring a generator to samples and held-out images.

For example: python tools/measure_inversion.py runs/alice --data data/digits/validation
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from img2img.data.images import Images
from img2img.data.stream import together
from img2img.inversion import invert
from img2img.pipeline import Pipeline, load


def errors(pipe: Pipeline, images: Tensor, steps: int, seed: int = 0) -> dict[str, float]:
    """Return the mean absolute error of images that were found again, by where the search started.

    Args:
        pipe: a generator; with an encoder in its system, its codes count too: as they are, and as a start.
        images: (N, C, H, W) in [0, 1].
        steps: of the descent.
        seed: of the starts that are drawn.
    """
    low, high = pipe.span
    found = {"drawn": invert(pipe, images, steps=steps, seed=seed)}
    if hasattr(pipe.system, "encode"):
        with torch.inference_mode():
            codes = pipe.system.encode(images * (high - low) + low)
        found |= {"encoder alone": codes, "encoder": invert(pipe, images, start=codes, steps=steps, seed=seed)}
    return {name: round(float((pipe.draw(z) - images).abs().mean()), 4) for name, z in found.items()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder or checkpoint of a generator of noise")
    parser.add_argument("--data", required=True, type=Path, help="folder of images that it has not seen")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    try:
        pipe = load(a.run, device="cpu", precision="fp32")
        data = pipe.recipe.data
        batches = together(Images(a.data, data.size, data.channels, flip=False), a.seed, a.images)
        held = torch.cat([batch["real"] for batch in batches]) / 2 + 0.5
        # Another seed than the search starts from, which would begin where it is to end.
        samples = pipe.draw(pipe.latents(len(held), a.seed + 1))
        found = {name: errors(pipe, each, a.steps, a.seed) for name, each in (("samples", samples), ("held out", held))}
    except (ValueError, OSError) as error:
        parser.exit(1, f"measure_inversion: {error}\n")
    print(json.dumps({"images": len(held), "steps": a.steps} | found))


if __name__ == "__main__":
    main()
