"""Who minimises what: terms, weights, intervals, and where gradients go."""

import copy

import pytest
import torch

from img2img.recipe import Recipe
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
    for role, network in system.named_children():
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
