"""Discriminators and encoders that classify: what their terms are, which labels they see, that they learn of few."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special
from torch import nn
from torch.nn import functional

from img2img.data.labelled import FewLabels
from img2img.networks.conditional import one_hot
from img2img.recipe import Recipe, read
from img2img.systems.semi_supervised import Realness
from img2img.systems.system import build
from img2img.trainer import Trainer


def page(**changes):
    small = {"networks.generator.width": 8, "networks.discriminator.width": 16, "data.size": 8, "augment": []}
    quiet = {"networks.discriminator.noise": 0.0, "fidelity.0.weight": 1.0}
    return read("semi_supervised").override(small | quiet | changes)


def test_terms_are_those_of_a_softmax_over_classes_and_fake():
    """Section 5 of the paper: a softmax over n + 1 logits whose last is 0."""
    torch.manual_seed(0)
    system = build(page()).eval()
    batch = {name: torch.rand(4, 1, 8, 8) * 2 - 1 for name in ("real", "labelled")} | {"label": torch.arange(4)}
    fake = torch.rand(4, 1, 8, 8)
    logits = {id(batch["real"]): torch.randn(4, 10), id(batch["labelled"]): torch.randn(4, 10)}
    made = torch.randn(4, 10)
    system.generator.forward = lambda z: fake
    system.discriminator.forward = lambda x: logits.get(id(x), made)
    found = system.losses("discriminator", batch, 0)

    def logs(values):
        return functional.log_softmax(torch.cat([values, torch.zeros(4, 1)], 1), 1)

    real = -torch.log(1 - logs(logits[id(batch["real"])])[:, 10].exp())
    assert torch.allclose(found["adversarial"], real - logs(made)[:, 10], atol=1e-5)
    seen = logs(logits[id(batch["labelled"])])
    of_classes = seen[:, :10] - torch.log(1 - seen[:, 10:].exp())  # given that it is no fake
    assert torch.allclose(found["cross_entropy"], -of_classes[torch.arange(4), batch["label"]], atol=1e-5)


def test_the_generator_matches_features():
    torch.manual_seed(0)
    system = build(page()).eval()
    real, fake = torch.rand(2, 6, 1, 8, 8)
    system.generator.forward = lambda z: fake.requires_grad_()
    found = system.losses("generator", {"real": real}, 0)
    features = [system.discriminator.layers(x.flatten(1)).detach().numpy() for x in (real, fake)]
    wanted = np.square(features[0].mean(0) - features[1].mean(0)).sum()
    assert found["feature_matching"].tolist() == pytest.approx([wanted] * 6, rel=1e-4)
    assert (found["adversarial"] == 0).all()


def test_realness_is_exact_where_exponentials_overflow():
    network = nn.Linear(2, 2, bias=False)
    network.features = None
    nn.init.eye_(network.weight)
    assert Realness(network)(torch.tensor([[1000.0, 0.0], [-1000.0, -1000.0]])).flatten().tolist() == [
        1000,
        -1000 + np.log(2).astype(np.float32),
    ]


def encoding(**changes):
    roles = ("generator", "encoder", "discriminator", "category_discriminator")
    small = {f"networks.{role}.width": 8 for role in roles} | {"networks.generator.latent": 3, "data.size": 8}
    return read("aae_semi_supervised").override(small | changes)


def test_terms_of_the_autoencoder():
    """Two games over codes, with the sums of styles and the class's number as logits; the rest by numpy and scipy."""
    torch.manual_seed(0)
    system, count = build(encoding()).eval(), torch.arange(10.0)
    real, labelled = torch.rand(2, 4, 1, 8, 8) * 2 - 1
    batch = {"real": real, "labelled": labelled, "label": torch.tensor([3, 1, 4, 1])}
    said = {id(real): torch.randn(4, 13), id(labelled): torch.randn(4, 13)}
    system.encoder.forward = lambda x: said[id(x)]
    seen = []
    system.discriminator.forward = lambda z: (seen.append(z), z.sum(1, keepdim=True))[1]
    system.category_discriminator.forward = lambda y: (seen.append(y), y @ count[:, None])[1]
    system.generator.forward = lambda z, y: (z[:, 0] + one_hot(y, 10)[:, 1] / 2).view(-1, 1, 1, 1).expand_as(real)
    style, shares = said[id(real)][:, :3], torch.from_numpy(special.softmax(said[id(real)][:, 3:].numpy(), 1))
    scores = style.sum(1), shares @ count
    found = system.losses("discriminator", batch, 0)
    assert torch.equal(system.encode(real, draw=True), style)
    # Each game looks at the prior, at the codes, and for R1 at the prior again.
    assert torch.equal(seen[1], style) and torch.allclose(seen[4], shares)
    assert torch.equal(seen[2], seen[0]) and torch.equal(seen[5], seen[3])
    assert set(seen[3].unique().tolist()) == {0, 1} and (seen[3].sum(1) == 1).all()
    priors = seen[0].sum(1), seen[3] @ count
    for name, square in (("style", 3.0), ("category", float(count @ count))):
        assert torch.allclose(found[f"r1_{name}"], torch.full((4,), 0.1 * square / 2))
    for name, prior, score in zip(("style", "category"), priors, scores, strict=True):
        wanted = functional.softplus(-prior) + functional.softplus(score)
        assert torch.allclose(found[f"adversarial_{name}"], wanted, atol=1e-6)
    found = system.losses("generator", batch, 0)
    for name, score in zip(("style", "category"), scores, strict=True):
        wanted = system.recipe.adversarial["weight"] * functional.softplus(-score)
        assert torch.allclose(found[f"adversarial_{name}"], wanted, atol=1e-6)
    again = (style[:, 0] + shares[:, 1] / 2).view(-1, 1, 1, 1)
    assert torch.allclose(found["mse"], (again - real).square().mean((1, 2, 3)), atol=1e-6)
    logs = special.log_softmax(said[id(labelled)][:, 3:].numpy(), 1)[np.arange(4), batch["label"]]
    assert np.allclose(found["label_cross_entropy"], -0.1 * logs, atol=1e-6)
    read = shares.argmax(1)
    trial = system.trial({"real": real, "label": (read + torch.tensor([0, 0, 0, 1])) % 10})[""]
    assert torch.equal(system.classify(real), read) and trial.right.tolist() == [1, 1, 1, 0]
    assert torch.equal(trial.output[:, 0, 0, 0], (style[:, 0] + (read == 1) / 2).clamp(-1, 1))


