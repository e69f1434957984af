"""Brush over samples of a generator: its latent follows what was painted, and with it the whole image.

Draws each sample, the same with the brush on it, the way and where it ends. For example, lighter clothes:
python tools/edit_sample.py dcgan.fashion --brush 0.4,0.3,0.6,0.6=230 --network classifier.fashion -o lighter.png
"""

import argparse
import json

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from img2img.imaging.picture import Picture, write
from img2img.inversion import edit
from img2img.metrics.distribution import embedding
from img2img.metrics.neighbours import nearest_images
from img2img.pipeline import load

Brush = tuple[list[float], list[float]]
"""Left, top, right and bottom in shares of the side, and a level for each channel, or one for all, in [0, 1]."""


def brush(text: str) -> Brush:
    """Return what ``left,top,right,bottom=LEVEL`` or ``...=R,G,B`` says, levels from 0 to 255.

    Raises:
        ValueError: it says something else.
    """
    try:
        box, levels = ([float(number) for number in part.split(",")] for part in text.split("="))
        left, top, right, bottom = box
        fits = 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and len(levels) in (1, 3)
    except ValueError:
        fits = False
    if not fits or not all(0 <= level <= 255 for level in levels):
        raise ValueError(
            f"--brush {text}: expected left,top,right,bottom in shares of the side, = and a level or R,G,B up to 255, "
            "e.g. 0.4,0.3,0.6,0.6=230"
        )
    return box, [level / 255 for level in levels]


def paint(images: Tensor, brushes: list[Brush]) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) in [0, 1] with the brushes on them, and where those are, (1, 1, H, W).

    Raises:
        ValueError: a brush is less than a pixel, or has another number of colours than the images.
    """
    height, width = images.shape[2:]
    painted, mask = images.clone(), torch.zeros(1, 1, height, width)
    for (left, top, right, bottom), levels in brushes:
        rows, columns = (
            slice(round(start * side), round(end * side))
            for start, end, side in ((top, bottom, height), (left, right, width))
        )
        if not mask[..., rows, columns].numel():
            raise ValueError(f"--brush {left},{top},{right},{bottom}: is less than a pixel of {width} x {height}")
        if len(levels) not in (1, images.shape[1]):
            raise ValueError(f"--brush of {len(levels)} colours, and the images have {images.shape[1]}; give a level")
        painted[..., rows, columns] = torch.tensor(levels)[:, None, None]
        mask[..., rows, columns] = 1
    return painted, mask


def apart(images: Tensor, others: Tensor, mask: Tensor) -> float:
    """Return the mean absolute error of images (N, C, H, W) within a mask (1, 1, H, W) of zeros and ones."""
    errors = ((images - others).abs().mean((0, 1), keepdim=True) * mask).sum() / mask.sum().clamp(min=1)
    return round(float(errors), 4)


def judged(network: str | nn.Module, sets: dict[str, Tensor], others: Tensor) -> dict[str, dict[str, float]]:
    """Return how real sets of images look to a classifier.

    Args:
        network: the classifier.
        sets: (N, C, H, W) in [0, 1] by name.
        others: samples that were not edited.

    Returns:
        For each set ``distance``, the mean of that of its features to the nearest of others', ``confidence``, the mean
        probability of the likeliest class, and ``class kept``, the share whose class is that of the first set's.
    """
    read = {name: embedding(network).probabilities(images) for name, images in sets.items()}
    first = next(iter(read.values())).argmax(1)
    return {
        name: {
            "distance": round(float(nearest_images(images, others, 1, network).distances.mean()), 3),
            "confidence": round(float(read[name].max(1).values.mean()), 3),
            "class kept": round(float((read[name].argmax(1) == first).double().mean()), 3),
        }
        for name, images in sets.items()
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="weight, run folder or file of a generator of noise without classes")
    parser.add_argument(
        "--brush", action="append", required=True, help="left,top,right,bottom=LEVEL or =R,G,B; once or more"
    )
    parser.add_argument("--network", help="classifier that judges how real the results look, e.g. classifier.fashion")
    parser.add_argument("--count", type=int, default=64, help="samples (default 64)")
    parser.add_argument("--rows", type=int, default=8, help="of them that are drawn (default 8)")
    parser.add_argument("--way", type=int, default=3, help="images drawn between a sample and its end (default 3)")
    parser.add_argument("--steps", type=int, default=200, help="of the descent (default 200)")
    parser.add_argument("--rate", type=float, default=0.05, help="of the descent (default 0.05)")
    parser.add_argument("--keep", type=float, default=0.3, help="weight of what lies off the brush (default 0.3)")
    parser.add_argument("--stay", type=float, default=1e-3, help="weight of the latent's way (default 0.001)")
    parser.add_argument("--others", type=int, default=2000, help="samples that the judge compares with (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("-o", "--out", required=True)
    a = parser.parse_args()
    try:
        pipe = load(a.model, device="cpu", precision="fp32")
        if getattr(pipe.network, "in_turn", False):
            raise ValueError(f"{a.model}: draws the class that it is asked for; use a generator without classes")
        start = pipe.latents(a.count, a.seed)
        samples = pipe.draw(start)
        painted, mask = paint(samples, [brush(text) for text in a.brush])
        end = edit(pipe, start, painted, mask, steps=a.steps, rate=a.rate, keep=a.keep, stay=a.stay)
        way = [pipe.draw(torch.lerp(start, end, share)) for share in torch.linspace(0, 1, a.way + 2).tolist()[1:]]
        facts = {"samples": a.count, "brush": a.brush, "within before": apart(samples, painted, mask)}
        facts |= {"within": apart(way[-1], painted, mask), "elsewhere": apart(way[-1], samples, 1 - mask)}
        if a.network:
            others = pipe.draw(pipe.latents(a.others, a.seed + 1))
            facts |= judged(a.network, {"sample": samples, "painted": painted, "followed": way[-1]}, others)
    except (ValueError, OSError) as error:
        parser.exit(1, f"edit_sample: {error}\n")
    rows = torch.stack([samples, painted, *way], 1)[: a.rows]
    sheet = make_grid(rows.flatten(0, 1), nrow=rows.shape[1])
    write(a.out, Picture((sheet.permute(1, 2, 0) * 255).round().byte().numpy()))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
