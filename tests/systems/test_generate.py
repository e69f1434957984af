"""Noise to image: toys without a folder, pyramids, and what the trained system draws."""

import pytest
import torch

from img2img.networks.lapgan import split
from img2img.recipe import Recipe
from img2img.systems.system import build
from img2img.trainer import Trainer

RING = {
    "name": "ring",
    "task": "generate",
    "schedule": {"discriminator": 1, "generator": 1},
    "networks": {
        "generator": {"type": "mlp_generator", "latent": 4, "width": 32, "bounded": False},
        "discriminator": {"type": "mlp_discriminator", "width": 32},
    },
    "adversarial": {"type": "relativistic"},
    "penalty": [{"type": "r1", "weight": 0.1}, {"type": "r2", "weight": 0.1}],
    "optimizer": {"lr": 3e-3, "betas": [0.0, 0.9]},
    "data": {"toy": "ring-8", "size": 1, "channels": 2},
    "train": {"images": 25_600, "batch": 128, "ema": 0.98, "log_images": 12_800, "validate_images": 25_600},
    "validate": {"metrics": ["modes[ring-8]", "confident[ring-8]"], "images": 500},
}
PYRAMID = {
    "name": "pyramid",
    "task": "pyramid",
    "schedule": {"discriminator": 1, "generator": 1},
    "networks": {
        "generator": {"type": "lapgan_generator", "base": 5, "width": 4},
        "discriminator": {"type": "lapgan_discriminator", "width": 4},
    },
    "adversarial": {"type": "logistic"},
    "data": {"size": 16},
}


def test_points_are_learnt_without_a_folder(tmp_path):
    """Two hundred steps bring the cloud from the middle to the ring."""
    run = Trainer(Recipe.parse(RING), [], tmp_path, device="cpu", precision="fp32", progress=False)
    torch.manual_seed(0)
    before = run.system.generator(torch.randn(500, 4)).flatten(1).norm(dim=1)
    line = run.run()
    system = run._averaged()
    with torch.no_grad():
        radius = system.infer(torch.randn(500, 4)).flatten(1).norm(dim=1)
    assert before.mean() < 1 < 1.5 < radius.mean() < 2.5
    assert {"validation/modes[ring-8]", "validation/confident[ring-8]"} < set(line)
    assert system.span == (-3, 3) and radius.max() <= 3 * 2**0.5


def test_each_level_of_a_pyramid_plays_on_the_real_image_below_it():
    torch.manual_seed(0)
    system = build(Recipe.parse(PYRAMID))
    batch = {"real": torch.rand(2, 3, 16, 16) * 2 - 1}
    (small, _), (residual, given) = split(batch["real"], 2)
    calls = []
    level = system.discriminator.level
    system.discriminator.level = lambda index, drawn, given: (
        calls.append((index, drawn, given)) or level(index, drawn, given)
    )
    terms = system.losses("discriminator", batch, 0)
    assert {"adversarial_0", "adversarial_1"} == set(terms)
    assert [index for index, *_ in calls] == [0, 0, 1, 1]
    assert torch.equal(calls[0][1], small) and torch.equal(calls[2][1], residual)
    assert all(torch.equal(call[2], given) for call in calls[2:])
    terms = system.losses("generator", batch, 0)
    for place, module in enumerate((system.generator.base, system.generator.residuals)):
        loss = terms[f"adversarial_{place}"].sum()
        own = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        assert sum(gradient.abs().sum() for gradient in own) > 0
        other = (system.generator.residuals, system.generator.base)[place]
        found = torch.autograd.grad(loss, list(other.parameters()), retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found), "no level learns from another"


def test_a_game_needs_its_loss():
    with pytest.raises(ValueError, match="key 'adversarial' is missing"):
        Recipe.parse(PYRAMID | {"adversarial": None})
