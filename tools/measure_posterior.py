"""Measure how near learnt posteriors come to a true one that can be computed: avb's, and a Gaussian autoencoder's.

The likelihood is known: x is the length of a vector of two latents, which are normal, with noise. Its posteriors are
rings, which no Gaussian is. Mescheder et al. 2017 (https://arxiv.org/abs/1701.04722) compare theirs with a true one in
section 6.1, too. For example: python tools/measure_posterior.py -o posterior.png
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from img2img.recipe import Recipe, read
from img2img.systems.system import System, build

NOISE = 0.5
"""Standard deviation of x, given the latents."""

SHOWN = (0.5, 1.5, 2.5)
"""Values of x whose posteriors are compared."""

EXTENT, CELLS = 4.0, 48
"""The grid: latents in [-EXTENT, EXTENT], cells a side."""

DRAWS = 100_000
"""Codes a posterior."""


class Length(nn.Module):
    """The known decoder: latents (N, 2) to the mean of x (N, 1, 1, 1), their length."""

    latent = 2

    def forward(self, z: Tensor) -> Tensor:
        """Return the mean of x."""
        return z.norm(dim=1)[:, None, None, None]


def pages() -> dict[str, Recipe]:
    """Return the page avb on this toy, and the same with a Gaussian encoder and the formula in place of the game."""
    sizes = {"width": 64, "hidden": 64}
    toy = {
        "networks": {
            "generator": {"type": "mlp_generator", "latent": 2, "bounded": False},  # where `Length` will stand
            "encoder": {"type": "implicit_encoder", **sizes},
            "discriminator": {"type": "joint_discriminator", **sizes},
        },
        "schedule": {"discriminator": 2, "generator": 1},
        "optimizer": {"lr": 5e-4, "betas": [0.5, 0.999], "discriminator": {"lr": 2e-3}},
        "fidelity": [{"type": "mse", "weight": 1 / (2 * NOISE**2)}],
        "data.size": 1,
        "data.channels": 1,
    }
    plain = toy | {
        "networks": {
            "generator": toy["networks"]["generator"],
            "encoder": {"type": "encoder", "width": 64, "stochastic": True},
        },
        "schedule": {"generator": 1},
        "optimizer": {"lr": 3e-3, "betas": [0.5, 0.999]},
        "adversarial": None,
    }
    return {"gaussian": read("avb").override(plain), "avb": read("avb").override(toy)}


def learn(page: Recipe, steps: int, seed: int, batch: int = 256) -> System:
    """Return the system of a page after so many steps on draws of x, at rates that fall to 0 over the second half."""
    torch.manual_seed(seed)
    system = build(page)
    system.generator = Length()
    plans = {phase: page.optimizer_for(phase) for phase in page.schedule}
    learners = {"generator": "encoder", "discriminator": "discriminator"}
    optimizers = {
        phase: torch.optim.Adam(getattr(system, learners[phase]).parameters(), plan.lr, plan.betas)
        for phase, plan in plans.items()
    }
    for step in range(steps):
        for phase, repeats in page.schedule.items():
            for role in learners.values():
                if role in page.networks:
                    getattr(system, role).requires_grad_(role == learners[phase])
            optimizers[phase].param_groups[0]["lr"] = plans[phase].lr * min(1, 2 * (1 - step / steps))
            for _ in range(repeats):
                x = system.generator(torch.randn(batch, 2))
                x = x + NOISE * torch.randn_like(x)
                optimizers[phase].zero_grad()
                sum(term.mean() for term in system.losses(phase, {"real": x}, step).values()).backward()
                optimizers[phase].step()
    return system.eval().requires_grad_(False)


def truth(x: float, finer: int = 8) -> Tensor:
    """Return the posterior's share of each cell (CELLS, CELLS), by Bayes' rule at ``finer`` squared places of each."""
    line = ((torch.arange(CELLS * finer, dtype=torch.float64) + 0.5) / (CELLS * finer) * 2 - 1) * EXTENT
    length = torch.hypot(line[:, None], line[None])
    log = -length.square() / 2 - (x - length).square() / (2 * NOISE**2)
    shares = log.exp().unflatten(0, (CELLS, finer)).unflatten(2, (CELLS, finer)).sum((1, 3))
    return shares / shares.sum()


def histogram(codes: Tensor) -> Tensor:
    """Return the share of codes (N, 2) in each cell (CELLS, CELLS); what is outside counts at the border."""
    places = ((codes.double() / EXTENT + 1) / 2 * CELLS).long().clamp(0, CELLS - 1)
    return torch.bincount(places @ torch.tensor([CELLS, 1]), minlength=CELLS**2).view(CELLS, CELLS) / len(codes)


def posteriors(system: System) -> list[Tensor]:
    """Return the histogram of a system's codes for each x of ``SHOWN``."""
    return [histogram(system.encode(torch.full((DRAWS, 1, 1, 1), x), draw=True)) for x in SHOWN]


def distances(found: list[Tensor], true: list[Tensor]) -> dict[str, float]:
    """Return the mean KL(found || true) in nats, which the bound on the likelihood lacks, and total variation."""
    pairs = [(each.double(), other) for each, other in zip(found, true, strict=True)]
    divergences = [torch.xlogy(q, q / p).sum() for q, p in pairs]
    variations = [(q - p).abs().sum() / 2 for q, p in pairs]
    return {
        "kl": round(float(sum(divergences)) / len(pairs), 3),
        "total_variation": round(float(sum(variations)) / len(pairs), 3),
    }


def draw(columns: dict[str, list[Tensor]], path: Path) -> None:
    """Draw the densities (CELLS, CELLS) of each column, a row a value of x, as a PNG."""
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    figure = Figure(figsize=(2.2 * len(columns), 2.2 * len(SHOWN)), layout="constrained")
    for place, (name, densities) in enumerate(columns.items()):
        for row, (x, density) in enumerate(zip(SHOWN, densities, strict=True)):
            axes = figure.add_subplot(len(SHOWN), len(columns), row * len(columns) + place + 1)
            limit = float(columns["truth"][row].max())  # of all alike
            axes.imshow(density.T.numpy(), origin="lower", cmap="magma", vmin=0, vmax=limit, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if not row:
                axes.set_title(name)
            if not place:
                axes.set_ylabel(f"x = {x:g}")
    save_figure(figure, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, help="a picture of the posteriors of the first seed")
    parser.add_argument("--steps", type=int, default=2000, help="of the encoders, each side's (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default %(default)s)")
    a = parser.parse_args()
    if a.steps < 1 or a.seeds < 1:
        parser.error("--steps and --seeds must be at least 1")
    if a.out and not a.out.parent.is_dir():
        parser.exit(1, f"measure_posterior: {a.out.parent}: no such folder\n")
    columns = {"truth": [truth(x) for x in SHOWN]}
    report = {}
    for name, page in pages().items():
        found = [posteriors(learn(page, a.steps, seed)) for seed in range(a.seeds)]
        columns[name] = found[0]
        report[name] = [distances(each, columns["truth"]) for each in found]
    if a.out:
        draw(columns, a.out)
    print(json.dumps({"steps": a.steps} | report))


if __name__ == "__main__":
    main()
