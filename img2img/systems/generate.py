"""Noise to image: the unconditional game."""

from pathlib import Path
from typing import Any

from torch import Tensor

from img2img.data.images import Images
from img2img.data.stream import Source
from img2img.data.toys import toy
from img2img.metrics.modes import MIXTURES
from img2img.recipe import Recipe
from img2img.systems.system import System, Trial, only


class Generate(System):
    """The generator makes samples from latents (N, latent), the discriminator tells them from ``real`` (N, C, H, W)."""

    verb = "synthesize"
    simultaneous = True
    pooled = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.pool = self.past_fakes()
        if recipe.data.points:
            extent = MIXTURES[recipe.data.toy].extent
            self.span = (-extent, extent)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two halves of the game."""
        real, critic = batch["real"], self.discriminator
        fake = self.fake(phase, batch, lambda: self.generator(self.latents(len(real), real.device)))
        found = self.field_terms(critic, real, lambda: self.generator(self.latents(len(real), real.device)))
        if phase == "discriminator":
            return self.discriminator_terms(critic, real, self.pool(fake), step) | found
        return self.generator_terms(critic, real, fake) | found

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, latent)."""
        return self.generator(inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """As many samples as there are real images in the batch."""
        real = batch["real"]
        return {"": Trial(self.infer(self.latents(len(real), real.device)), real=real)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return the images of a folder, or the page's toy.

        Raises:
            ValueError: more than one folder.
        """
        data = self.recipe.data
        if data.toy:
            return toy(data.toy, folders, data.size)
        return Images(only(folders, self.recipe.name), data.size, data.channels, data.flip and not validation)
