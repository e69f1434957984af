"""Test whether the codes of real images follow the prior that a generator draws from: a kernel two-sample test.

For example: python tools/compare_latents.py runs/aae --data data/digits/validation. One draw from the prior may be an
unlucky one, so the codes are compared with ten: where they do follow it, one in twenty is rejected at 5 %.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from img2img.data.stream import together
from img2img.recipe import locate
from img2img.systems.system import System, restore


def two_sample(x: Tensor, y: Tensor, permutations: int = 500, seed: int = 0) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of two sets, and how probable one as large is where they are alike.

    Gretton et al. 2012 (https://jmlr.org/papers/v13/gretton12a.html), the biased estimate of equation 5, with a
    Gaussian kernel whose width is the median distance; its distribution by permuting the two sets.

    Args:
        x: (N, D).
        y: as many, (N, D).
        permutations: how many; 1 / (1 + permutations) is the smallest probability.
        seed: of the permutations.
    """
    both = torch.cat([x, y]).double()
    square = torch.cdist(both, both).square()
    width = square[torch.triu(torch.ones_like(square), 1) > 0].median()
    kernel = (-square / width).exp()
    generator = torch.Generator().manual_seed(seed)
    sides = torch.cat([torch.ones(len(x)), -torch.ones(len(y))]).double()
    orders = [torch.arange(len(both))] + [torch.randperm(len(both), generator=generator) for _ in range(permutations)]
    signs = torch.stack([sides[order] for order in orders]) / len(x)
    found = ((signs @ kernel) * signs).sum(1)
    return float(found[0]), float((found >= found[0]).double().mean())


@torch.inference_mode()
def codes(system: System, folder: Path, count: int, seed: int = 0) -> Tensor:
    """Return codes (N, latent) of evenly spread images of a folder, drawn where the encoder is stochastic."""
    torch.manual_seed(seed)
    source = system.source([folder])
    return torch.cat([system.encode(batch["real"], draw=True) for batch in together(source, seed, count)])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder or checkpoint of a system with an encoder")
    parser.add_argument("--data", required=True, type=Path, help="folder of images, best held out")
    parser.add_argument("--images", type=int, default=1000, help="in each set (default 1000)")
    parser.add_argument("--draws", type=int, default=10, help="sets from the prior to compare with (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.images < 2 or a.draws < 1:
        parser.error("--images must be at least 2, --draws at least 1")
    try:
        system = restore(str(locate(a.run, weights=True)))
        if not hasattr(system, "encode"):
            raise ValueError(f"{a.run}: the task {system.recipe.task} has no encoder")
        found = codes(system, a.data, a.images, a.seed)
    except (ValueError, OSError) as error:
        parser.exit(1, f"compare_latents: {error}\n")
    tests = []
    for seed in range(a.seed, a.seed + a.draws):
        torch.manual_seed(seed)
        tests.append(two_sample(found, system.latents(len(found), found.device), seed=seed))
    distances, probabilities = torch.tensor(tests).T
    deviations = found.std(0)
    print(
        json.dumps(
            {
                "images": len(found),
                "distance": round(float(distances.mean()), 5),
                "p": round(float(probabilities.quantile(0.5)), 4),
                "rejected": round(float((probabilities < 0.05).double().mean()), 3),
                "largest_mean": round(float(found.mean(0).abs().max()), 3),
                "deviations": [round(float(deviations.min()), 3), round(float(deviations.max()), 3)],
            }
        )
    )


if __name__ == "__main__":
    main()
