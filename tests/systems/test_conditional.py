"""Games with labels: what their terms are, what is asked for, and that a small one is won."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn
from torch.nn import functional

import img2img
from img2img.pipeline import Pipeline
from img2img.recipe import Recipe, read
from img2img.systems.system import build
from img2img.trainer import Trainer


def page(name, **changes):
    small = {"networks.generator.width": 4, "networks.discriminator.width": 4, "networks.generator.latent": 6}
    return read(name).override(small | {"data.size": 8} | changes)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return {"real": torch.rand(4, 1, 8, 8) * 2 - 1, "label": torch.tensor([3, 0, 9, 3])}


class Echo(nn.Module):
    """A generator whose images are their label, and a discriminator whose logits are given."""

    classes, latent = 10, 2

    def forward(self, z, labels):
        labels = labels.argmax(1) if labels.dim() == 2 else labels
        return (labels / 10).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_labels_that_are_asked_for():
    system = build(page("cgan"))
    system.generator = Echo()
    z = torch.randn(12, 2)
    assert (system.infer(z, 7) == 0.7).all()
    assert torch.equal(system.infer(z, torch.arange(12) % 3)[:, 0, 0, 0], torch.arange(12) % 3 / 10)
    assert torch.equal(system.infer(z)[:, 0, 0, 0], torch.arange(12) % 10 / 10)
    assert (system.deployed(label=7)(z) == 0.7).all() and system.deployed().latent == 2
    for wrong in (10, -1):
        with pytest.raises(ValueError, match=f"label {wrong} must be 0 to 9"):
            system.deployed(label=wrong)
    system.classes = ["zero", "5"]
    assert [system.number(label) for label in ("zero", "5", 5, 3, "3", None)] == [0, 1, 1, 3, 3, None]
    with pytest.raises(ValueError, match="label two must be 0 to 9, or one of zero, 5"):
        system.deployed(label="two")
    trial = system.trial({"real": torch.zeros(3, 1, 2, 2), "label": torch.tensor([5, 1, 2])})[""]
    assert torch.equal(trial.output[:, 0, 0, 0], trial.label / 10)


@pytest.mark.parametrize("batch", [1, 7, 64, 99])
def test_classes_in_turn_whatever_the_batch(batch):
    system = build(page("cgan"))
    system.generator = Echo()
    for label, wanted in ((None, torch.arange(150) % 10), (3, torch.full((150,), 3))):
        network = system.deployed(label)
        pipe = Pipeline(network, "echo", task="conditional", scale=1, channels=1, verb="synthesize")
        drawn = pipe.to("cpu", "fp32").draw(torch.randn(150, 2), batch=batch)
        assert torch.equal((drawn[:, 0, 0, 0] * 10).round().long(), wanted)


def test_half_precision():
    """As a pipeline runs it: weights and latents in bf16."""
    system = build(page("cgan")).eval()
    network, z = system.deployed(label=3).bfloat16(), torch.randn(2, 6)
    found = network(z.bfloat16())
    assert found.dtype == torch.bfloat16
    plain = build(page("cgan")).eval()
    plain.load_state_dict({key: value.float() for key, value in system.state_dict().items()})
    assert torch.allclose(found.float(), plain.infer(z, 3), atol=0.05)


def test_the_auxiliary_term(batch):
    """Odena et al. 2016: L_C is the cross entropy over both kinds of images (halved here) or the made ones alone."""
    system = build(page("acgan")).eval()
    logits = torch.randn(2, 4, 11)
    seen = []

    def discriminator(images, labels=None):
        seen.append(images)
        return logits[0] if images is batch["real"] else logits[1]

    system.discriminator.forward = discriminator
    wanted = [functional.cross_entropy(each[:, 1:], batch["label"], reduction="none") for each in logits]
    found = system.losses("discriminator", batch, 0)
    assert torch.allclose(found["cross_entropy"], (wanted[0] + wanted[1]) / 2)
    assert torch.allclose(
        found["adversarial"], functional.softplus(-logits[0, :, 0]) + functional.softplus(logits[1, :, 0])
    )
    found = system.losses("generator", batch, 0)
    assert torch.allclose(found["cross_entropy"], wanted[1])


@pytest.mark.parametrize("name", ["cgan", "projection"])
def test_the_label_matters_to_both(name, batch):
    system = build(page(name, **{"networks.discriminator.norm": "none"})).eval()
    for parameter in system.discriminator.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    other = {"real": batch["real"], "label": (batch["label"] + 1) % 10}
    z = torch.randn(4, 6)
    assert not torch.equal(system.infer(z, batch["label"]), system.infer(z, other["label"]))
    judged = [system.discriminator(each["real"], each["label"]) for each in (batch, other)]
    assert not torch.allclose(*judged)


def test_a_generator_without_classes_is_refused():
    with pytest.raises(ValueError, match="needs a generator with classes"):
        build(page("cgan", **{"networks.generator.classes": 0}))
    with pytest.raises(ValueError, match="outputs = 1 \\+ classes"):
        build(page("infogan", **{"networks.discriminator.outputs": 5}))


def test_infogan_codes(batch):
    """The terms are those of the logits behind the first, against the codes that made the images."""
    system = build(page("infogan")).eval()
    assert system.continuous == 2
    z = system.latents(5000, torch.device("cpu"))
    assert z[:, :2].abs().max() <= 1 and z[:, :2].var(0).mean().item() == pytest.approx(1 / 3, rel=0.05)
    assert z[:, 2:].var(0).mean().item() == pytest.approx(1, rel=0.05)
    asked = []
    system.generator.forward = lambda z, labels: (asked.append((z, labels)), batch["real"] * 0.5)[1]
    logits = torch.randn(4, 13)
    system.discriminator.forward = lambda images, labels=None: logits
    for phase in ("discriminator", "generator"):
        found = system.losses(phase, batch, 0)
        z, category = asked[-1]
        assert torch.allclose(
            found["cross_entropy"] if "cross_entropy" in found else found["category_cross_entropy"],
            functional.cross_entropy(logits[:, 1:11], category, reduction="none"),
        )
        assert torch.allclose(found["continuous_mse"], 0.1 * (logits[:, 11:] - z[:, :2]).square().mean(1))


def test_infogan_draws_what_it_learns_with(batch):
    """Its latents are as in training, and codes that are asked for are those that the generator gets."""
    system = build(page("infogan")).eval()
    asked = []
    system.generator.forward = lambda z, labels: (asked.append((z, labels.argmax(1))), batch["real"][:1] * z[0, 0])[1]

    def drawn(count, **controls):
        asked.clear()
        network = system.deployed(**controls)
        pipe = Pipeline(network, "x", task="infogan", scale=1, channels=1, verb="synthesize").to("cpu", "fp32")
        pipe.network = network  # of which the one in use is a copy
        pipe.draw(pipe.latents(count, seed=3), batch=count)
        return pipe.latents(count, seed=3), *asked[0]

    given, z, label = drawn(4000)
    assert torch.equal(z[:, 2:], given[:, 2:]) and torch.equal(label, torch.arange(4000) % 10)
    for place in range(2):
        assert stats.kstest(z[:, place].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
        assert torch.equal(z[:, place].argsort(), given[:, place].argsort())
    assert torch.allclose(drawn(4000, code=(0.5,))[1], torch.cat([torch.full((4000, 1), 0.5), z[:, 1:]], 1))
    fixed = drawn(3, label=7, code=[0.5, -1])
    assert (fixed[1][:, :2] == torch.tensor([0.5, -1])).all() and torch.equal(fixed[1][:, 2:], z[:3, 2:])
    assert (fixed[2] == 7).all()
    for wrong in ((0, 0, 0), (1.5,)):
        with pytest.raises(ValueError, match="must be 2 numbers or fewer, -1 to 1"):
            system.deployed(code=wrong)


def test_one_class_on_the_way():
    """Between two latents the class stays: the one that was asked for, else the first."""
    system = build(page("cgan"))
    system.generator = Echo()
    for label, wanted in ((None, 0), (3, 3)):
        pipe = Pipeline(system.deployed(label), "echo", task="conditional", scale=1, channels=1, verb="synthesize")
        pipe.to("cpu", "fp32")
        levels = [np.asarray(image).mean() for image in pipe.sample(5, interpolate=4, batch=3)]
        assert len(levels) == 20 and np.allclose(levels, round(wanted * 25.5))


def test_conditional_learns(tmp_path):
    """Each of three classes has its own grey level; the generator gives the one that is asked for."""
    for place, level in enumerate((40, 128, 220)):
        (tmp_path / "data" / str(place)).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8), level + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / str(place) / f"{number}.png")
    settings = {
        "name": "x",
        "task": "conditional",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "dcgan_generator", "width": 8, "latent": 4, "classes": 3},
            "discriminator": {"type": "dcgan_discriminator", "width": 8, "norm": "none", "classes": 3},
        },
        "adversarial": {"type": "relativistic"},
        "penalty": [{"type": "r1", "weight": 0.1}],
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9]},
        "data": {"size": 8, "channels": 1, "flip": False},
        "train": {"images": 12 * 200, "batch": 12, "ema": 0.95, "log_images": 100000},
    }
    (tmp_path / "page.json").write_text(json.dumps(settings))
    options = {"device": "cpu", "precision": "fp32", "progress": False}
    Trainer(Recipe.parse(settings), tmp_path / "data", tmp_path / "run", **options).run()
    for label, level in enumerate((41.5, 129.5, 221.5)):
        images = img2img.synthesize(tmp_path / "run", label=label, count=8, device="cpu", precision="fp32")
        assert abs(np.mean([np.asarray(image) for image in images]) - level) < 20
    with pytest.raises(ValueError, match="label 3 must be 0 to 2"):
        img2img.synthesize(tmp_path / "run", label=3)
    with pytest.raises(ValueError, match="x: has no 'text' to choose, but label"):
        img2img.synthesize(tmp_path / "run", text="three")


def test_a_reading_discriminator_has_an_output_for_every_class():
    for outputs in (1, 10, 13):
        with pytest.raises(ValueError, match=r"set networks\.discriminator\.outputs = 11"):
            build(page("acgan", **{"networks.discriminator.outputs": outputs}))


def test_codes_are_numbers_of_the_latent():
    with pytest.raises(ValueError, match="outputs leave 2 codes for a latent of 1"):
        build(page("infogan", **{"networks.generator.latent": 1}))


def test_a_conditional_pyramid_hands_the_label_to_every_level():
    players = {
        f"networks.{role}.{key}": n
        for role in ("generator", "discriminator")
        for key, n in (("width", 4), ("classes", 3))
    }
    game = {"task": "conditional_pyramid", "data.size": 16, "data.channels": 1}
    system = build(read("lapgan").override(game | players))
    torch.manual_seed(0)
    batch = {"real": torch.rand(4, 1, 16, 16), "label": torch.tensor([0, 1, 2, 0])}
    for phase in ("discriminator", "generator"):
        losses = {}
        for label in (batch["label"], batch["label"].flip(0) + 1):
            torch.manual_seed(0)
            losses[len(losses)] = system.losses(phase, batch | {"label": label % 3}, 0)
        assert set(losses[0]) == {"adversarial_0", "adversarial_1"}
        assert all(not torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert system.infer(system.latents(3, torch.device("cpu"))).shape == (3, 1, 16, 16)
