"""What is judged: points of a formula without a folder, as they are; of images as many as are asked for."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import img2img
from img2img import cli
from img2img.evaluation import Judge, evaluate
from img2img.metrics.modes import MIXTURES
from img2img.pipeline import Pipeline
from img2img.recipe import read
from img2img.systems.system import Trial, build
from img2img.trainer import Trainer


def toy_page(toy):
    changes = {"data": {"toy": toy, "size": 1, "channels": 2}, "networks.generator.latent": 2, "validate": {}}
    return read("gan").override(changes)


class Truth(nn.Module):
    """Makes of latents (N, 2) points of the mixture itself, modes in turn."""

    latent = 2

    def __init__(self, mixture):
        super().__init__()
        self.mixture = mixture

    def forward(self, z):
        centres = self.mixture.centres.float()
        return (centres[torch.arange(len(z)) % len(centres)] + self.mixture.sigma * z)[:, :, None, None]


@pytest.mark.parametrize("toy", ["ring-8", "grid-25"])
def test_the_truth_has_every_mode_and_a_gaussians_share_near_them(toy):
    """Within three deviations lies 1 - exp(-9/2) of a Gaussian of the plane; points in 8 bits would be further off."""
    recipe, mixture = toy_page(toy), MIXTURES[toy]
    system = build(recipe)
    system.generator = Truth(mixture)
    pipe = Pipeline(
        *(system.generator, "truth"),
        task="generate",
        scale=1,
        channels=2,
        verb="synthesize",
        recipe=recipe,
        system=system,
    )
    names = [f"modes[{toy}]", f"confident[{toy}]"]
    found = evaluate(pipe, [], metrics=names, images=2**15, seed=3, progress=False)
    share = 1 - math.exp(-4.5)
    assert found[names[0]] == len(mixture.centres)
    assert found[names[1]] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2**15))
    assert found["diversity"] == pytest.approx(1, abs=0.05)
    again, other = (evaluate(pipe, [], metrics=names[1:], images=2**15, seed=s, progress=False) for s in (3, 4))
    assert again[names[1]] == found[names[1]] != other[names[1]], "each seed has draws of its own"


def test_the_command_line_needs_a_folder_for_images_alone(tmp_path, capsys):
    run = Trainer(toy_page("ring-8"), [], tmp_path / "run", device="cpu", precision="fp32", progress=False)
    run.save(tmp_path / "ring.safetensors", slim=True)
    command = ["evaluate", str(tmp_path / "ring.safetensors"), "--metrics", "modes[ring-8]", "--images", "100"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"modes[ring-8]", "diversity"}
    assert cli.main([*command, "--data", str(tmp_path)]) == 1
    assert "leave the data folder out" in capsys.readouterr().err
    for page in ("gan", "fast"):
        pipe = Pipeline(nn.Identity(), page, task="", scale=1, channels=1, verb="synthesize", recipe=read(page))
        with pytest.raises(ValueError, match=rf"{page}: .* name their folder \(--data\)"):
            evaluate(pipe, [], progress=False)


class Nearest(nn.Module):
    """Repeats pixels, so that the error of an image tells which image it was."""

    def forward(self, x):
        return functional.interpolate(x, scale_factor=2)


@pytest.mark.parametrize(
    ("images", "wanted"), [(0, range(10)), (1, [0]), (3, [0, 3, 6]), (5, [0, 2, 4, 6, 8]), (99, range(10))]
)
def test_upscalers_are_judged_on_images_from_the_whole_folder(images, wanted, tmp_path):
    """Each image has a noise of its own strength; the mean of PSNR is that of the images that were looked at."""
    pipe = Pipeline(Nearest(), "nearest", task="super_resolve", scale=2, channels=1).to("cpu", "fp32")
    rng, alone = np.random.default_rng(0), []
    for place in range(10):
        folder = tmp_path / str(place)
        folder.mkdir()
        pixels = 128 + rng.normal(0, 2 + 5 * place, (24, 24)).clip(-120, 120)
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / "0.png")
        alone.append(evaluate(pipe, [folder], metrics=["psnr"], progress=False)["psnr"])
    folders = [tmp_path / str(place) for place in range(10)]
    found = evaluate(pipe, folders, metrics=["psnr"], images=images, progress=False)["psnr"]
    assert found == pytest.approx(np.mean([alone[place] for place in wanted]), abs=1e-4)


def test_a_flat_image_does_not_stand_for_all(tmp_path):
    """It is enlarged without any error; the mean of PSNR goes on telling of the others."""
    pipe = Pipeline(Nearest(), "nearest", task="super_resolve", scale=2, channels=1).to("cpu", "fp32")
    noise = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    alone = evaluate(pipe, [tmp_path], metrics=["psnr"], progress=False)["psnr"]
    Image.new("L", (24, 24), 200).save(tmp_path / "flat.png")
    found = evaluate(pipe, [tmp_path], metrics=["psnr"], progress=False)["psnr"]
    assert found == pytest.approx((alone + 60) / 2, abs=1e-6)


def test_an_image_that_cannot_be_judged_costs_a_line(photos, tmp_path, capsys):
    folder = tmp_path / "e"
    folder.mkdir()
    shutil.copy(sorted((photos / "train").iterdir())[0], folder / "good.png")
    plain = img2img.evaluate("fast.x4", folder, metrics=["psnr"], progress=False)
    Image.new("RGB", (3, 3)).save(folder / "small.png")
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "._good.png").write_bytes(b"left by another system")
    assert img2img.evaluate("fast.x4", folder, metrics=["psnr"], progress=False) == plain
    said = capsys.readouterr().err
    assert "small.png: 3 x 3 pixels are too few to judge x4 by" in said and "bad.png: not an image" in said
    assert said.count("\n") == 2
    (folder / "good.png").unlink()
    with pytest.raises(ValueError, match="no image could be judged"):
        img2img.evaluate("fast.x4", folder, metrics=["psnr"], progress=False)
    with pytest.raises(ValueError, match="images = -1 must be 0"):
        img2img.evaluate("fast.x4", folder, metrics=["psnr"], images=-1)


def test_metrics_of_many_channels_are_refused():
    images = torch.zeros(2, 6, 8, 8)
    with pytest.raises(ValueError, match="metrics compare grey or RGB images, and here are 6 channels"):
        Judge(["fid[pixels]"]).update({"": Trial(images, real=images)}, (-1.0, 1.0))
    Judge([]).update({"": Trial(images, real=images)}, (-1.0, 1.0))
