"""What every system shares: networks by role, terms by name, and the two halves of an adversarial game."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from img2img import checkpoint
from img2img.recipe import Recipe, locate
from img2img.registry import bounded, lookup, part

Critic = Callable[[Tensor], Tensor]


class Term(NamedTuple):
    """One summand of a loss: its name in the log, the function, its weight, and every how many steps it counts."""

    name: str
    function: Callable[..., Tensor]
    weight: float
    every: int

    @classmethod
    def build(cls, kind: str, spec: dict[str, Any], **defaults: Any) -> "Term":
        """Build a recipe's term of the table ``kind``."""
        own = {key: value for key, value in spec.items() if key not in ("weight", "every")}
        return cls(spec["type"], part(kind, own, **defaults), float(spec.get("weight", 1.0)), int(spec.get("every", 1)))


class System(nn.Module):
    """A game as a recipe describes it.

    A subclass says what each phase minimises (``losses``) and what the trained system does (``infer``); it never asks
    which loss or network was chosen. The networks are attributes by role: ``self.generator``, ``self.discriminator``.
    """

    inference: tuple[str, ...] = ("generator",)
    span: tuple[float, float] = (-1.0, 1.0)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        data = recipe.data
        for role, spec in recipe.networks.items():
            if hasattr(self, role) or not role.isidentifier():
                raise ValueError(f"{recipe.name}: a network cannot be called {role!r}")
            self.add_module(role, part("network", spec, channels=data.channels, size=data.size, scale=data.scale))
        for role in self.inference:
            if role not in recipe.networks:
                raise ValueError(f"{recipe.name}: task {recipe.task} needs a network {role!r} under [networks]")
        spec = dict(recipe.adversarial or {})
        self.adversarial_weight = float(spec.pop("weight", 1.0))
        self.adversarial = part("adversarial", spec) if spec else None
        self.penalties = [Term.build("penalty", item) for item in recipe.penalty]
        self.fidelity = [Term.build("fidelity", item, range=self.span) for item in recipe.fidelity]

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the named terms that ``phase`` minimises, each (N,): their weighted sum's mean is the loss."""
        raise NotImplementedError  # abstract: every system has its own

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return what the trained system makes of a batch."""
        raise NotImplementedError  # abstract: every system has its own

    def discriminator_terms(self, critic: Critic, real: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        """Return the discriminator's adversarial loss and its penalties, each (N,)."""
        fake = fake.detach()
        # In float32: under autocast the exponentials would run in the logits' few bits.
        scores = critic(real).float(), critic(fake).float()
        found = {"adversarial": per_sample(self.adversarial.discriminator(*scores))}
        for term in self.penalties:
            if step % term.every == 0:
                found[term.name] = term.weight * term.every * term.function(critic, real, fake)
        return found

    def generator_terms(self, critic: Critic, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return the generator's adversarial loss, (N,)."""
        scores = critic(fake).float()
        with torch.no_grad():
            reference = critic(real).float()
        return {"adversarial": self.adversarial_weight * per_sample(self.adversarial.generator(reference, scores))}

    def fidelity_terms(self, output: Tensor, target: Tensor, step: int) -> dict[str, Tensor]:
        """Return the weighted distances between an output and its target, each (N,)."""
        return {
            term.name: term.weight * term.every * term.function(output, target)
            for term in self.fidelity
            if step % term.every == 0
        }


def per_sample(values: Tensor) -> Tensor:
    """Return the mean over everything but the first dimension: (N, ...) -> (N,), in float32."""
    return values.float().flatten(1).mean(1) if values.dim() > 1 else values.float()


def build(recipe: Recipe) -> System:
    """Return the system that a recipe describes, with fresh weights."""
    return part("task", {"type": recipe.task}, recipe=recipe)


def initialise(system: System) -> dict[str, list[str]]:
    """Fill networks from the weights that the recipe's ``init`` names; what does not fit keeps its own start.

    Returns:
        For each role, the names of the weights that were left as they were.
    """
    left = {}
    for role, source in system.recipe.init.items():
        path = locate(source, weights=True)
        tensors = weights_of(path, role)
        left[role] = checkpoint.fit(getattr(system, role), tensors, str(path), partial=True)
    return left


def weights_of(path: str | Path, role: str) -> dict[str, Tensor]:
    """Return a network's weights from a checkpoint, in float32: the averaged ones where it has them."""
    tensors, _ = checkpoint.load(path, f"ema.{role}.")
    tensors.pop("updates", None)  # the average's own counter
    if not tensors:
        tensors, _ = checkpoint.load(path, f"{role}.")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def restore(path: str, device: str = "cpu") -> System:
    """Rebuild a system for inference from a checkpoint alone: averaged weights where it has them, evaluation mode.

    Raises:
        ValueError: the file is no checkpoint of img2img, or its weights do not fit its recipe.
    """
    _, meta = checkpoint.load(path, "\0")
    recipe = Recipe.parse(meta["recipe"], str(path))
    # What only training needs is not built: a perceptual term would fetch its network.
    roles = lookup("task", recipe.task).inference
    networks = {role: spec for role, spec in recipe.networks.items() if role in roles}
    try:
        with bounded(Path(path).stat().st_size):
            system = build(replace(recipe, networks=networks, adversarial=None, penalty=[], fidelity=[]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    system.recipe = recipe
    for role in roles:
        checkpoint.fit(getattr(system, role), weights_of(path, role), str(path))
    return system.to(device).eval().requires_grad_(False)
