"""Adaptation between domains: what the terms are, and that small games are won."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from img2img.networks.classifier import trained
from img2img.networks.cogan import CoGANDiscriminator, CoGANGenerator
from img2img.networks.refiner import Refiner
from img2img.pipeline import load
from img2img.recipe import Recipe, read
from img2img.systems.adapt import coloured
from img2img.systems.system import build
from img2img.trainer import Trainer


def page(name, **changes):
    return read(name).override(
        {"networks.generator.width": 4, "networks.discriminator.width": 4, "data.size": 8} | changes
    )


def test_refiner():
    network = Refiner(4, 2, channels=3, input_channels=1, noise=5).eval()
    x = torch.rand(2, 1, 9, 7)
    assert network(x).shape == (2, 3, 9, 7) and network(x).abs().max() <= 1
    assert torch.equal(network(x), network(x, torch.zeros(2, 5, 9, 7)))
    assert not torch.equal(network(x), network(x, torch.ones(2, 5, 9, 7)))
    assert Refiner(4, 1)(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)


def test_refiner_margin():
    """A changed pixel reaches as far as ``margin`` says, and no farther."""
    network = Refiner(4, 2, norm="none")
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    x = torch.zeros(1, 3, 41, 41)
    y = x.clone()
    y[..., 20, 20] = 1
    rows = torch.nonzero((network(x) != network(y)).any(1)[0].any(1)).flatten()
    assert network.margin == 20 - int(rows.min()) == int(rows.max()) - 20 == 2 + 2 * 2


def test_coloured():
    grey, red = torch.rand(2, 1, 3, 3), torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1)
    assert torch.equal(coloured(grey, 3), grey.repeat(1, 3, 1, 1)) and coloured(grey, 1) is grey
    assert coloured(red, 1).item() == pytest.approx(0.5)


def test_pixelda_terms():
    """Equation 3: the task's loss is the sum of those on source images and on what becomes of them."""
    torch.manual_seed(0)
    system = build(page("pixelda")).eval()
    batch = {
        "source": torch.rand(4, 1, 8, 8) * 2 - 1,
        "target": torch.rand(4, 3, 8, 8),
        "label": torch.tensor([1, 2, 3, 4]),
    }
    adapted, logits = torch.rand(4, 3, 8, 8), torch.randn(2, 4, 10)
    drawn = []
    system.generator.forward = lambda x, z=None: (drawn.append(z), adapted)[1]
    system.classifier.forward = lambda images: logits[int(images is adapted)]
    system.discriminator.forward = lambda images: (
        torch.full((4, 1), 2.0) if images is batch["target"] else torch.full((4, 1), -1.0)
    )
    found = system.losses("generator", batch, 0)
    wanted = sum(functional.cross_entropy(each, batch["label"], reduction="none") for each in logits)
    assert torch.allclose(found["cross_entropy"], wanted)
    assert torch.allclose(found["adversarial"], functional.softplus(torch.tensor(1.0)).expand(4))
    assert drawn[0].shape == (4, 8, 8, 8) and drawn[0].abs().max() <= 1 and drawn[0].min() < 0
    found = system.losses("discriminator", batch, 0)
    value = functional.softplus(torch.tensor(-2.0)) + functional.softplus(torch.tensor(-1.0))
    assert found.keys() == {"adversarial"} and torch.allclose(found["adversarial"], value.expand(4))


def test_what_the_classifier_reads_is_told():
    system = build(page("pixelda")).eval()
    system.classifier.forward = lambda images: torch.eye(10)[torch.tensor([3, 5, 3])]
    batch = {"source": torch.zeros(3, 1, 8, 8), "target": torch.zeros(3, 3, 8, 8), "label": torch.zeros(3).long()}
    assert system.trial(batch)[""].right is None
    trial = system.trial(batch | {"target_label": torch.tensor([3, 4, 3])})[""]
    assert trial.right.tolist() == [1, 0, 1] and trial.output.shape == (3, 3, 8, 8)


