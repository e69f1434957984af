"""Put a run's best weights on the shelf, in half precision, with a card in weights/manifest.json.

For example: python tools/publish_weight.py runs/fast.x4 fast.x4 --data photos
"""

import argparse
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import torch

from img2img import checkpoint
from img2img.recipe import Recipe, locate, root
from img2img.registry import lookup
from img2img.systems.system import restore, weights_of


def publish(run: str | Path, name: str, data: str, shelf: Path) -> dict:
    """Write ``shelf/name.safetensors`` from a run folder (or a checkpoint) and return its card.

    Only the networks that inference needs are kept, by their averaged weights. What the page started from stays in it
    by a weight's name; a file or folder of this machine is left out.

    Raises:
        ValueError: no such run, a name that is not PAGE.VARIANT, or a weight that does not fit half precision.
    """
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+", name):
        raise ValueError(f"the name {name!r} is not PAGE.VARIANT: a page, a dot and what was learnt, e.g. fast.x4")
    source = locate(run, weights=True)
    header = checkpoint.header(source)
    recipe = Recipe.parse(header["recipe"], str(source))
    roles = lookup("task", recipe.task).inference
    tensors = {f"{role}.{key}": value for role in roles for key, value in weights_of(source, role).items()}
    kept = {role: start for role, start in recipe.init.items() if not Path(start).exists()}
    # Figures belong to the page, which goes on changing when the weight does not.
    recipe = replace(recipe, init=kept, measured=[])
    halves = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    lost = [key for key, value in halves.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if lost:
        raise ValueError(f"{source}: {lost[0]} does not fit half precision")
    target, best = shelf / f"{name}.safetensors", header.get("best")
    facts = {key: header[key] for key in ("images", "seed")}
    about = {"recipe": recipe.page(), "name": name, "classes": header.get("classes", []), **facts}
    checkpoint.save(target, halves, about)
    body = target.read_bytes()
    card = {
        "page": recipe.name,
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
        "parameters": sum(value.numel() for value in restore(str(target)).parameters()),
        "data": data,
        "license": "MIT; the training photos' licences are on the data set's page",
        **facts,
        "validation": best if best and best["images"] == header["images"] else None,  # of this state alone
    }
    manifest = shelf / "manifest.json"
    cards = json.loads(manifest.read_text()) if manifest.is_file() else {}
    with checkpoint.atomic(manifest) as temporary:
        temporary.write_text(json.dumps(dict(sorted((cards | {name: card}).items())), indent=2) + "\n")
    return card


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("name", help="PAGE.VARIANT, e.g. fast.x4")
    parser.add_argument("--data", required=True, help="data set it was trained on, a page of datasets/")
    parser.add_argument("--shelf", type=Path, default=root("weights"))
    a = parser.parse_args()
    try:
        print(json.dumps(publish(a.run, a.name, a.data, a.shelf), indent=2))
    except (ValueError, OSError) as error:
        parser.exit(1, f"publish_weight: {error}\n")


if __name__ == "__main__":
    main()