def folder(path, count=6):
    """Write three classes, a bright bar in one of three places over noise."""
    rng = np.random.default_rng(0)
    for place in range(3):
        (path / str(place)).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (8, 8))
            pixels[:, 3 * place : 3 * place + 2] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(path / str(place) / f"{number}.png")
    return path


def test_few_labels_are_even_and_fixed(tmp_path):
    found = FewLabels(folder(tmp_path), 8, labels=6, classes=3)
    assert len(found) == 18 and found.labels[found.known].tolist() == [0, 0, 1, 1, 2, 2]
    assert [found.images.files[place].name for place in found.known] == ["0.png", "1.png"] * 3
    drawn = [found.item(index % 18, np.random.default_rng(index)) for index in range(200)]
    counts = torch.bincount(torch.stack([item["label"] for item in drawn]))
    assert counts.min() > 40
    known = {tuple(found.images[int(place)].flatten().tolist()) for place in found.known}
    shown = {tuple(((item["labelled"] + 1) * 127.5).round().int().flatten().tolist()) for item in drawn}
    assert shown == known
    assert len(FewLabels(tmp_path, 8).known) == 18
    with pytest.raises(ValueError, match="data.labels = 100 must be a multiple of the 3 classes"):
        FewLabels(tmp_path, 8, labels=100)


@pytest.mark.parametrize("of", [page, encoding])
def test_learns_of_three_labels(of, tmp_path):
    recipe = of(
        **{
            ("networks.discriminator.outputs" if of is page else "networks.generator.classes"): 3,
            "data.labels": 3,
            "train.images": 16 * (60 if of is page else 100),
            "train.batch": 16,
            "train.ema": 0.9,
            "validate.images": 0,
        }
    )
    folder(tmp_path / "train", 8)
    options = {"device": "cpu", "precision": "fp32", "progress": False, "validation": folder(tmp_path / "judge", 20)}
    found = Trainer(Recipe.parse(recipe.page()), tmp_path / "train", tmp_path / "run", **options).run()
    assert found["validation/target_accuracy"] > 0.9
