"""Encoders: the games over pairs and over codes, against their formulas, and that small ones are won."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional

from img2img.networks.joint import Encoder, JointDiscriminator
from img2img.recipe import Recipe, read
from img2img.systems.bidirectional import OfPairs, pairs
from img2img.systems.system import build, restore
from img2img.trainer import Trainer

SMALL = {"networks.generator.width": 4, "networks.encoder.width": 4, "networks.generator.latent": 3, "data.size": 8}


def page(name, **changes):
    return read(name).override(SMALL | ({"networks.discriminator.width": 4}) | changes)


@pytest.fixture
def real():
    torch.manual_seed(0)
    return torch.rand(4, 1, 8, 8) * 2 - 1


def test_encoder():
    x = torch.rand(2, 3, 16, 16)
    assert Encoder(5, 4, 16, 3)(x).shape == (2, 5) and Encoder(5, 4, 16, 3, stochastic=True)(x).shape == (2, 10)
    assert Encoder(5, 4, 16, 3).features(x).shape == (2, 8 * 4 * 4)


def test_joint_discriminator_judges_both():
    torch.manual_seed(0)
    network, x, z = JointDiscriminator(3, 4, 8, 8, 1), torch.rand(2, 1, 8, 8), torch.randn(2, 3)
    score = network(x, z)
    assert score.shape == (2, 1)
    assert not torch.equal(network(x * 0, z), score) and not torch.equal(network(x, z * 0), score)
    critic = OfPairs(network, torch.nn.Identity())
    assert torch.equal(critic(pairs(x, z)), score)


@pytest.mark.parametrize("name", ["bigan", "ali", "alice"])
def test_terms_of_the_joint_game(name, real):
    """BiGAN's game with the non-saturating cost: the encoder wants its pairs to be taken for made ones."""
    system = build(page(name)).eval()
    given, drawn = torch.randn(2, 4, 1), []
    system.discriminator.forward = lambda x, z: (drawn.append(z), given[0 if torch.equal(x, real) else 1])[1]
    system.penalties = []
    found = system.losses("discriminator", {"real": real}, 0)
    wanted = functional.softplus(-given[0]) + functional.softplus(given[1])
    assert torch.allclose(found["adversarial"], wanted[:, 0])
    found = system.losses("generator", {"real": real}, 0)
    assert torch.allclose(found["adversarial"], functional.softplus(-given[1])[:, 0])
    assert torch.allclose(found["encoder"], functional.softplus(given[0])[:, 0])
    assert ("l1" in found) == (name == "alice")
    if name == "alice":
        again = system.generator(drawn[-1])
        assert torch.allclose(found["l1"], (again - real).abs().mean((1, 2, 3)))


def test_codes_of_a_stochastic_encoder(real):
    system = build(page("ali")).eval()
    said = torch.tensor([1.0, -2.0, 0.5, *np.log([4.0, 0.25, 1.0])], dtype=torch.float32)
    system.encoder.forward = lambda x: said.expand(len(x), 6)
    many = torch.zeros(20_000, 1, 8, 8)
    assert torch.equal(system.encode(many)[0], said[:3])
    code = system.encode(many, draw=True).numpy()
    for place, (mean, deviation) in enumerate(((1, 2), (-2, 0.5), (0.5, 1))):
        assert stats.kstest(code[:, place], stats.norm(mean, deviation).cdf).pvalue > 1e-3
    plain = build(page("bigan")).eval()
    assert torch.equal(plain.encode(real, draw=True), plain.encode(real))


def test_terms_of_the_adversarial_autoencoder(real):
    system = build(page("aae")).eval()
    code = system.encode(real).detach()
    scores = []

    def discriminator(z):
        scores.append((z, z.sum(1, keepdim=True)))
        return scores[-1][1]

    system.discriminator.forward = discriminator
    found = system.losses("discriminator", {"real": real}, 0)
    (prior, one), (seen, other), (place, _) = scores
    assert torch.allclose(seen, code) and prior.shape == code.shape
    # The gradient of a sum is 1 everywhere; the prior is what is real here.
    assert torch.equal(place, prior) and torch.allclose(found["r1"], torch.full((len(real),), 0.1 * code.shape[1] / 2))
    assert torch.allclose(found["adversarial"], (functional.softplus(-one) + functional.softplus(other))[:, 0])
    found = system.losses("generator", {"real": real}, 0)
    assert torch.allclose(found["mse"], (system.generator(code) - real).square().mean((1, 2, 3)), atol=1e-6)
    weight = system.recipe.adversarial["weight"]
    assert torch.allclose(found["adversarial"], weight * functional.softplus(-code.sum(1)), atol=1e-6)


def test_a_told_class_is_drawn(real):
    system = build(page("aae_supervised")).eval()
    label = torch.tensor([3, 1, 4, 1])

    def grey(z, labels):
        return torch.tanh(z[:, :1, None, None] + labels[:, None, None, None] / 10).expand_as(real)

    system.generator.forward = grey
    wanted = grey(system.encode(real), label)
    found = system.losses("generator", {"real": real, "label": label}, 0)
    assert torch.allclose(found["mse"], (wanted - real).square().mean((1, 2, 3)), atol=1e-6)
    trial = system.trial({"real": real, "label": label})[""]
    assert torch.allclose(trial.output, wanted, atol=1e-6) and trial.label is label


def test_what_pages_cannot_say():
    with pytest.raises(ValueError, match="needs a game whose players can be exchanged"):
        build(page("bigan", adversarial={"type": "relativistic"}))
    turned = read("bigan").page()
    turned["networks"] = dict(reversed(turned["networks"].items()))
    with pytest.raises(ValueError, match="put the generator first"):
        build(Recipe.parse(turned))


@pytest.mark.parametrize("name", ["alice", "aae", "avb"])
def test_learns_to_reconstruct(name, tmp_path):
    """Squares of four grey levels at four places come back nearer than their mean, which a constant would give."""
    levels = np.zeros((16, 8, 8), np.uint8)
    for place in range(16):
        row, column = divmod(place // 4, 2)
        levels[place, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 80 + 50 * (place % 4)
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(levels[place]).save(tmp_path / "data" / f"{place}.png")
    changes = {"networks.generator.width": 8, "networks.encoder.width": 8, "train.ema": 0.95, "optimizer.lr": 2e-3}
    changes |= {"train.images": 16 * 250, "train.batch": 16, "train.log_images": 10**6, "validate.metrics": []}
    options = {"device": "cpu", "precision": "fp32", "progress": False}
    Trainer(page(name, **changes), tmp_path / "data", tmp_path / "run", **options).run()
    system = restore(str(tmp_path / "run" / "last.safetensors"))
    real = torch.from_numpy(levels)[:, None].float() / 127.5 - 1
    apart = (system.reconstruct(real) - real).square().mean()
    assert apart < 0.4 * (real - real.mean(0)).square().mean()


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("ali", "classes", 10), ("aae_supervised", "classes", 10), ("aae_semi_supervised", "stochastic", True)],
)
def test_encoders_that_give_what_nothing_takes(name, option, value):
    with pytest.raises(ValueError, match=rf"networks\.encoder\.{option} is not for the task"):
        build(read(name).override({f"networks.encoder.{option}": value}))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_codes_have_the_priors_size_from_the_start(norm):
    torch.manual_seed(0)
    codes = Encoder(16, 16, 28, 1, norm=norm)(torch.randn(64, 1, 28, 28))
    assert 0.3 < codes.std().item() < 3