def test_a_refiner_in_use_has_no_noise():
    torch.manual_seed(0)
    network, x = Refiner(4, 1, 3, 1, noise=5).eval(), torch.rand(2, 1, 6, 7)
    plain = network.deploy()
    assert torch.allclose(plain(x), network(x), atol=1e-6) and plain.noise == 0 and network.noise == 5
    assert plain.enter[0].weight.shape == (4, 1, 3, 3) and network.enter[0].weight.shape == (4, 6, 3, 3)


def test_simgan_terms():
    """Equation 3: lambda times the distance to the input; the discriminator judges what the pool gives."""
    system = build(page("simgan")).eval()
    batch = {"a": torch.zeros(2, 1, 8, 8), "b": torch.ones(2, 1, 8, 8)}
    system.generator.forward = lambda x: x + 0.25
    found = system.losses("generator", batch, 0)
    assert torch.allclose(found["l1"], torch.full((2,), 5 * 0.25))
    system.losses("discriminator", batch, 0)
    assert int(system.pool.count) == 2 and (system.pool.images[:2] == 0.25).all()


def test_cogan_shares_what_is_far_from_pixels():
    torch.manual_seed(0)
    generator, discriminator = CoGANGenerator(6, 4, 8, 1).eval(), CoGANDiscriminator(4, 8, 1).eval()
    z = torch.randn(3, 6)
    pair = generator(z)
    assert pair.shape == (3, 2, 1, 8, 8) and not torch.equal(pair[:, 0], pair[:, 1])
    generator.own[1].load_state_dict(generator.own[0].state_dict())
    discriminator.own[1].load_state_dict(discriminator.own[0].state_dict())
    assert torch.equal(generator(z)[:, 0], generator(z)[:, 1])
    assert torch.equal(discriminator(pair[:, 0], 0), discriminator(pair[:, 0], 1))
    system = build(page("cogan", **{"networks.generator.latent": 6})).eval()
    both = [system.infer(z, side) for side in "ab"]
    assert torch.equal(torch.stack(both, 1), system.generator(z))
    assert torch.equal(system.deployed(side="b")(z), both[1])
    with pytest.raises(ValueError, match="side 'c' is none of a, b"):
        system.deployed(side="c")


def test_labelled_cogan_terms():
    """CoGAN's two games of the first output; what the others read in source images; that halves are read alike."""
    torch.manual_seed(0)
    system = build(page("cogan_labelled", **{"networks.generator.latent": 6})).eval()
    plain = build(page("cogan", **{"networks.generator.latent": 6})).eval()
    x, y, label = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8), torch.tensor([3, 0, 9])
    scores = system.discriminator(x, 0), system.discriminator(y, 1)
    assert scores[0].shape == (3, 11) and torch.equal(system.classify(y), scores[1][:, 1:].argmax(1))
    plain.generator.load_state_dict(system.generator.state_dict())
    assert plain.discriminator.shared[-1].out_features == 1
    state, last = system.discriminator.state_dict(), f"shared.{len(plain.discriminator.shared) - 1}"
    state |= {name: value[:1] for name, value in state.items() if name.startswith(last)}
    plain.discriminator.load_state_dict(state)
    for phase in ("generator", "discriminator"):
        torch.manual_seed(1)
        found = system.losses(phase, {"source": x, "target": y, "label": label}, 0)
        torch.manual_seed(1)
        wanted = plain.losses(phase, {"a": x, "b": y}, 0)
        torch.manual_seed(1)
        pair = system.generator(system.latents(3, x.device))
        shown, read = (system.discriminator(pair[:, place], place)[:, 1:] for place in (0, 1))
        loss = 0.05 * functional.cross_entropy(read, shown.argmax(1), reduction="none")
        assert torch.allclose(found.pop("pair_cross_entropy"), loss)
        if phase == "discriminator":
            read = found.pop("cross_entropy")
            assert torch.allclose(read, functional.cross_entropy(scores[0][:, 1:], label, reduction="none"))
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    batch = {"source": x, "target": y, "label": label}
    assert system.trial(batch)[""].right is None
    right = system.trial(batch | {"target_label": system.classify(y)})[""].right
    assert right.tolist() == [1, 1, 1]


