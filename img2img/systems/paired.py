"""Paired translation: an image in, its counterpart out, judged together with what it was made from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.data.pairs import Pairs
from img2img.data.stream import Source
from img2img.systems.system import System, Trial


class Paired(System):
    """The generator turns ``input`` into ``target``, both (N, C, H, W) in [-1, 1] (Isola et al. 2016)."""

    layout = "paired"
    comparisons = ("output",)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The conditional game, and fidelity to the target."""
        given, target = batch["input"], batch["target"]
        output = self.fake(phase, batch, lambda: self.generator(given))

        def critic(image: Tensor) -> Tensor:
            return self.discriminator(torch.cat([given, image.to(given.dtype)], 1))

        if phase == "discriminator":
            return self.discriminator_terms(critic, target, output, step)
        found = self.fidelity_terms(output.float(), target, step)
        if self.adversarial is not None:
            found |= self.generator_terms(critic, target, output)
        return found

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; the discriminator sees an input and what became of it together."""
        if role == "discriminator":
            more["inputs"] = sum(self.depths())
        return super().network(role, spec, **more)

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the translated images; deterministic, since dropout rests in evaluation mode."""
        return self.generator(inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The output beside its target."""
        return {"": Trial(self.infer(batch["input"]), batch["input"], batch["target"], batch["target"])}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return pairs: A/ and B/ below a folder, two folders, images with A left and B right, or a table of files."""
        data = self.recipe.data
        return Pairs(
            folders,
            data.size,
            data.channels,
            input_channels=data.input_channels,
            direction=data.direction,
            flip=data.flip and not validation,
            jitter=0 if validation else data.size // 8,
            augment=None if validation else data.augment,
        )
