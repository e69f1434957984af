"""Measure how often the image that belongs to a drawing is found among many: recall at 1 and 10, and what chance gives.

By the features of a discriminator that has learnt of drawings, and by pixels. For example, after
img2img prepare --from data/outlines --make soft_edges -o data/outlines_soft_edges
python tools/measure_retrieval.py data/outlines_soft_edges/validation/A/A data/outlines_soft_edges/validation/A/B \
    --run runs/sketch
"""

import argparse
import json
from pathlib import Path

import torch
from linear_svm import features, trained
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from img2img.data.images import Images, files_in, signed


def partners(queries: Path, gallery: Path, size: int, channels: int) -> tuple[Tensor, Tensor]:
    """Return the images of two folders, (N, C, size, size) in [-1, 1] each, partners in the same place.

    Raises:
        ValueError: images of one have no partner of that name in the other, or cannot be read.
    """
    names = [[path.relative_to(folder).with_suffix("") for path in files_in(folder)] for folder in (queries, gallery)]
    if names[0] != names[1]:
        alone = sorted(set(names[0]) ^ set(names[1]))
        raise ValueError(f"{queries} and {gallery}: {alone[0] if alone else names[0][0]} has no partner of that name")
    found = [Images(folder, size, channels).images for folder in (queries, gallery)]
    if min(map(len, found)) < len(names[0]):
        raise ValueError(f"{queries} and {gallery}: remove what cannot be read, with its partner")
    return tuple(torch.stack([signed(image) for image in each]) for each in found)


def moved(images: Tensor, shift: float, turn: float, grow: float, seed: int = 0) -> Tensor:
    """Return images (N, C, H, W) in [-1, 1], each shifted, turned and grown by chance on white.

    Args:
        images: (N, C, H, W) in [-1, 1].
        shift: most pixels, either way along both axes.
        turn: most degrees, either way.
        grow: most change of the scale, either way: 0.1 for 0.9 to 1.1.
        seed: of the chance.
    """
    drawn = torch.rand(len(images), 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    options = {"shear": [0.0], "interpolation": InterpolationMode.BILINEAR}
    changes = [
        {"translate": [round(shift * x), round(shift * y)], "angle": turn * angle, "scale": 1 + grow * scale}
        for x, y, angle, scale in drawn.tolist()
    ]
    # What is filled in bleeds into the border unless it is zero.
    ink = [affine(1 - image, **change, **options) for image, change in zip(images, changes, strict=True)]
    return 1 - torch.stack(ink)


def recalls(queries: Tensor, gallery: Tensor, most: tuple[int, ...] = (1, 10)) -> dict[str, float]:
    """Return the share of queries (N, F) whose own row of a gallery (N, F) is among the nearest by angle.

    A row that is as near as the own one counts as nearer.
    """
    near = normalize(queries.double()) @ normalize(gallery.double()).T
    ranks = (near >= near.diag()[:, None] - 1e-12).sum(1)
    return {f"recall@{count}": round(float((ranks <= count).double().mean()), 4) for count in most}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queries", type=Path, help="folder of drawings")
    parser.add_argument("gallery", type=Path, help="folder of images to find, each of the name of its drawing")
    parser.add_argument("--run", type=Path, help="run folder or checkpoint whose discriminator compares, too")
    parser.add_argument("--role", default="discriminator", help="the network that compares (default discriminator)")
    parser.add_argument("--shift", type=float, default=0, help="move each drawing by up to so many pixels")
    parser.add_argument("--turn", type=float, default=0, help="and turn it by up to so many degrees")
    parser.add_argument("--grow", type=float, default=0, help="and scale it by up to this share more or less")
    parser.add_argument("--seed", type=int, default=0, help="of these changes")
    parser.add_argument("--size", type=int, default=64, help="side of the images without a run (default 64)")
    a = parser.parse_args()
    try:
        network, size, channels = trained(a.run, a.role) if a.run else (None, a.size, 3)
        queries, gallery = partners(a.queries, a.gallery, size, channels)
        queries = moved(queries, a.shift, a.turn, a.grow, a.seed) if a.shift or a.turn or a.grow else queries
        count = len(queries)
        table = {"images": count, "chance": {f"recall@{most}": round(min(1, most / count), 4) for most in (1, 10)}}
        # Of white paper nothing is left, so that the angle between two drawings is that between their lines.
        table["pixels"] = recalls(1 - queries.flatten(1), 1 - gallery.flatten(1))
        if network:
            table[a.role] = recalls(features(network, queries), features(network, gallery))
    except (ValueError, OSError) as error:
        parser.exit(1, f"measure_retrieval: {error}\n")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