def squares_of_two_colours(folder):
    """The class is where a square is, the domain its colour: ``source`` is white, ``target`` red."""
    rng = np.random.default_rng(0)
    for part in ("source", "target"):
        for label in range(2):
            (folder / part / str(label)).mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(0, 20, (8, 8, 1)).repeat(3, 2)
                pixels[2:6, 1 + 3 * label : 4 + 3 * label] += 200
                if part == "target":
                    pixels[..., 1:] //= 4
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / str(label) / f"{number}.png")
    return [folder / "source", folder / "target"]


def test_labelled_cogan_learns(tmp_path):
    """Targets, for which no label was ever seen, are read right: the layers that all images share learnt of others."""
    settings = {
        "name": "x",
        "task": "cogan_labelled",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "cogan_generator", "latent": 8, "width": 8},
            "discriminator": {"type": "cogan_discriminator", "width": 8, "outputs": 3},
        },
        "adversarial": {"type": "relativistic"},
        "penalty": [{"type": "r1", "weight": 0.1}, {"type": "r2", "weight": 0.1}],
        "fidelity": [{"type": "cross_entropy", "on": "label"}],
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9]},
        "data": {"size": 8, "channels": 3, "flip": False},
        "train": {"images": 12 * 100, "batch": 12, "ema": 0.9, "log_images": 100000, "validate_images": 10000},
        "validate": {"metrics": ["target_accuracy"], "images": 12},
    }
    folders = squares_of_two_colours(tmp_path)
    options = {"validation": folders, "device": "cpu", "precision": "fp32", "progress": False}
    trainer = Trainer(Recipe.parse(settings), folders, tmp_path / "run", **options)
    assert trainer.validate()["validation/target_accuracy"] < 0.9
    assert trainer.run()["validation/target_accuracy"] == 1
    files = sorted((tmp_path / "target").rglob("*.png"))
    assert load(tmp_path / "run", device="cpu", precision="fp32").classify(files) == {f: f.parent.name for f in files}


def test_pixelda_learns(tmp_path):
    """Squares of two colours: targets are read right, adapted images get the colour."""
    settings = {
        "name": "x",
        "task": "pixelda",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "refiner", "width": 8, "blocks": 1, "noise": 2},
            "discriminator": {"type": "dcgan_discriminator", "width": 8, "norm": "none"},
            "classifier": {"type": "classifier", "classes": 2, "width": 4, "norm": "instance"},
        },
        "adversarial": {"type": "logistic", "weight": 0.3},
        "penalty": [{"type": "r1", "weight": 0.1}],
        "fidelity": [{"type": "cross_entropy", "on": "task"}],
        "optimizer": {"lr": 3e-3, "betas": [0.5, 0.9]},
        "data": {"size": 8, "channels": 3, "input_channels": 1, "flip": False},
        "train": {"images": 12 * 80, "batch": 12, "ema": 0.9, "log_images": 100000, "validate_images": 10000},
        "validate": {"metrics": ["target_accuracy"], "images": 12},
    }
    folders = squares_of_two_colours(tmp_path)
    options = {"validation": folders, "device": "cpu", "precision": "fp32", "progress": False}
    trainer = Trainer(Recipe.parse(settings), folders, tmp_path / "run", **options)
    line = trainer.run()
    assert line["validation/target_accuracy"] == 1
    rng = np.random.default_rng(0)
    batch = [trainer.check.item(place, rng) for place in range(12)]
    source, target = (torch.stack([item[name] for item in batch]) for name in ("source", "target"))
    with torch.no_grad():
        adapted = trainer._averaged().infer(source)
    colour, wanted, before = ((x[:, 0] - x[:, 1]).mean() for x in (adapted, target, source.expand(-1, 3, -1, -1)))
    assert before == 0 and colour > 0.4 * wanted > 0.1


