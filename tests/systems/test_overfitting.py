"""Every game can be won on a handful of images: what is learned is really learned."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import img2img
from img2img.recipe import Recipe
from img2img.trainer import Trainer

PLAIN = {"expand": 0, "residual": False}


def trained(page, folder, out):
    trainer = Trainer(Recipe.parse(page), folder, out, device="cpu", precision="fp32", progress=False)
    first = None

    def remember(line, board):
        nonlocal first
        first = first or line

    trainer._log = remember
    last = trainer.run()
    return trainer, first, last


def test_super_resolve(tmp_path, smooth):
    """PSNR on the one photo rises well above that of the enlargement by repetition, which is where it starts."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(smooth(0, 32, 32)).save(folder / "a.png")
    page = {
        "name": "x",
        "task": "super_resolve",
        "networks": {"generator": {"type": "fast", "width": 16, "depth": 2, "scale": 2, **PLAIN}},
        "fidelity": [{"type": "l1"}],
        "optimizer": {"lr": 1e-2, "decay": "cosine"},
        "data": {"size": 32, "scale": 2, "flip": False},
        "train": {"images": 150, "batch": 1, "ema": 0.0, "log_images": 1000},
    }
    trainer, _, _ = trained(page, folder, tmp_path / "run")
    item = {name: value[None] for name, value in trainer.source.item(0, np.random.default_rng(0)).items()}
    nearest = torch.nn.functional.interpolate(item["input"], scale_factor=2, mode="nearest")
    trainer.system.eval()
    with torch.no_grad():
        output = trainer.system.infer(item["input"])
    psnr = [-10 * math.log10((image - item["target"]).square().mean()) for image in (nearest, output)]
    assert psnr[1] > psnr[0] + 5, psnr


def test_paired(tmp_path, smooth):
    """L1 on the one pair falls below 0.05 of a range of 2, against a discriminator."""
    for side, pixels in (("A", smooth(0, 16, 16)), ("B", smooth(1, 16, 16))):
        (tmp_path / "data" / side).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / side / "0.png")
    page = {
        "name": "x",
        "task": "paired",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "unet", "width": 16, "norm": "instance", "depth": 2, "dropout": 0.0},
            "discriminator": {"type": "patchgan", "width": 8, "layers": 1, "norm": "none"},
        },
        "adversarial": {"type": "logistic"},
        "fidelity": [{"type": "l1", "weight": 100.0}],
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9], "decay": "linear"},
        "data": {"size": 16, "flip": False},
        "train": {"images": 300, "batch": 1, "ema": 0.0, "log_images": 1},
    }
    _, first, last = trained(page, tmp_path / "data", tmp_path / "run")
    # The jitter of two pixels is part of the pair here: the crop moves between input and target alike.
    assert first["generator/l1"] > 15
    assert last["generator/l1"] / 100 < 0.05 + 0.05, last
    pipe = img2img.load(tmp_path / "run", device="cpu", precision="fp32")
    found = pipe(tmp_path / "data" / "A" / "0.png")
    target = np.asarray(Image.open(tmp_path / "data" / "B" / "0.png"), float)
    assert np.abs(np.asarray(found, float) - target).mean() / 127.5 < 0.1


def test_structure_style(tmp_path, smooth):
    """Images of drawn structures have the colours that a structure's image has by a formula; structures differ."""
    for place in range(8):
        grey = smooth(place, 8, 8)[..., 0]
        for side, pixels in (("A", grey), ("B", np.dstack([grey, 255 - grey, 128 + grey // 4]))):
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / side / f"{place}.png")
    page = {
        "name": "x",
        "task": "structure_style",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "structure": {"type": "dcgan_generator", "width": 16, "latent": 4},
            "structure_discriminator": {"type": "dcgan_discriminator", "width": 16, "norm": "none"},
            "generator": {"type": "unet", "width": 8, "depth": 2, "norm": "none", "dropout": 0.0},
            "discriminator": {"type": "patchgan", "width": 8, "layers": 1, "norm": "none"},
        },
        "adversarial": {"type": "logistic"},
        "penalty": [{"type": "r1", "weight": 0.1}],
        "fidelity": [{"type": "l1", "weight": 30.0}],
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9]},
        "data": {"size": 8, "channels": 3, "input_channels": 1, "flip": False, "jitter": False},
        "train": {"images": 8 * 250, "batch": 8, "ema": 0.98, "log_images": 100000},
    }
    trainer, _, _ = trained(page, tmp_path / "data", tmp_path / "run")
    real = torch.stack([trainer.source.item(i, np.random.default_rng(0))["input"] for i in range(8)])
    system = trainer._averaged()
    with torch.no_grad():
        z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        drawn, images = system.structure(z), system.infer(z)
    assert drawn.shape == (64, 1, 8, 8) and images.shape == (64, 3, 8, 8)
    level = (drawn + 1) / 2
    wanted = torch.cat([level, 1 - level, 0.5 + level / 4], 1) * 2 - 1
    assert (images - wanted).abs().mean() < 0.15 < 0.5 * (images - wanted.roll(1, 0)).abs().mean()
    assert drawn.std(0).mean().item() == pytest.approx(real.std(0).mean().item(), rel=0.3)
    pipe = img2img.load(tmp_path / "run", device="cpu", precision="fp32")
    assert torch.allclose(pipe.draw(z) * 2 - 1, images, atol=1e-5)


