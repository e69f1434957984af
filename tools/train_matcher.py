"""Train a small matcher of images and captions on real ones alone: the judge of text to image.

For example: python tools/train_matcher.py --data emoji --name matcher.emoji
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from train_classifier import shelve

from img2img.adversarial.augment import DiffAugment
from img2img.data.captioned import Captioned, pieces
from img2img.metrics.captions import CaptionAccuracy
from img2img.networks.matcher import Matcher
from img2img.networks.text_encoder import sentence
from img2img.recipe import root

SHARPNESS = 14.0
"""What likeness is multiplied by before the softmax."""


def train(
    sets: list[Captioned], *, width: int = 24, epochs: int = 60, seed: int = 0, sentences: bool = False
) -> Matcher:
    """Return a matcher of the images of some sets: each finds its caption among those of the batch, and the other way.

    Radford et al. 2021 (https://arxiv.org/abs/2103.00020), figure 3. An epoch shows one image of each name, so that no
    two captions of a batch belong to one image.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network, augment = Matcher(width=width, size=sets[0].size, sentences=sentences), DiffAugment()
    named: dict[str, list[tuple[Captioned, int]]] = {}
    for images in sets:
        for index, name in enumerate(images.names):
            named.setdefault(name, []).append((images, index))
    choices, batch, rate = list(named.values()), 128, 3e-3
    steps = -(-len(choices) // batch) * epochs
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for places in torch.from_numpy(rng.permutation(len(choices))).split(batch):
            chosen = [choices[place][int(rng.integers(len(choices[place])))] for place in places]
            items = [images.item(index, rng) for images, index in chosen]
            given = augment(torch.stack([item["real"] for item in items])) / 2 + 0.5
            captions = network.captions(torch.stack([item["read"] for item in items]))
            table = network.images(given) @ captions.T * SHARPNESS
            own = torch.arange(len(table))
            optimizer.zero_grad(set_to_none=True)
            (F.cross_entropy(table, own) + F.cross_entropy(table.T, own)).backward()
            optimizer.step()
            plan.step()
    return network.eval().requires_grad_(False)


def accuracy(network: Matcher, images: Captioned, seed: int = 0) -> float:
    """Return how often the right name of ten is found for real images."""
    metric, rng = CaptionAccuracy(network=network), np.random.default_rng(seed)
    items = [images.item(index, rng) for index in range(len(images))]
    real, text = (torch.stack([item[key] for item in items]) for key in ("real", "read"))
    metric.update(real / 2 + 0.5, text)
    return round(metric.compute(), 4)


def learn(a: argparse.Namespace) -> dict:
    """Train as the command line says, put the matcher on the shelf where it has a name, and return its facts.

    Raises:
        ValueError: a folder without captioned images for training and validation.
    """
    for part in ("train", "validation"):
        if not (a.data / part / "captions.csv").is_file():
            raise ValueError(
                f"{a.data}: has no {part}/captions.csv; give a folder with train/ and validation/, each of which holds "
                "images and captions.csv (file,name)"
            )
    read = sentence if a.sentences else pieces

    def sets(part: str, **options: bool) -> list[Captioned]:
        return [Captioned(a.data / part, a.size, read=read, boxes=boxes, **options) for boxes in (False, True)]

    start = time.perf_counter()
    learnt, held = sets("train"), sets("validation", validation=True)
    settings = {"width": a.width, "epochs": a.epochs, "seed": a.seed, "sentences": a.sentences}
    twin = train(learnt, **settings)
    facts = {
        "data": a.data.name,
        "accuracy": accuracy(twin, held[0]),
        "accuracy_in_boxes": accuracy(twin, held[1]),
        "images": len(held[0]),
    }
    if a.name:
        # It judges drawings of held-out names, which it had better know; the figures are those of a twin that does not.
        network = train([*learnt, *sets("validation")], **settings)
        facts |= {"learnt_from": "train and validation; accuracies are of a twin that learnt from train alone"}
        facts |= {"accuracy_known": accuracy(network, held[0]), "accuracy_in_boxes_known": accuracy(network, held[1])}
        facts = shelve(network, a.name, {"network": network.options}, facts | settings, a.shelf)
    return facts | {"seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="captioned folder with train/ and validation/")
    parser.add_argument("--name", help="put it on the shelf under this name; default: only measure")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels (default 32)")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", action="store_true", help="have a pretrained network read captions; to measure")
    parser.add_argument("--shelf", type=Path, default=root("weights") / "classifiers")
    a = parser.parse_args()
    if a.sentences and a.name:
        parser.error("--sentences is for measuring: what validates reads captions in pieces; leave out --name")
    try:
        print(json.dumps(learn(a)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"train_matcher: {error}\n")


if __name__ == "__main__":
    main()
