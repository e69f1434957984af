"""Unpaired translation one way: each place of the output stays recognisable among the places of the input."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.data.stream import Source
from img2img.recipe import Recipe
from img2img.registry import part
from img2img.systems.system import System, Trial
from img2img.systems.unpaired import unpaired_images


class Contrastive(System):
    """CUT: one translator from ``a`` to ``b``, (N, C, H, W) in [-1, 1] (Park et al. 2020, arXiv:2007.15651).

    The generator's own encoder describes places, ``projector`` turns them into vectors. A page's contrastive terms
    compare the ``output`` with the input it was made of, or, with ``on = "identity"``, b translated with b itself,
    which keeps the generator from changing what needs no change.
    """

    layout = "unpaired"

    learners = {"generator": ("generator", "projector")}
    comparisons = ("output", "identity")
    pooled = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.data.input_channels not in (0, recipe.data.channels):
            raise ValueError(f"{recipe.name}: input_channels must equal channels: the encoder looks at both sides")
        self.pool = self.past_fakes()
        if "projector" not in recipe.networks and recipe.fidelity:
            raise ValueError(f"{recipe.name}: task contrastive needs a network 'projector' under [networks]")

    def network(self, role: str, spec: dict[str, Any]) -> nn.Module:
        """Return the network of a role; the projector fits the generator's features, the discriminator sees b."""
        data = self.recipe.data
        if role == "projector":
            known = getattr(self, "generator", None) or self.network("generator", self.recipe.networks["generator"])
            if not hasattr(known, "feature_channels"):
                kind = self.recipe.networks["generator"]["type"]
                raise ValueError(f"{self.recipe.name}: network {kind} has no features to compare; use resnet")
            return part("network", spec, inputs=tuple(known.feature_channels()))
        if role == "discriminator":
            return part("network", spec, inputs=data.channels, channels=data.channels, size=data.size)
        return super().network(role, spec)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game, and the contrast between places."""
        given, goal = batch["a"], batch["b"]
        if phase == "discriminator":
            fake = self.fake(phase, batch, lambda: self.generator(given))
            return self.discriminator_terms(self.discriminator, goal, self.pool(fake), step)
        output, features = self.generator.described(given)
        self.fake(phase, batch, lambda: output)
        found = self.generator_terms(self.discriminator, goal, output)
        if self.compares("output", step):
            found |= self.fidelity_terms(*self._places(output, features), step)
        if self.compares("identity", step) and given.shape[1] == goal.shape[1]:
            found |= self.fidelity_terms(*self._places(*self.generator.described(goal)), step, "identity")
        return found

    def _places(self, output: Tensor, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return vectors at the same places of an output and of the features of what it was made of."""
        # The encoder looks at both, which therefore have the same channels.
        places = self.projector.places(features)
        # With gradients first: some versions of autocast keep a cast of the weights, and that it had none.
        found = self.projector(self.generator.features(output), places)
        with torch.no_grad():  # the contrast pulls the output towards the input, never the other way
            known = self.projector(features, places)
        return found, known

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the translated images."""
        return self.generator(inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The output; a target only of true pairs."""
        return {"": Trial(self.infer(batch["a"]), batch["a"], batch["b"] if "paired" in batch else None, batch["b"])}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of two folders, or of one with A/ and B/ (or trainA/, trainB/, testA/, testB/) in it."""
        return unpaired_images(self, folders, validation)
