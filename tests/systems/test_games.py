"""Who minimises what: terms, weights, intervals, and where gradients go."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import softplus

from img2img.recipe import Recipe, read
from img2img.systems.system import build, per_sample


def batch_of(task):
    torch.manual_seed(1)
    if task == "generate":
        return {"real": torch.rand(2, 3, 8, 8) * 2 - 1}
    side = 16 if task == "paired" else 8
    return {"input": torch.rand(2, 3, side, side), "target": torch.rand(2, 3, 16, 16)}


@pytest.fixture
def games(pages):
    """Return the three small pages, each with a discriminator."""
    pages["upscaler"] |= {"schedule": {"discriminator": 1, "generator": 1}, "adversarial": {"type": "hinge"}}
    pages["upscaler"]["networks"]["discriminator"] = {"type": "srgan_discriminator", "width": 2, "hidden": 4}
    return pages


def system_of(page):
    torch.manual_seed(0)
    return build(Recipe.parse(page))


def gradients(system, loss):
    found = {}
    for role in system.recipe.networks:
        network = getattr(system, role)
        grads = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
        found[role] = sum(grad.abs().sum().item() for grad in grads if grad is not None)
    return found


@pytest.mark.parametrize("name", ["upscaler", "translator", "painter"])
def test_each_term_reaches_the_network_that_learns_it(name, games):
    page = games[name]
    system, batch = system_of(page), batch_of(page["task"])
    for term, value in system.losses("discriminator", batch, 0).items():
        found = gradients(system, value.sum())
        assert found["discriminator"] > 0, term
        assert found["generator"] == 0, f"{term}: the fake images are not detached"
    terms = system.losses("generator", batch, 0)
    assert all(value.shape == (2,) for value in terms.values())
    for term, value in terms.items():
        assert gradients(system, value.sum())["generator"] > 0, term
    assert "adversarial" in terms and ("l1" in terms) == (name != "painter")


def test_the_translators_critic_sees_the_input_and_the_output(games):
    system, batch = system_of(games["translator"]), batch_of("paired")
    system.eval()
    for key in ("input", "target"):
        changed = batch | {key: batch[key].flip(0)}
        losses = [system.losses("discriminator", each, 1)["adversarial"].detach() for each in (batch, changed)]
        assert not torch.allclose(losses[0], losses[1].flip(0)), f"the critic does not see the {key}"
    assert system.discriminator.layers[0].in_channels == 6


@pytest.mark.parametrize("name", ["upscaler", "translator", "painter"])
def test_weights_scale_their_terms(name, games):
    page = games[name]
    heavy = copy.deepcopy(page)
    heavy["adversarial"]["weight"] = 3.0
    for item in heavy.get("fidelity", []) + heavy.get("penalty", []):
        item["weight"] = item.get("weight", 1.0) * 5
    for phase in ("discriminator", "generator"):
        terms = []
        for each in (page, heavy):
            system = system_of(each).train()
            torch.manual_seed(2)
            terms.append(system.losses(phase, batch_of(page["task"]), 0))
        for term, value in terms[0].items():
            # The adversarial weight is the generator's: a discriminator has nothing to weigh its loss against.
            factor = (3 if phase == "generator" else 1) if term == "adversarial" else 5
            torch.testing.assert_close(terms[1][term], factor * value, msg=f"{phase} {term}")


def test_a_lazy_term_counts_in_its_steps_only_and_as_much_more(games):
    page = games["translator"]
    page["penalty"] = [{"type": "r1", "weight": 0.5, "every": 4}]
    page["fidelity"] = [{"type": "l1", "every": 3}]
    system, batch = system_of(page), batch_of("paired")
    for step in range(9):
        assert ("r1" in system.losses("discriminator", batch, step)) == (step % 4 == 0)
        assert ("l1" in system.losses("generator", batch, step)) == (step % 3 == 0)
    system.eval()
    output = system.generator(batch["input"])
    expected = 3 * (output - batch["target"]).abs().flatten(1).mean(1)
    torch.testing.assert_close(system.losses("generator", batch, 0)["l1"], expected)


def test_per_sample():
    values = torch.arange(12.0).reshape(2, 1, 2, 3).to(torch.bfloat16)
    assert per_sample(values).tolist() == [2.5, 8.5] and per_sample(values).dtype == torch.float32
    assert per_sample(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert per_sample(torch.tensor([[1.0], [2.0]])).tolist() == [1, 2]


def point_game(**more):
    """Return a page whose players are linear: one number is drawn, and judged by w x."""
    return {
        "name": "points",
        "task": "generate",
        "schedule": {"discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "mlp_generator", "latent": 2, "depth": 0, "bounded": False},
            "discriminator": {"type": "mlp_discriminator", "width": 3},
        },
        "adversarial": {"type": "logistic"},
        "data": {"size": 1, "channels": 1},
    } | more


def points(count=5):
    return {"real": torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(3))}


def test_both_players_see_what_augmentation_makes_of_images():
    system = system_of(point_game(augment=[{"type": "instance_noise", "sigma": 1000.0, "images": 10}]))
    batch, seen = points(), []
    system.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for phase, views in (("discriminator", 2), ("generator", 1)):
        seen.clear()
        system.losses(phase, batch, 0)
        assert len(seen) == views and all(images.std() > 100 for images in seen)
    system.advance(10)
    seen.clear()
    system.losses("discriminator", batch, 0)
    assert torch.equal(seen[0], batch["real"]), "the noise fades with the images seen"


def test_adaptive_augmentation_is_steered_by_the_real_logits():
    page = point_game(augment=[{"type": "ada", "images": 5120, "policy": ["flip"], "p": 0.5}])
    for kind, bias, expected in (
        ("logistic", 50.0, 0.55),
        ("logistic", -50.0, 0.45),
        ("least_squares", 50.0, 0.55),
        ("least_squares", 0.4, 0.45),  # 0.5 is what it says of what it cannot place
        ("wasserstein", 50.0, 0.45),  # only differences count, and there are none
        ("relativistic", 50.0, 0.45),
    ):
        system = system_of(page | {"adversarial": {"type": kind}}).train()
        with torch.no_grad():
            system.discriminator.head.linear.weight.zero_()
            system.discriminator.head.linear.bias.fill_(bias)
        system.losses("discriminator", points(256), 0)
        assert system.augment[0].p.item() == pytest.approx(expected)
        assert system.seen["augment"] == pytest.approx(expected)
        assert "augment.0.p" in system.state_dict()


def test_terms_of_one_type_all_count():
    penalties = [{"type": "r1", "weight": 1.0}, {"type": "r1", "weight": 3.0}, {"type": "r2"}]
    found = system_of(point_game(penalty=penalties)).losses("discriminator", points(), 0)
    assert set(found) == {"adversarial", "r1", "r1_2", "r2"}
    torch.testing.assert_close(found["r1_2"], 3 * found["r1"])


def test_discriminators_of_accumulated_batches_get_the_fakes_of_their_own():
    system = system_of(point_game(schedule={"generator": 1, "discriminator": 1}, train={"accumulate": 2}))
    batches, made = [points(3), points(4)], []
    system.generator.register_forward_hook(lambda module, inputs, output: made.append(output.detach()))
    for batch in batches:
        system.losses("generator", batch, 0)
    for parameter in system.generator.parameters():  # as its step does
        parameter.data += 1
    seen = [system.fake("discriminator", batch, lambda: pytest.fail("made anew")) for batch in batches]
    assert len(made) == 2 and all(torch.equal(*pair) for pair in zip(seen, made, strict=True))
    assert not system._made["fake"]


def test_matching_compares_the_discriminators_features():
    system = system_of(point_game(matching=[{"type": "feature_matching", "weight": 2.0}]))
    batch = points()
    terms = system.losses("generator", batch, 0)
    assert terms["feature_matching"].shape == (5,) and "feature_matching" not in system.losses(
        "discriminator", batch, 0
    )
    torch.manual_seed(7)
    fake = system.generator(system.latents(5, torch.device("cpu")))
    torch.manual_seed(7)
    found = system.losses("generator", batch, 0)["feature_matching"]
    apart = system.discriminator.features(batch["real"]).mean(0) - system.discriminator.features(fake).mean(0)
    torch.testing.assert_close(found, (2 * apart.square().sum()).expand(5))


def test_weight_penalties_count_where_their_network_learns():
    page = point_game(
        weight_penalty=[
            {"type": "orthogonal", "weight": 3.0, "every": 2, "diagonal": True, "on": "discriminator"},
            {"type": "historical_average"},
        ]
    )
    system = system_of(page).train()
    assert set(system.weight_terms("generator", 0)) == {"historical_average"}
    found = system.weight_terms("discriminator", 0)
    square = torch.zeros(())
    for layer in (system.discriminator.layers[0], system.discriminator.layers[2], system.discriminator.head.linear):
        product = layer.weight @ layer.weight.T
        square = square + (product - torch.eye(len(product))).square().sum()
    torch.testing.assert_close(found["discriminator_orthogonal"], 6 * square)
    assert not system.weight_terms("discriminator", 1)
    with torch.no_grad():
        for parameter in system.generator.parameters():
            parameter.add_(2)
    moved = system.weight_terms("generator", 1)["historical_average"].item()
    count = sum(parameter.numel() for parameter in system.generator.parameters())
    assert moved == pytest.approx(count, rel=1e-5), "each weight is 1 from the mean of where it was and where it is"
    assert "watchers.0.mean" in system.state_dict()


def test_the_unrolled_generator_plays_against_the_discriminator_to_come():
    """One step of plain gradient descent ahead, taken by an optimizer on a copy."""
    system = system_of(point_game(unroll={"steps": 1, "rate": 0.5}))
    batch = points()
    torch.manual_seed(7)
    found = system.losses("generator", batch, 0)["adversarial"]
    torch.manual_seed(7)
    fake = system.generator(system.latents(5, torch.device("cpu")))
    later = copy.deepcopy(system.discriminator)
    loss = (softplus(-later(batch["real"])) + softplus(later(fake.detach()))).mean()
    loss.backward()
    torch.optim.SGD(later.parameters(), 0.5).step()
    torch.testing.assert_close(found, softplus(-later(fake)).flatten())
    short = torch.autograd.grad(softplus(-later(fake)).mean(), list(system.generator.parameters()))
    whole = torch.autograd.grad(found.mean(), list(system.generator.parameters()))
    assert not torch.allclose(short[0], whole[0]), "the generator's gradient takes in how the discriminator answers"
    assert all(parameter.grad is None for parameter in system.discriminator.parameters())


def test_each_of_two_discriminators_is_looked_ahead_of():
    page = read("aae_semi_supervised")
    plans = page, page.override({"unroll": {"steps": 3, "rate": 1.0}})
    terms = []
    for plan in plans:
        system = system_of(plan.page())
        torch.manual_seed(1)
        batch = {"real": torch.rand(4, 1, 28, 28) * 2 - 1, "labelled": torch.rand(2, 1, 28, 28) * 2 - 1}
        torch.manual_seed(2)
        terms.append(system.eval().losses("generator", batch | {"label": torch.tensor([3, 4])}, 0))
    for name in ("adversarial_style", "adversarial_category"):
        assert not torch.allclose(terms[0][name], terms[1][name]), name


def test_consensus_is_half_the_squared_length_of_both_gradients():
    system = system_of(point_game(consensus=4.0))
    batch = points()
    for phase in ("discriminator", "generator"):
        torch.manual_seed(7)
        system.fake(phase, batch, lambda: system.latents(5, torch.device("cpu")))  # the draw that comes first
        fake = system.generator(system.latents(5, torch.device("cpu")))
        torch.manual_seed(7)
        found = system.losses(phase, batch, 0)["consensus"]
        d = (softplus(-system.discriminator(batch["real"])) + softplus(system.discriminator(fake))).mean()
        g = softplus(-system.discriminator(fake)).mean()
        length = sum(
            gradient.square().sum()
            for loss, player in ((d, system.discriminator), (g, system.generator))
            for gradient in torch.autograd.grad(loss, list(player.parameters()), retain_graph=True)
        )
        torch.testing.assert_close(found, (2 * length).expand(5))
        gradients = torch.autograd.grad(found.mean(), list(getattr(system, phase).parameters()))
        assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_a_pool_shows_the_discriminator_earlier_fakes_too():
    system, batch = system_of(point_game(pool=5)), points()
    shown = [system.losses("discriminator", batch, step)["adversarial"] for step in range(2)]
    assert system.pool.count == 5 and set(system_of(point_game()).pool.state_dict()) == set()
    system.pool.images.fill_(3.0)  # fakes that the generator would not make
    torch.manual_seed(1)
    found = system.losses("discriminator", batch, 2)["adversarial"]
    kept = softplus(system.discriminator(torch.full((1, 1, 1, 1), 3.0)))
    known = (softplus(-system.discriminator(batch["real"])) + kept).flatten()
    old = torch.isclose(found, known, rtol=1e-6)
    assert old.any() and not old.all() and not torch.isclose(shown[1], known).any()


def test_what_does_not_fit_together_is_refused(games):
    with pytest.raises(ValueError, match="'pool' is not for the task paired"):
        system_of(games["translator"] | {"pool": 50})
    for name in ("cgan", "lapgan", "aae", "bigan", "semi_supervised"):  # whose critics see more than images, or none
        with pytest.raises(ValueError, match="'pool' is not for the task"):
            build(read(name).override({"pool": 50}))
    for name in ("dcgan", "lapgan", "cogan"):
        with pytest.raises(ValueError, match=r"compares no images; drop \[\[fidelity\]\]"):
            build(read(name).override({"fidelity": [{"type": "l1"}]}))
    with pytest.raises(ValueError, match="'penalty' is part of a game"):
        Recipe.parse(read("srresnet").page() | {"penalty": [{"type": "r1"}]})
    with pytest.raises(ValueError, match="augment diffaugment is for images"):
        build(read("aae").override({"augment": [{"type": "diffaugment"}]}))
    with pytest.raises(ValueError, match="the schedule has no discriminator, which would never learn"):
        Recipe.parse(point_game(schedule={"generator": 1}))
    with pytest.raises(ValueError, match="pool is -1; it must be a number of images, 0 or more"):
        Recipe.parse(point_game(pool=-1))
    with pytest.raises(ValueError, match="'consensus' is not for the task paired"):
        system_of(games["translator"] | {"consensus": 1.0})
    with pytest.raises(ValueError, match="'orthogonal' has no option 'wieght'|orthogonal has no option 'wieght'"):
        Recipe.parse(point_game(weight_penalty=[{"type": "orthogonal", "wieght": 1.0}]))
    with pytest.raises(ValueError, match="weight_penalty.on = 'generatr' is no network; did you mean 'generator'"):
        Recipe.parse(point_game(weight_penalty=[{"type": "orthogonal", "on": "generatr"}]))
    with pytest.raises(ValueError, match=r"unroll: unknown key 'step'; did you mean 'steps'"):
        Recipe.parse(point_game(unroll={"step": 3}))
    with pytest.raises(ValueError, match=r"unroll.steps must be 1 to 100"):
        Recipe.parse(point_game(unroll={"steps": 0}))
    with pytest.raises(ValueError, match="consensus must be over 0"):
        Recipe.parse(point_game(consensus=-1.0))
    alone = games["upscaler"] | {"augment": [{"type": "ada"}], "adversarial": None, "schedule": {"generator": 1}}
    with pytest.raises(ValueError, match="'augment' is part of a game; it needs 'adversarial'"):
        Recipe.parse(alone)


def test_the_convergence_of_began_is_logged():
    page = point_game(adversarial={"type": "began"})
    page["networks"]["discriminator"] = {"type": "autoencoder_discriminator", "width": 2, "hidden": 3, "error": "l1"}
    page["networks"]["generator"] |= {"bounded": True}
    page["data"] = {"size": 8, "channels": 1}
    system = system_of(page).train()
    real = torch.rand(4, 1, 8, 8)
    system.losses("discriminator", {"real": real}, 0)
    assert system.seen["convergence"] >= -system.discriminator(real).mean() * 0.999


@pytest.mark.parametrize("name", ["dcgan", "srgan"])
def test_patches_judge_an_output_alone(name):
    """Only where a task judges pairs does a PatchGAN see a source, too."""
    recipe = read(name).override({"networks.discriminator": {"type": "patchgan", "width": 4, "layers": 1}})
    assert build(recipe).discriminator(torch.rand(1, 3, 64, 64)).shape[1] == 1


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_without_jitter_translators_learn_from_images_as_they_are(name, tmp_path, smooth):
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(smooth(0, 32, 32)).save(tmp_path / side / "0.png")
    plain = torch.from_numpy(smooth(0, 32, 32)).permute(2, 0, 1) / 127.5 - 1
    recipe = read(name).override({"data.size": 32, "data.flip": False, "networks.generator.width": 4})
    for jitter in (False, True):
        source = build(recipe.override({"data.jitter": jitter})).source([tmp_path])
        assert all(torch.equal(image, plain) != jitter for image in source.item(0, np.random.default_rng(0)).values())