def test_dtn_terms():
    """Equations 5 to 7: both kinds of drawings are fakes; f-constancy is of source images, identity of target ones."""
    torch.manual_seed(0)
    system = build(page("dtn")).eval()
    batch = {"source": torch.rand(2, 3, 8, 8), "target": torch.rand(2, 1, 8, 8)}
    drawn = {"source": torch.full((2, 1, 8, 8), 0.5), "target": torch.full((2, 1, 8, 8), -0.5)}
    seen = {"source": torch.full((2, 64), 1.0), "target": torch.full((2, 64), 2.0)}
    scores = {"source": -1.0, "target": -2.0}

    def features(x):
        return next((seen[side] for side in batch if x is batch[side]), torch.full((2, 64), 1.25))

    def judge(x):
        known = [scores[side] for side in drawn if torch.equal(x, drawn[side])]
        return torch.full((2, 1), known[0] if known else 3.0)

    system.features.forward, system.discriminator.forward = features, judge
    system.generator.forward = lambda z: drawn["source" if z is seen["source"] else "target"]
    found = system.losses("generator", batch, 0)
    wanted = {
        "adversarial_source": functional.softplus(torch.tensor(1.0)).expand(2),
        "adversarial_target": functional.softplus(torch.tensor(2.0)).expand(2),
        "mse_source": torch.full((2,), 15 * 0.25**2),
        "identity_mse_target": 15 * (batch["target"] + 0.5).square().mean((1, 2, 3)),
    }
    assert found.keys() == wanted.keys() and all(torch.allclose(found[name], wanted[name]) for name in wanted)
    found = system.losses("discriminator", batch, 0)
    for side, score in scores.items():
        value = functional.softplus(torch.tensor(-3.0)) + functional.softplus(torch.tensor(score))
        assert torch.allclose(found[f"adversarial_{side}"], value.expand(2))


def test_dtn_features_are_fixed():
    """Training changes nothing in them, batch norms' statistics included; gradients pass through."""
    torch.manual_seed(0)
    system = build(page("dtn")).train()
    before = {key: value.clone() for key, value in system.features.state_dict().items()}
    system.features(system.generator(torch.rand(4, 64))).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in system.features.state_dict().items())
    assert all(parameter.grad is not None for parameter in system.generator.parameters())
    images = torch.rand(2, 3, 28, 28)
    expected = trained("digits_m").network.features(images * 2 - 1)
    assert torch.allclose(system.features(images * 2 - 1), expected, atol=1e-5)
    system.eval()
    assert system.deployed()(images[..., ::2, ::2]).shape == (2, 1, 14, 14)
    large = build(page("dtn", **{"data.size": 28})).eval()
    assert torch.equal(large.deployed()(images), large.infer(images))


def test_dtn_learns(tmp_path):
    """Red digits become white ones: an independent reader sees the labels of the source."""
    for part, colour in (("source", (255, 120, 120)), ("target", (255, 255, 255))):
        for label in range(2):
            (tmp_path / part / str(label)).mkdir(parents=True)
            for number in range(6):
                sheet = Image.new("RGB", (28, 28))
                draw, x = ImageDraw.Draw(sheet), 8 + number % 3
                if label:
                    draw.rectangle((x + 4, 5, x + 5, 22), fill=colour)
                else:
                    draw.ellipse((x, 5, x + 10, 22), outline=colour, width=2)
                sheet.save(tmp_path / part / str(label) / f"{number}.png")
    changes = {"train.batch": 12, "train.images": 12 * 120, "train.ema": 0.9, "train.log_images": 10_000}
    widths = {"networks.generator.width": 8, "networks.discriminator.width": 4, "optimizer.generator.lr": 5e-3}
    folders = [tmp_path / "source", tmp_path / "target"]
    options = {"validation": folders, "device": "cpu", "precision": "fp32", "progress": False}
    trainer = Trainer(read("dtn").override(changes | widths), folders, tmp_path / "run", **options)
    assert trainer.validate()["validation/accuracy[classifier.digits]"] < 0.6
    assert trainer.run()["validation/accuracy[classifier.digits]"] > 0.9


@pytest.mark.parametrize("name", ["cogan", "simgan"])
def test_digits_are_learnt_as_they_are(tmp_path, name):
    """Neither enlarged nor cut at the border, as CycleGAN's photos are."""
    for side in "AB":
        (tmp_path / side / "0").mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / side / "0" / "a.png")
    system = build(page(name))
    source = system.source([tmp_path])
    rng = np.random.default_rng(1)
    assert torch.equal(source.item(0, rng)["a"], torch.from_numpy(pixels)[None] / 127.5 - 1)


def test_domains_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"both domains have data\.channels = 1; drop input_channels"):
        build(page("cogan", **{"data.input_channels": 3}))
