"""Train the pages of a section of models/scoreboards over seeds, and put what came out into one table and two pictures.

``python tools/scoreboard.py ring-8 -o runs/ring-8 --jobs 2``: the same command goes on where it was stopped.
"""

import argparse
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from img2img.recipe import Recipe, read, root


def section(name: str) -> dict[str, Any]:
    """Return a section's page by its name or file.

    Raises:
        ValueError: there is none of that name.
    """
    path = Path(name) if Path(name).is_file() else root("models") / "scoreboards" / f"{name}.toml"
    if not path.is_file():
        known = sorted(each.stem for each in (root("models") / "scoreboards").glob("*.toml"))
        raise ValueError(f"no section {name!r}; known: {', '.join(known)}")
    return {"set": {}, "name": path.stem} | tomllib.loads(path.read_text(encoding="utf-8"))


def recipe_of(board: dict[str, Any], run: dict[str, Any]) -> Recipe:
    """Return a run's page with what the section says for all pages, and for this one."""
    changes = board["set"] | {"train.images": board["images"]}
    # Where a network is replaced, all that its page said of it goes; a run's own keys come last.
    return read(run["page"]).override(changes).override(run.get("set", {}))


def label(run: dict[str, Any]) -> str:
    """Return what a run is called in the table."""
    return run.get("name", run["page"])


def train_one(recipe: Recipe, data: list[Path] | None, out: Path, seed: int) -> dict[str, Any]:
    """Train a page, or go on with it; return its last validation and the seconds of all sittings.

    A page whose rate decays starts anew, its folder is removed, where it was run for another number of images.

    Raises:
        ValueError: the folder holds a run of another game, or there was nothing to validate on.
    """
    import torch

    import img2img
    from img2img.trainer import Diverged

    target, wanted = out / "result.json", recipe.toml()
    page, clock = out.parent / f"{out.name}.toml", out / "seconds.json"
    if target.is_file() and page.is_file() and page.read_text(encoding="utf-8") == wanted:
        return json.loads(target.read_text(encoding="utf-8"))
    # Another budget goes on with the run, but not where the rate has fallen towards the end of the one before.
    decays = any(recipe.optimizer_for(phase).decay != "constant" for phase in recipe.schedule)
    if decays and page.is_file() and out.is_dir() and read(page).train.images != recipe.train.images:
        shutil.rmtree(out)
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    page.write_text(wanted, encoding="utf-8")
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    start, failure = time.perf_counter(), ""
    try:
        img2img.train(page, data, out, seed=seed, device="cpu", precision="fp32", progress=False, doctor=False)
    except Diverged as error:
        failure = str(error)
    finally:
        seconds = before + time.perf_counter() - start
        clock.write_text(json.dumps(seconds))
    found = history(out)[-1] if history(out) else {}
    if not found and not failure:
        raise ValueError(f"{out}: nothing was measured; name a folder with train/ and validation/ inside (--data)")
    result = {"seconds": seconds, "failure": failure} | found
    target.write_text(json.dumps(result), encoding="utf-8")
    return result


def leave_with(parent: int) -> None:
    """Have this process stop as an interrupt would, its state saved, once the one that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def history(out: Path) -> list[dict[str, Any]]:
    """Return the validations in a run's log."""
    log = out / "log.jsonl"
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    return [line for line in lines if any(key.startswith("validation/") for key in line)]


def said(page: str, metric: str) -> str:
    """Return the paper's own figure, which stands on the page beside what was measured here."""
    return next((str(e["paper"]) for e in read(page).measured if e.get("metric") == metric and "paper" in e), "")


def figure(values: list[float]) -> str:
    """Return a mean with the spread over seeds, and the values themselves."""
    with np.errstate(invalid="ignore"):  # a run that went wrong may have measured inf
        spread = f" ± {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread} ({', '.join(f'{value:.3g}' for value in values)})"


def table(board: dict[str, Any], results: dict[str, list[dict[str, Any]]], command: str) -> str:
    """Return the section as a table in Markdown: mean ± standard deviation over seeds (each), minutes of a run."""
    metrics = board["metrics"]
    head = ["", *metrics, "paper", "minutes", "command"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(metrics) + " --- | ---: | --- |"]
    for run in board["run"]:
        rows = results.get(label(run), [])
        cells = []
        for metric in metrics:
            values = [row[f"validation/{metric}"] for row in rows if f"validation/{metric}" in row]
            cells.append(figure(values) if values else "")
        paper = "; ".join(f"{metric}: {text}" for metric in metrics if (text := said(run["page"], metric)))
        counts = {
            "stopped early": sum(bool(row["failure"]) for row in rows),
            "failed": len(board["seeds"]) - len(rows),
        }
        minutes = f"{np.mean([row['seconds'] for row in rows]) / 60:.2f}" if rows else ""
        remarks = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        name = label(run) + (f" ({remarks})" if remarks else "")
        only = shlex.quote(label(run))
        lines.append("| " + " | ".join([name, *cells, paper, minutes, f"`{command} --only {only}`"]) + " |")
    return "\n".join(lines)


