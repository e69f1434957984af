"""Judge a generator with classes by what a classifier learns of its samples alone: read on real held-out images.

Ravuri & Vinyals 2019 (https://arxiv.org/abs/1905.10887), the classification accuracy score. Beside it stands what the
same classifier learns of as many real images: what samples lack in variety or truth costs accuracy. For example:
python tools/classifier_score.py biggan.fashion --data data/fashion
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from train_classifier import accuracy, train, whole

from img2img.data.labelled import Labelled
from img2img.pipeline import Pipeline, load


def samples(pipe: Pipeline, classes: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return ``count`` uint8 images of each class, (N, C, H, W), and their classes (N,)."""
    drawn = []
    for label in range(classes):
        asked = pipe.ask(label=label)
        drawn.append((asked.draw(asked.latents(count, seed * classes + label)) * 255).round().byte())
    return torch.cat(drawn), torch.arange(classes).repeat_interleave(count)


def measure(pipe: Pipeline, folder: Path, count: int, epochs: int, seed: int) -> dict[str, float]:
    """Return the accuracies on held-out images: learnt of samples, and of as many real images.

    Raises:
        ValueError: a generator without classes, or a folder without train/ and validation/ of its classes.
    """
    classes = getattr(pipe.system.generator, "classes", 0) if pipe.system is not None else 0
    if pipe.verb != "synthesize" or not classes:
        raise ValueError(f"{pipe.name} (task {pipe.task}): does not draw a class that it is asked for")
    data = pipe.recipe.data
    real, judged = (
        whole(Labelled(folder / part, data.size, data.channels, classes=classes)) for part in ("train", "validation")
    )
    made = samples(pipe, classes, count, seed)
    torch.manual_seed(seed)
    chosen = torch.randperm(len(real[1]))[: len(made[1])]
    learnt = {"samples": made, "real": tuple(each[chosen] for each in real)}
    found = {name: accuracy(train(*each, epochs=epochs, seed=seed), *judged) for name, each in learnt.items()}
    return {"images": len(made[1])} | {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="weight, run folder or file of a generator with classes")
    parser.add_argument(
        "--data", type=Path, required=True, help="its data, train/ and validation/ with a folder a class"
    )
    parser.add_argument("--count", type=int, default=1000, help="samples of each class (default 1000)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    try:
        print(json.dumps(measure(load(a.model, device="cpu", precision="fp32"), a.data, a.count, a.epochs, a.seed)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"classifier_score: {error}\n")


if __name__ == "__main__":
    main()
