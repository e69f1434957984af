"""Plot how the generator's gradient fares under its three costs while the discriminator learns against it.

The generator stands still on ring-8, fresh, and the discriminator of the page ``gan`` learns to tell its points from
real ones. Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661), section 3, give the first two costs; Arjovsky &
Bottou 2017 (https://arxiv.org/abs/1701.04862), figures 2 and 3, measure them so. ``python tools/plot_saturation.py``
draws models/saturation.png and prints the numbers.
"""

import argparse
from pathlib import Path
from typing import Any

COSTS = ("minimax", "logistic", "maximum_likelihood")
NAMES = {
    "minimax": "minimax, log(1 - D)",
    "logistic": "non-saturating, -log D",
    "maximum_likelihood": "maximum likelihood, -D / (1 - D)",
}


def gradients(generator: Any, discriminator: Any, z: Any) -> dict[str, float]:
    """Return the length of the generator's gradient under each cost, on latents z (N, latent)."""
    import torch

    from img2img.registry import part

    logits = discriminator(generator(z)).flatten()
    found = {}
    for name in COSTS:
        cost = part("adversarial", {"type": name}).generator(None, logits).mean()
        slopes = torch.autograd.grad(cost, list(generator.parameters()), retain_graph=True)
        found[name] = torch.cat([slope.flatten() for slope in slopes]).norm().item()
    return found


def measure(steps: int, every: int, seed: int, batch: int = 512) -> list[dict[str, float]]:
    """Return a row for every so many of the discriminator's steps: the gradients, and how often it is right."""
    import numpy as np
    import torch

    from img2img.data.toys import toy
    from img2img.recipe import read
    from img2img.registry import part
    from img2img.systems.system import build

    torch.manual_seed(seed)
    changes = {
        "data": {"toy": "ring-8", "size": 1, "channels": 2},
        "validate": {},
        "networks.generator": {"type": "mlp_generator", "latent": 32, "width": 128, "depth": 2, "bounded": False},
        "networks.discriminator": {"type": "mlp_discriminator", "width": 128, "depth": 2},
    }
    system, points = build(read("gan").override(changes)), toy("ring-8", [], 1)
    generator, discriminator, game = system.generator, system.discriminator, part("adversarial", {"type": "logistic"})
    judge = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    random, z, rows = np.random.default_rng(seed), torch.randn(4096, generator.latent), []
    for step in range(steps + 1):
        real = points.items(random.integers(len(points), size=batch), random)["real"]
        fake = generator(torch.randn(batch, generator.latent)).detach()
        scores = discriminator(real), discriminator(fake)
        if step % every == 0:
            right = torch.cat([scores[0] > 0, scores[1] < 0]).float().mean().item()
            rows.append({"step": step, "right": right} | gradients(generator, discriminator, z))
        judge.zero_grad()
        game.discriminator(*scores).mean().backward()
        judge.step()
    return rows


def table(rows: list[dict[str, float]]) -> str:
    """Return the rows as Markdown."""
    lines = [f"| discriminator's steps | it is right | {' | '.join(NAMES.values())} |"]
    lines.append("| ---: |" + " ---: |" * (1 + len(COSTS)))
    for row in rows:
        cells = " | ".join(f"{row[name]:.2e}" for name in COSTS)
        lines.append(f"| {row['step']} | {row['right']:.1%} | {cells} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Draw the gradients' lengths against the discriminator's steps as a PNG."""
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    # The third lies on the first once the discriminator is sure.
    for name, style in zip(COSTS, ("-", "-", "--"), strict=True):
        axes.semilogy([row["step"] for row in rows], [row[name] for row in rows], style, label=NAMES[name])
    axes.set(
        xlabel="steps of the discriminator, the generator standing still", ylabel="length of the generator's gradient"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shelf = Path(__file__).parent.parent / "models"
    parser.add_argument(
        "-o", "--out", type=Path, default=shelf / "saturation.png", help="the picture (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=1000, help="of the discriminator (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    rows = measure(a.steps, max(1, a.steps // 100), a.seed)
    draw(rows, a.out)
    print(table(rows[:: max(1, len(rows) // 10)]))


if __name__ == "__main__":
    main()
