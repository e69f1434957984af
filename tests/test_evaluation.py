"""Points of a formula are judged without a folder, as they are; images are not."""

import json
import math

import pytest
import torch
from torch import nn

from img2img import cli
from img2img.evaluation import evaluate
from img2img.metrics.modes import MIXTURES
from img2img.pipeline import Pipeline
from img2img.recipe import read
from img2img.systems.system import build
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