def curves(board: dict[str, Any], out: Path, path: Path) -> None:
    """Draw each metric against the images seen, a line a page: the mean over its seeds."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from img2img.checkpoint import save_figure

    picture = Figure(figsize=(10, 3.2 * len(board["metrics"])), layout="constrained")
    for place, metric in enumerate(board["metrics"]):
        axes = picture.add_subplot(len(board["metrics"]), 1, place + 1)
        for number, run in enumerate(board["run"]):
            points: dict[int, list[float]] = {}
            for seed in board["seeds"]:
                for line in history(out / f"{label(run)}-{seed}"):
                    if f"validation/{metric}" in line:
                        points.setdefault(line["images"], []).append(line[f"validation/{metric}"])
            style = {"color": colormaps["tab20"](number % 20), "linestyle": "-" if number < 20 else "--"}
            # A line without points keeps its place in the legend.
            axes.plot(
                sorted(points), [np.mean(points[at]) for at in sorted(points)], label=label(run), marker=".", **style
            )
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    axes.set_xlabel("images that the discriminator learnt from")
    picture.legend(*axes.get_legend_handles_labels(), fontsize=7, loc="outside right")
    save_figure(picture, path)


def draw_clouds(board: dict[str, Any], out: Path, path: Path) -> None:
    """Draw what each page makes after the first of its seeds that left a checkpoint, where points are made."""
    import img2img
    from img2img.data.toys import clouds
    from img2img.metrics.modes import MIXTURES

    points, mixture = {}, None
    for run in board["run"]:
        data = recipe_of(board, run).data
        left = [each for s in board["seeds"] if (each := out / f"{label(run)}-{s}" / "last.safetensors").is_file()]
        if data.points and left:
            pipe = img2img.load(left[0], device="cpu", precision="fp32")
            mixture = MIXTURES[data.toy]
            points[label(run)] = mixture.points(pipe.draw(pipe.latents(2000), batch=2000))
    if mixture:
        clouds(points, mixture, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", help="a name in models/scoreboards, or a file")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for runs, table and pictures")
    parser.add_argument("--data", nargs="+", type=Path, help="the images, where the section needs some")
    parser.add_argument("--only", nargs="+", metavar="PAGE", help="these pages alone")
    parser.add_argument(
        "--images", type=int, help="budget of a run in place of the section's; a run whose rate decays starts anew"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the section's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on one core (default 1)")
    a = parser.parse_args()
    try:
        board = section(a.section)
        board |= {"images": a.images or board["images"], "seeds": a.seeds or board["seeds"]}
        known = [label(run) for run in board["run"]]
        if unknown := set(a.only or ()) - set(known):
            raise ValueError(f"{board['name']}: no run {sorted(unknown)[0]!r}; known: {', '.join(known)}")
        plan = [run for run in board["run"] if not a.only or label(run) in a.only]
        recipes = {label(run): recipe_of(board, run) for run in plan}  # all are checked before the first one trains
        if not a.data and not all(recipe.data.points for recipe in recipes.values()):
            raise ValueError(f"{board['name']}: learns from images; name their folder (--data)")
    except ValueError as error:
        parser.error(str(error))
    results: dict[str, list[dict[str, Any]]] = {}
    # Fresh processes: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(a.jobs, context, leave_with, (os.getpid(),)) as pool:
        jobs = {}
        for seed in board["seeds"]:
            for name, recipe in recipes.items():
                data = None if recipe.data.points else a.data
                jobs[pool.submit(train_one, recipe, data, a.out / f"{name}-{seed}", seed)] = name, seed
        for job in as_completed(jobs):
            name, seed = jobs[job]
            # What one run meets costs the others nothing.
            said_of = repr(job.exception()) if job.exception() else json.dumps(job.result())
            print(f"{name}, seed {seed}: {said_of}", file=sys.stderr)
    for job, (name, seed) in jobs.items():
        if not job.exception():
            results.setdefault(name, []).append(job.result() | {"seed": seed})
    board["run"] = plan
    command = f"python tools/scoreboard.py {shlex.quote(a.section)}"
    for option in ("data", "images", "seeds"):
        if value := getattr(a, option):
            command += f" --{option} {shlex.join(map(str, value)) if isinstance(value, list) else value}"
    text = f"{board['about']} {board['images']} images a run, seeds {', '.join(map(str, board['seeds']))}.\n\n"
    text += table(board, results, command) + "\n"
    (a.out / "table.md").write_text(text, encoding="utf-8")
    curves(board, a.out, a.out / "curves.png")
    draw_clouds(board, a.out, a.out / "clouds.png")
    print(text, end="")
    if any(job.exception() for job in jobs):
        sys.exit(1)


if __name__ == "__main__":
    main()
