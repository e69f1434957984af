"""Train a small classifier on labelled real images: the judge of conditional systems, and the baselines of adaptation.

For example: python tools/train_classifier.py --data digits --name digits
Source-only: python tools/train_classifier.py --data digits --validation digits_m/validation --channels 3
Of two domains: python tools/train_classifier.py --data pairs/train/A pairs/train/B --validation pairs/validation/B
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img import checkpoint
from img2img.data.labelled import Labelled
from img2img.networks.classifier import Classifier
from img2img.recipe import root


def whole(data: Labelled) -> tuple[Tensor, Tensor]:
    """Return all images of a set, uint8 (N, C, H, W), and their classes (N,)."""
    pixels = np.stack(list(data.images))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), data.labels


def together(sets: list[Labelled]) -> tuple[Tensor, Tensor]:
    """Return the images and classes of several sets as those of one.

    Raises:
        ValueError: sets of other classes.
    """
    if any(each.names != sets[0].names for each in sets):
        raise ValueError(f"the folders hold other classes: {' / '.join(', '.join(each.names) for each in sets)}")
    images, labels = zip(*map(whole, sets), strict=True)
    return torch.cat(images), torch.cat(labels)


def signed(images: Tensor) -> Tensor:
    """Return uint8 images in [-1, 1]."""
    return images.float() / 127.5 - 1


def train(images: Tensor, labels: Tensor, *, width: int = 24, epochs: int = 3, seed: int = 0) -> Classifier:
    """Return a classifier of uint8 images (N, C, H, W): Adam, one cycle of its rate (https://arxiv.org/abs/1708.07120)."""
    torch.manual_seed(seed)
    network = Classifier(int(labels.max()) + 1, images.shape[1], width).to(memory_format=torch.channels_last)
    batch, rate = 128, 5e-3
    steps = -(-len(images) // batch) * epochs
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=1e-5)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for places in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            given = signed(images[places]).contiguous(memory_format=torch.channels_last)
            F.cross_entropy(network(given), labels[places]).backward()
            optimizer.step()
            plan.step()
    return network.eval().requires_grad_(False)


def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images that the classifier reads right."""
    read = torch.cat([network(signed(part)).argmax(1) for part in images.split(1000)])
    return float((read == labels).double().mean())


def publish(network: Classifier, name: str, size: int, facts: dict, shelf: Path) -> dict:
    """Write the classifier and its card into the shelf; return the card."""
    options = {
        "classes": network.head.out_features,
        "channels": network.layers[0].in_channels,
        "width": network.layers[0].out_channels,
        "hidden": network.head.in_features,
    }
    return shelve(network, name, {"network": options, "size": size}, facts, shelf)


def shelve(network: nn.Module, name: str, recipe: dict, facts: dict, shelf: Path) -> dict:
    """Write a network in half precision, what it is built by, and its card in the shelf's manifest; return the card."""
    halves = {key: v.half() if v.is_floating_point() else v for key, v in network.state_dict().items()}
    target = shelf / f"{name}.safetensors"
    checkpoint.save(target, halves, {"recipe": recipe, "name": name, **facts})
    body = target.read_bytes()
    card = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body), **facts}
    manifest = shelf / "manifest.json"
    cards = json.loads(manifest.read_text()) if manifest.is_file() else {}
    with checkpoint.atomic(manifest) as temporary:
        temporary.write_text(json.dumps(dict(sorted((cards | {name: card}).items())), indent=2) + "\n")
    return card


def learn(a: argparse.Namespace) -> dict:
    """Train as the command line says, put the classifier on the shelf where it has a name, and return its facts.

    Raises:
        ValueError: a folder without classes, or folders of other classes.
    """
    folders = [each / "train" if (each / "train").is_dir() else each for each in a.data]
    learnt = [Labelled(folder, a.size, a.channels) for folder in folders]
    names = learnt[0].names
    held = a.validation or [each / "validation" for each in a.data]
    judged = together([Labelled(folder, a.size, a.channels, classes=len(names)) for folder in held])
    start = time.perf_counter()
    network = train(*together(learnt), width=a.width, epochs=a.epochs, seed=a.seed)
    facts = {
        "data": " ".join(
            "/".join(each.parts[-3:]) if each == part else each.name for each, part in zip(a.data, folders, strict=True)
        ),
        "classes": names,
        "accuracy": round(accuracy(network, *judged), 4),
        "images": len(judged[1]),
        "epochs": a.epochs,
        "seed": a.seed,
    }
    seconds = round(time.perf_counter() - start, 1)
    if a.name:
        facts = publish(network, a.name, a.size, facts, a.shelf)
    return facts | {"seconds": seconds}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, nargs="+", type=Path, help="folders with train/ and validation/, or of train's classes"
    )
    parser.add_argument(
        "--validation", nargs="+", type=Path, help="labelled folders to measure on; default: validation/ of --data"
    )
    parser.add_argument("--name", help="put it on the shelf under this name; default: only measure")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels (default 28)")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shelf", type=Path, default=root("weights") / "classifiers")
    a = parser.parse_args()
    try:
        print(json.dumps(learn(a)))
    except (ValueError, OSError) as error:
        parser.exit(1, f"train_classifier: {error}\n")


if __name__ == "__main__":
    main()