@pytest.mark.parametrize("loss", ["least_squares", "relativistic"])
def test_generate(loss, tmp_path, smooth):
    """The generator's images get the mean and the spread of the real ones, and come near most of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for place in range(8):
        Image.fromarray(smooth(place, 8, 8)).save(folder / f"{place}.png")
    page = {
        "name": "x",
        "task": "generate",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "dcgan_generator", "width": 16, "latent": 4},
            "discriminator": {"type": "dcgan_discriminator", "width": 16, "norm": "none"},
        },
        "adversarial": {"type": loss},
        "penalty": [{"type": "r1", "weight": 0.1}],
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9]},
        "data": {"size": 8, "flip": False},
        "train": {"images": 8 * 300, "batch": 8, "ema": 0.99, "log_images": 100000},
    }
    trainer, _, _ = trained(page, folder, tmp_path / "run")
    real = torch.stack([trainer.source.item(i, np.random.default_rng(0))["real"] for i in range(8)])
    latents = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    fresh = Trainer(Recipe.parse(page), folder, tmp_path / "fresh", device="cpu", precision="fp32")
    with torch.no_grad():
        images, before = (each._averaged().infer(latents) for each in (trainer, fresh))
    assert before.std(0).mean() < 0.1 * real.std(0).mean(), "nothing to learn"
    assert images.std(0).mean().item() == pytest.approx(real.std(0).mean().item(), rel=0.25)
    assert (images.mean((0, 2, 3)) - real.mean((0, 2, 3))).abs().max() < 0.15
    distances = (images[:, None] - real[None]).square().flatten(2).mean(2)
    assert len(set(distances.argmin(1).tolist())) >= 4, "modes were lost"


@pytest.mark.parametrize("task", ["unpaired", "contrastive"])
def test_without_pairs(task, tmp_path, smooth):
    """Dark images become as bright as the other set's; there is a way back from there, or they are still recognised."""
    for place in range(6):
        for side, pixels in (("A", smooth(place, 16, 16) // 3), ("B", 255 - smooth(place + 6, 16, 16) // 3)):
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / side / f"{place}.png")
    page = {
        "name": "x",
        "task": task,
        "schedule": {"generator": 1, "discriminator": 1},
        "networks": {
            "generator": {"type": "resnet", "width": 8, "blocks": 1},
            "discriminator": {"type": "patchgan", "width": 8, "layers": 1, "norm": "none"},
        },
        "adversarial": {"type": "least_squares"},
        "fidelity": [{"type": "l1", "on": "cycle", "weight": 10.0}],
        "pool": 50,
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9], "decay": "linear"},
        "data": {"size": 16, "flip": False},
        "train": {"images": 600, "batch": 2, "ema": 0.0, "log_images": 10000},
    }
    if task == "contrastive":
        page["networks"]["projector"] = {"type": "patch_features", "width": 16, "patches": 64}
        page["fidelity"] = [{"type": "patch_nce", "weight": 4.0}]
    trainer, _, _ = trained(page, tmp_path / "data", tmp_path / "run")
    source = trainer.system.source([tmp_path / "data"], validation=True)
    given = torch.stack([source.item(i, np.random.default_rng(0))["a"] for i in range(6)])
    wanted = torch.stack([source.item(i, np.random.default_rng(0))["b"] for i in range(6)])
    trainer.system.eval()
    with torch.no_grad():
        found = trainer.system.infer(given)
    assert abs(found.mean() - wanted.mean()) < 0.25 < abs(given.mean() - wanted.mean())
    if task == "contrastive":
        likeness = torch.corrcoef(torch.cat([given, found]).mean(1).flatten(1))[:6, 6:]
        assert likeness.diagonal().mean() > 0.6 and likeness.diagonal().mean() > likeness.mean() + 0.2
    else:
        with torch.no_grad():
            back = trainer.system.infer(found, "ba")
        assert (back - given).abs().mean() < 0.15
        assert trainer.system.pool["b"].count == 50
