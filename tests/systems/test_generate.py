"""Noise to image: toys without a folder, pyramids, and what the trained system draws."""

import numpy as np
import pytest
import torch
from PIL import Image

import img2img
from img2img import cli
from img2img.adversarial.latent import slerp, truncate
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
    system.discriminator.level = lambda index, drawn, given, label: (
        calls.append((index, drawn, given)) or level(index, drawn, given, label)
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


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    """Return the file of a small StyleGAN that has seen nothing."""
    page = {
        "name": "styled",
        "task": "generate",
        "schedule": {"generator": 1, "discriminator": 1},
        "networks": {
            "generator": {"type": "stylegan_generator", "latent": 6, "styles": 5, "depth": 2, "width": 4, "widest": 8},
            "discriminator": {"type": "dcgan_discriminator", "width": 4},
        },
        "adversarial": {"type": "logistic"},
        "data": {"size": 16},
    }
    out = tmp_path_factory.mktemp("styled")
    run = Trainer(Recipe.parse(page), _squares(out / "data"), out / "run", device="cpu", progress=False)
    with torch.no_grad():
        run.system.generator.mean.normal_()
    run.ema["generator"].update(run.system.generator)
    run.save(out / "styled.safetensors", slim=True)
    return out / "styled.safetensors"


def _squares(folder):
    folder.mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "0.png")
    return folder


def test_the_first_samples_do_not_depend_on_how_many_are_drawn(trained):
    pipe = img2img.load(trained["painter"], device="cpu", precision="fp32")
    many = pipe.latents(40, seed=2)
    assert torch.equal(pipe.latents(3, seed=2), many[:3]) and not torch.equal(pipe.latents(3, seed=1), many[:3])
    assert abs(many.mean()) < 0.2 and abs(many.std() - 1) < 0.1
    torch.testing.assert_close(pipe.draw(many, batch=7), pipe.draw(many, batch=40), atol=1e-5, rtol=0)


def test_truncation(trained, styled):
    pipe = img2img.load(trained["painter"], device="cpu", precision="fp32")
    z = pipe.latents(5)
    assert torch.equal(pipe.draw(z, truncation=0.5), pipe.draw(truncate(z, 0.5)))
    assert not torch.equal(pipe.draw(z, truncation=0.5), pipe.draw(z))
    pipe = img2img.load(styled, device="cpu", precision="fp32")
    z = pipe.latents(5)
    mean = pipe.draw(z, truncation=0.0)
    assert torch.allclose(mean, mean[:1].expand(5, -1, -1, -1), atol=1e-6), "all styles are the mean one"
    assert pipe.draw(z).std(0).mean() > pipe.draw(z, truncation=0.3).std(0).mean() > 0
    assert torch.equal(pipe.draw(z, truncation=1.0), pipe.draw(z))
    with pytest.raises(ValueError, match="truncation = 2.0 must be 0 to 1"):
        pipe.draw(z, truncation=2.0)


def test_slerp():
    start, end = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    found = slerp(start, end, torch.tensor([1 / 3, 0.5]))
    angle = torch.tensor(torch.pi / 6)
    torch.testing.assert_close(found[0], 2 * torch.stack([angle.cos(), angle.sin()]))
    torch.testing.assert_close(found[1], torch.tensor([1.5, 1.5]))
    for share, wanted in ((0.0, start), (1.0, end)):
        torch.testing.assert_close(slerp(start, end, torch.full((2,), share)), wanted)


def test_interpolation_goes_from_each_latent_to_the_next(trained, tmp_path):
    pipe = img2img.load(trained["painter"], device="cpu", precision="fp32")
    images = [np.asarray(image) for image in pipe.sample(3, seed=1, interpolate=4)]
    plain = [np.asarray(image) for image in pipe.sample(3, seed=1)]
    assert len(images) == 12
    for place, image in enumerate(plain):
        assert np.abs(images[4 * place].astype(int) - image).max() <= 1
    assert not np.array_equal(images[0], images[1])
    out = tmp_path / "strip.png"
    assert cli.main(["synthesize", str(trained["painter"]), "-n", "3", "--interpolate", "4", "-o", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (4 * 10 + 2, 3 * 10 + 2)  # 8 pixels and a border of 2


def test_mixed_styles(styled, trained):
    pipe = img2img.load(styled, device="cpu", precision="fp32")
    z = pipe.latents(3)
    images = pipe.mixed(z).unflatten(0, (3, 3))
    torch.testing.assert_close(images[range(3), range(3)], pipe.draw(z), atol=1e-5, rtol=0)
    assert not torch.equal(images[0, 1], images[0, 0]) and not torch.equal(images[0, 1], images[1, 1])
    assert len(pipe.sample(3, mix=True)) == 9
    with pytest.raises(ValueError, match="has no styles to mix"):
        img2img.synthesize(trained["painter"], count=2, mix=True)


def test_points_are_drawn_as_a_cloud(tmp_path, capsys):
    run = Trainer(Recipe.parse(RING), [], tmp_path / "run", device="cpu", precision="fp32", progress=False)
    run.save(tmp_path / "ring.safetensors", slim=True)
    command = ["synthesize", str(tmp_path / "ring.safetensors"), "-n", "50", "-o"]
    assert cli.main([*command, str(tmp_path / "cloud.png")]) == 0
    with Image.open(tmp_path / "cloud.png") as image:
        assert image.width > 100
    assert cli.main([*command, str(tmp_path / "folder")]) == 1
    assert "name a .png" in capsys.readouterr().err
