"""Plot what a discriminator pays against how good samples are, run by run: does its loss tell when to stop?

Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875), figures 3 and 4: a critic's loss falls as samples get better,
the loss of the first GANs says little. Each run was validated by the metric. For example:
python tools/plot_loss.py wgan=runs/wgan dcgan=runs/dcgan --metric "fid[classifier.fashion]" -o loss.png
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Track(NamedTuple):
    """A run validation by validation, each (V,): images seen, the discriminator's loss turned round, the metric.

    Turned round the loss is the distance of the two sets as the discriminator has it, up to a constant. It is the mean
    over what was logged since the validation before.
    """

    images: np.ndarray
    distance: np.ndarray
    metric: np.ndarray

    @property
    def correlation(self) -> float:
        """Spearman's: 1 where the distance falls whenever the metric falls."""
        from scipy.stats import spearmanr

        return float(spearmanr(self.distance, self.metric).statistic)


def track(run: Path, metric: str) -> Track:
    """Return what a run folder's log says.

    Raises:
        ValueError: no log, or fewer than three validations by this metric.
    """
    log = run / "log.jsonl"
    if not log.is_file():
        raise ValueError(f"{run}: no log.jsonl there; name the folder of a run")
    since: list[float] = []
    rows: list[tuple[float, float, float]] = []
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if "discriminator/adversarial" in line:
            since.append(line["discriminator/adversarial"])
        if since and f"validation/{metric}" in line:
            rows.append((line["images"], -float(np.mean(since)), line[f"validation/{metric}"]))
            since = []
    if len(rows) < 3:
        raise ValueError(
            f"{log}: {len(rows)} validations by {metric} with a discriminator's loss before; it takes three, see "
            "train.validate_images and validate.metrics"
        )
    return Track(*(np.array(column) for column in zip(*rows, strict=True)))


def draw(tracks: dict[str, Track], metric: str, path: Path) -> None:
    """Draw a panel a run, both curves against the images seen, as a PNG."""
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    figure = Figure(figsize=(4.2 * len(tracks), 3.4), layout="constrained")
    for place, (name, found) in enumerate(tracks.items()):
        axes = figure.add_subplot(1, len(tracks), place + 1)
        other = axes.twinx()
        lines = axes.plot(found.images, found.distance, color="tab:blue", label="distance by the discriminator's loss")
        lines += other.plot(found.images, found.metric, color="tab:orange", label=metric)
        axes.set(title=f"{name} (rank correlation {found.correlation:.2f})", xlabel="images seen")
        axes.tick_params(axis="y", colors="tab:blue")
        other.tick_params(axis="y", colors="tab:orange")
        axes.legend(handles=lines, fontsize=7, loc="upper right")
        axes.locator_params("x", nbins=4)
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="run folders under the names that they get")
    parser.add_argument("--metric", required=True, help="what the runs were validated by, lower is better")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the picture")
    a = parser.parse_args()
    try:
        given = [each.partition("=") for each in a.runs]
        if wrong := [name for name, sign, run in given if not (name and sign and run)]:
            raise ValueError(f"{wrong[0]!r} is not NAME=RUN, e.g. wgan=runs/wgan")
        tracks = {name: track(Path(run), a.metric) for name, _, run in given}
        draw(tracks, a.metric, a.out)
    except (ValueError, OSError) as error:
        parser.exit(1, f"plot_loss: {error}\n")
    for name, found in tracks.items():
        facts = {"run": name, "validations": len(found.images), "correlation": round(found.correlation, 3)}
        print(json.dumps(facts | {"first": float(found.metric[0]), "last": float(found.metric[-1])}))


if __name__ == "__main__":
    main()
