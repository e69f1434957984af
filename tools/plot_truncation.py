"""Plot what truncating a generator's latents trades: precision against recall, threshold by threshold.

For example: python tools/plot_truncation.py biggan.fashion --data data/fashion/validation
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from img2img.data.stream import together
from img2img.evaluation import metric
from img2img.pipeline import Pipeline, load

METRICS = ("precision", "recall", "density", "coverage", "fid")
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def measure(
    pipe: Pipeline, folder: Path, thresholds: tuple[float, ...], *, images: int, network: str, seed: int = 0
) -> list[dict[str, float]]:
    """Return a row of metrics for each threshold, and a last one for latents as they are.

    Args:
        pipe: a generator of noise, or of classes, which come in turn.
        folder: real images that it was not trained on.
        thresholds: as `img2img.pipeline.Pipeline.draw` takes them; for a generator of styles, factors.
        images: how many are drawn, and at most compared with.
        network: whose features judge.
        seed: of the latents, which are the same for all rows.

    Raises:
        ValueError: a model that does not draw one image of each latent, or no real images in the folder.
    """
    # CoGAN draws two images of a latent, and its data have two sides.
    if pipe.verb != "synthesize" or pipe.system.layout == "unpaired":
        raise ValueError(
            f"{pipe.name} (task {pipe.task}) does not draw one image of each latent; "
            "name a generator of noise or of classes"
        )
    source = pipe.system.source([folder], validation=True)
    real = torch.cat([batch["real"] for batch in together(source, seed, images)]) / 2 + 0.5
    judges = {name: metric(f"{name}[{network}]") for name in METRICS}
    for judge in judges.values():
        judge.know(real)
    latents, rows = pipe.latents(images, seed), []
    for threshold in tqdm([*thresholds, None], unit="threshold", disable=None):
        drawn = pipe.draw(latents, truncation=threshold)
        row = {"threshold": float("inf") if threshold is None else threshold}
        for name, judge in judges.items():
            judge.reset()
            judge.update(drawn)
            row[name] = float(judge.compute())
        rows.append(row)
    return rows


def name_of(row: dict[str, float]) -> str:
    """Return a row's threshold in words."""
    return "none" if row["threshold"] == float("inf") else f"{row['threshold']:g}"


def table(rows: list[dict[str, float]]) -> str:
    """Return the rows as Markdown."""
    lines = [f"| threshold | {' | '.join(METRICS)} |", "| ---: |" + " ---: |" * len(METRICS)]
    for row in rows:
        lines.append(f"| {name_of(row)} | {' | '.join(f'{row[name]:.3g}' for name in METRICS)} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Draw precision against recall, and density against coverage, as a PNG."""
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, (across, up) in zip(
        figure.subplots(1, 2), (("recall", "precision"), ("coverage", "density")), strict=True
    ):
        axes.plot([row[across] for row in rows], [row[up] for row in rows], "o-")
        for row in rows:
            axes.annotate(name_of(row), (row[across], row[up]), textcoords="offset points", xytext=(4, 4), fontsize=8)
        axes.set(xlabel=across, ylabel=up)
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shelf = Path(__file__).parent.parent / "models"
    parser.add_argument("model", help="weight, run folder or file of a generator of noise or classes")
    parser.add_argument("--data", type=Path, required=True, help="real images that it was not trained on")
    parser.add_argument("-o", "--out", type=Path, default=shelf / "truncation.png", help="(default %(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="drawn for each threshold (default 2000)")
    parser.add_argument("--network", default="classifier.fashion", help="the judge (default %(default)s)")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    try:
        pipe = load(a.model, device="cpu", precision="fp32")
        rows = measure(pipe, a.data, tuple(a.thresholds), images=a.images, network=a.network, seed=a.seed)
        plot(rows, a.out)
    except (ValueError, OSError) as error:
        parser.exit(1, f"plot_truncation: {error}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
