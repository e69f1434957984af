"""Draw what a direction among latents does: samples of a generator, and the same with more and more of one class.

The direction sets the class apart among samples that a classifier reads, or among the latents of a labelled folder's
images. It is tried out on other samples. For example, for the seventh of the kinds of clothes, which count from 0:
python tools/draw_concepts.py runs/dcgan --network classifier.fashion --label 7 -o boots.png
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from img2img.data.labelled import Labelled
from img2img.data.stream import together
from img2img.imaging.picture import Picture, write
from img2img.inversion import concepts, invert
from img2img.metrics.distribution import embedding
from img2img.pipeline import Pipeline, load


def probability(network: str | nn.Module, images: Tensor) -> Tensor:
    """Return what a classifier gives each class for images (N, C, H, W) in [0, 1], (N, classes)."""
    return torch.cat([embedding(network).probabilities(part) for part in images.split(256)])


def direction(
    pipe: Pipeline,
    network: str | nn.Module,
    label: int,
    *,
    folder: Path | None = None,
    samples: int = 4000,
    steps: int = 200,
    seed: int = 0,
) -> Tensor:
    """Return the mean latent of a class minus that of the others, (latent,).

    Args:
        pipe: a generator of noise.
        network: a classifier, which reads the samples.
        label: the class, from 0.
        folder: with a folder a class, in place of samples: of its images the latents are the codes of the system's
            encoder, or else found by gradient descent.
        samples: latents to find it among.
        steps: of the descent.
        seed: of what is drawn.

    Raises:
        ValueError: samples or images are all of the class, or none is.
    """
    if folder is None:
        z = pipe.latents(samples, seed)
        labels = probability(network, pipe.draw(z)).argmax(1)
    else:
        data, (low, high) = pipe.recipe.data, pipe.span
        batches = list(together(Labelled(folder, data.size, data.channels), seed, samples))
        images, labels = (torch.cat([batch[name] for batch in batches]) for name in ("real", "label"))
        encode = getattr(pipe.system, "encode", None)
        with torch.inference_mode():
            z = encode(images) if encode else None
        z = invert(pipe, (images - low) / (high - low), steps=steps, seed=seed) if z is None else z
    has = labels == label
    if has.all() or not has.any():
        raise ValueError(
            f"class {label} is {'all' if has.all() else 'none'} of {len(z)} samples; choose another --label"
        )
    return concepts(z, has[:, None])[0]


def along(
    pipe: Pipeline, network: str | nn.Module, label: int, way: Tensor, multiples: list[float], *, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return samples on their way, (N, multiples, C, H, W), and the probability of the class in each, (N, multiples).

    Args:
        pipe: a generator of noise.
        network: a classifier, which reads the samples.
        label: the class, from 0.
        way: what `direction` found.
        multiples: of it that are added.
        count: samples that are drawn, of which those count that are read as another class.
        seed: of them, which should be another one than that of the direction.

    Raises:
        ValueError: all samples are of the class from the start.
    """
    z = pipe.latents(count, seed)
    z = z[probability(network, pipe.draw(z)).argmax(1) != label]
    if not len(z):
        raise ValueError(f"all {count} samples are of class {label} already; draw more, or choose another --label")
    moved = torch.stack([z + multiple * way for multiple in multiples], 1)
    images = pipe.draw(moved.flatten(0, 1))
    shape = (len(z), len(multiples))
    return images.unflatten(0, shape), probability(network, images)[:, label].unflatten(0, shape)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="weight, run folder or file of a generator of noise without classes")
    parser.add_argument("--network", default="classifier.digits", help="classifier (default classifier.digits)")
    parser.add_argument("--label", type=int, required=True, help="class to have more of, from 0")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="labelled images, whose latents count")
    parser.add_argument("--samples", type=int, default=4000, help="latents to find the direction among (default 4000)")
    parser.add_argument("--multiples", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2, 3], help="of the direction")
    parser.add_argument("--count", type=int, default=256, help="samples to try it out on (default 256)")
    parser.add_argument("--rows", type=int, default=8, help="of them that are drawn (default 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", required=True)
    a = parser.parse_args()
    try:
        pipe = load(a.model, device="cpu", precision="fp32")
        if getattr(pipe.network, "in_turn", False):
            raise ValueError(f"{a.model}: draws the class that it is asked for; use a generator without classes")
        way = direction(pipe, a.network, a.label, folder=a.data, samples=a.samples, seed=a.seed)
        images, read = along(pipe, a.network, a.label, way, a.multiples, count=a.count, seed=a.seed + 1)
    except (ValueError, OSError) as error:
        parser.exit(1, f"draw_concepts: {error}\n")
    sheet = make_grid(images[: a.rows].flatten(0, 1), nrow=len(a.multiples))
    write(a.out, Picture((sheet.permute(1, 2, 0) * 255).round().byte().numpy()))
    means = read.mean(0)
    facts = {"label": a.label, "samples": len(read), "multiples": a.multiples}
    facts |= {"probability": [round(float(mean), 4) for mean in means], "rises": bool((means.diff() > 0).all())}
    print(json.dumps(facts | {"length": round(float(way.norm()), 3)}))


if __name__ == "__main__":
    main()
