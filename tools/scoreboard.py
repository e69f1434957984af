"""Train the pages of a section of models/scoreboards over seeds, and put what came out into one table and two pictures.

``python tools/scoreboard.py ring-8 -o runs/ring-8 --jobs 2``: the same command goes on where it was stopped.
"""

import argparse
import json
import multiprocessing
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import Any

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
    return {"set": {}, "data": False, "name": path.stem} | tomllib.loads(path.read_text(encoding="utf-8"))


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

    Raises:
        ValueError: the folder holds a run of another game.
    """
    import torch

    import img2img
    from img2img.trainer import Diverged

    target, wanted = out / "result.json", recipe.toml()
    page, clock = out.parent / f"{out.name}.toml", out / "seconds.json"
    # A larger budget goes on with the run.
    if target.is_file() and page.is_file() and page.read_text(encoding="utf-8") == wanted:
        return json.loads(target.read_text(encoding="utf-8"))
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
    result = {"seconds": seconds, "failure": failure} | found
    target.write_text(json.dumps(result), encoding="utf-8")
    return result


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
    spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
    return f"{mean(values):.4g}{spread} ({', '.join(f'{value:.3g}' for value in values)})"


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
        failed = sum(bool(row["failure"]) for row in rows)
        minutes = f"{mean(row['seconds'] for row in rows) / 60:.2f}" if rows else ""
        name = label(run) + (f" ({failed} stopped early)" if failed else "")
        lines.append("| " + " | ".join([name, *cells, paper, minutes, f"`{command} --only {label(run)}`"]) + " |")
    return "\n".join(lines)


def curves(board: dict[str, Any], out: Path, path: Path) -> None:
    """Draw each metric against the images seen, a line a page: the mean over its seeds."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 3.2 * len(board["metrics"])), layout="constrained")
    for place, metric in enumerate(board["metrics"]):
        axes = picture.add_subplot(len(board["metrics"]), 1, place + 1)
        for run in board["run"]:
            points: dict[int, list[float]] = {}
            for seed in board["seeds"]:
                for line in history(out / f"{label(run)}-{seed}"):
                    points.setdefault(line["images"], []).append(line[f"validation/{metric}"])
            if points:
                axes.plot(sorted(points), [mean(points[at]) for at in sorted(points)], label=label(run), marker=".")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    axes.set_xlabel("images that the discriminator learnt from")
    axes.legend(fontsize=7, ncols=2)
    picture.savefig(path, format="png", dpi=100)


def draw_clouds(board: dict[str, Any], out: Path, path: Path) -> None:
    """Draw what each page makes after its first seed, where points are made."""
    import img2img
    from img2img.data.toys import clouds
    from img2img.metrics.modes import MIXTURES

    points, mixture = {}, None
    for run in board["run"]:
        last = out / f"{label(run)}-{board['seeds'][0]}" / "last.safetensors"
        if last.is_file():
            pipe = img2img.load(last, device="cpu", precision="fp32")
            mixture = MIXTURES[pipe.recipe.data.toy]
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
    parser.add_argument("--images", type=int, help="budget of a run in place of the section's")
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
    except ValueError as error:
        parser.error(str(error))
    results: dict[str, list[dict[str, Any]]] = {}
    # Fresh processes: torch's threads do not survive a fork.
    with ProcessPoolExecutor(a.jobs, multiprocessing.get_context("spawn")) as pool:
        jobs = {}
        for seed in board["seeds"]:
            for run in plan:
                job = pool.submit(train_one, recipes[label(run)], a.data, a.out / f"{label(run)}-{seed}", seed)
                jobs[job] = label(run), seed
        for job in as_completed(jobs):
            name, seed = jobs[job]
            print(f"{name}, seed {seed}: {json.dumps(job.result())}", file=sys.stderr)
    for (name, seed), job in sorted((key, job) for job, key in jobs.items()):
        results.setdefault(name, []).append(job.result() | {"seed": seed})
    board["run"] = plan
    command = f"python tools/scoreboard.py {a.section}" + (f" --images {a.images}" if a.images else "")
    text = f"{board['about']} {board['images']} images a run, seeds {', '.join(map(str, board['seeds']))}.\n\n"
    text += table(board, results, command) + "\n"
    (a.out / "table.md").write_text(text, encoding="utf-8")
    curves(board, a.out, a.out / "curves.png")
    draw_clouds(board, a.out, a.out / "clouds.png")
    print(text, end="")


if __name__ == "__main__":
    main()
