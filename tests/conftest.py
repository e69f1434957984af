"""Small folders of images, small pages, and one cache for the whole session."""

import copy
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import img2img

os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start: sums depend on the number of threads


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory):
    import torch

    real = Path(os.environ.get("IMG2IMG_CACHE") or Path.home() / ".cache" / "img2img")
    cache = tmp_path_factory.mktemp("cache")
    for name in ("networks", "archives"):  # weights that were fetched before; decoded images are the session's own
        if (real / name).is_dir():
            (cache / name).symlink_to(real.resolve() / name)
    patch = pytest.MonkeyPatch()
    patch.setenv("IMG2IMG_CACHE", str(cache))
    # For processes that tests start, wherever they run.
    patch.setenv("PYTHONPATH", str(Path(img2img.__file__).parent.parent), prepend=os.pathsep)
    torch.set_num_threads(1)
    # A shell has its background jobs ignore Ctrl-C, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    patch.undo()


def _smooth(rng, height, width):
    """Return soft blobs with some edges, like a photo seen from afar."""
    noise = rng.random((height // 4 + 1, width // 4 + 1, 3), dtype=np.float32)
    soft = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    y, x = int(rng.integers(height // 2)), int(rng.integers(width // 2))
    soft[y : y + height // 3, x : x + width // 3] *= 0.4
    return (soft * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def smooth():
    """Return a function: (seed, height, width) -> a smooth random RGB image, uint8."""
    return lambda seed=0, height=64, width=64: _smooth(np.random.default_rng(seed), height, width)


@pytest.fixture(scope="session")
def photos(tmp_path_factory, smooth):
    """Return a folder with train/ (five photos of several sizes) and validation/ (two)."""
    folder = tmp_path_factory.mktemp("photos")
    sizes = [(64, 80), (72, 64), (65, 67), (96, 64), (64, 64)]
    for part, shapes in (("train", sizes), ("validation", sizes[:2])):
        (folder / part).mkdir()
        for place, (height, width) in enumerate(shapes):
            image = Image.fromarray(smooth(place + 100 * (part == "train"), height, width))
            image.save(folder / part / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, smooth):
    """Return a folder with train/ and validation/, each with A/ and its negative B/ of 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("pairs")
    for part, count in (("train", 4), ("validation", 2)):
        for place in range(count):
            pixels = smooth(place + 10 * (part == "train"), 32, 32)
            for side, values in (("A", pixels), ("B", 255 - pixels)):
                (folder / part / side).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / part / side / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory, smooth):
    """Return a folder with eight images of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("squares")
    for place in range(8):
        Image.fromarray(smooth(place, 16, 16)).save(folder / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory, smooth):
    """Return a folder with train/ and validation/, each of ten classes with one image of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("classes")
    for part in ("train", "validation"):
        for place in range(10):
            (folder / part / str(place)).mkdir(parents=True)
            Image.fromarray(smooth(place, 16, 16)).save(folder / part / str(place) / "0.png")
    return folder


@pytest.fixture(scope="session")
def domains(tmp_path_factory, smooth):
    """Return two folders of ten classes with one image of 32 x 32 pixels each, the second one the negatives."""
    folder = tmp_path_factory.mktemp("domains")
    for place in range(10):
        for part, sign in (("source", 1), ("target", -1)):
            (folder / part / str(place)).mkdir(parents=True)
            pixels = smooth(place, 32, 32)
            Image.fromarray(pixels if sign > 0 else 255 - pixels).save(folder / part / str(place) / "0.png")
    return [folder / "source", folder / "target"]


@pytest.fixture(scope="session")
def captioned(tmp_path_factory, smooth):
    """Return a folder with four captioned images of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("captioned")
    for place in range(4):
        Image.fromarray(smooth(place, 16, 16)).save(folder / f"{place}.png")
    lines = [f"{place}.png,{name},{name} thing" for place, name in enumerate(("red heart", "sun", "blue car", "cat"))]
    (folder / "captions.csv").write_text("\n".join(["file,name,keywords", *lines]) + "\n")
    return folder


PAGES = {
    "upscaler": {
        "name": "upscaler",
        "task": "super_resolve",
        "networks": {"generator": {"type": "srresnet", "width": 4, "blocks": 1}},
        "fidelity": [{"type": "l1"}],
        "optimizer": {"lr": 1e-3, "decay": "cosine"},
        "data": {"size": 16, "scale": 2, "rotate": True},
        "train": {"images": 80, "batch": 2, "ema": 0.9, "log_images": 6, "validate_images": 40},
        "validate": {"metrics": ["psnr"], "best": "psnr", "size": 32},
    },
    "translator": {
        "name": "translator",
        "task": "paired",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "unet", "width": 4},
            "discriminator": {"type": "patchgan", "width": 4, "layers": 1, "norm": "spectral"},
        },
        "adversarial": {"type": "hinge"},
        "penalty": [{"type": "r1", "weight": 0.1, "every": 3}],
        "fidelity": [{"type": "l1", "weight": 10.0}],
        "optimizer": {"betas": [0.5, 0.999]},
        "data": {"size": 16},
        "train": {"images": 80, "batch": 2, "ema": 0.9, "log_images": 6, "validate_images": 40},
        "validate": {"metrics": ["l1"], "size": 16},
    },
    "painter": {
        "name": "painter",
        "task": "generate",
        "schedule": {"discriminator": 5, "generator": 1},
        "networks": {
            "generator": {"type": "dcgan_generator", "width": 4, "latent": 8},
            "discriminator": {"type": "dcgan_discriminator", "width": 4, "norm": "none"},
        },
        "adversarial": {"type": "wasserstein"},
        "penalty": [{"type": "gradient_penalty", "weight": 10.0}],
        "optimizer": {"lr": 1e-3, "betas": [0.0, 0.9]},
        "data": {"size": 8},
        "train": {"images": 400, "batch": 2, "ema": 0.9, "log_images": 30},
    },
}


@pytest.fixture
def pages():
    """Return small pages by name: upscaler (srresnet), translator (paired, adversarial), painter (WGAN-GP)."""
    return copy.deepcopy(PAGES)


@pytest.fixture(scope="session")
def folders(photos, pairs, squares):
    """Return for each small page its training and its validation folder."""
    return {
        "upscaler": (photos / "train", photos / "validation"),
        "translator": (pairs / "train", pairs / "validation"),
        "painter": (squares, None),
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory, folders):
    """Return run folders of the small pages, after two steps."""

    out = tmp_path_factory.mktemp("runs")
    for name, (train, validation) in folders.items():
        page = out / f"{name}.json"
        page.write_text(json.dumps(PAGES[name]))
        images = 4 * (5 if name == "painter" else 1)
        options = {"validation": validation, "images": images, "device": "cpu", "precision": "fp32"}
        img2img.train(page, train, out / name, doctor=False, progress=False, **options)
    return {name: out / name for name in folders}
