"""Noise to image: the unconditional game."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from img2img.data.images import Images
from img2img.data.stream import Source
from img2img.systems.system import System


class Generate(System):
    """The generator makes samples from latents (N, latent), the discriminator tells them from ``real`` (N, C, H, W)."""

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two halves of the game."""
        real = batch["real"]
        fake = self.generator(torch.randn(len(real), self.generator.latent, device=real.device))
        if phase == "discriminator":
            return self.discriminator_terms(self.discriminator, real, fake, step)
        return self.generator_terms(self.discriminator, real, fake)

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, latent)."""
        return self.generator(inputs).float().clamp(*self.span)

    def source(self, folder: str | Path, validation: bool = False) -> Source:
        """Return the images of a folder.

        Raises:
            ValueError: for validation, since an image made of noise has no target to be compared with.
        """
        if validation:
            raise ValueError(f"{self.recipe.name}: images made of noise have no targets; leave validate.metrics empty")
        return Images(folder, self.recipe.data.size, self.recipe.data.channels, self.recipe.data.flip)
