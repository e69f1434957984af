"""Super-resolution: a small image in, a larger one out, with or without a discriminator."""

from pathlib import Path
from typing import Any

from torch import Tensor

from img2img.data.photos import Crops, Whole
from img2img.data.stream import Source
from img2img.systems.system import System, Trial, only


class SuperResolve(System):
    """The generator enlarges ``input`` towards ``target``: (N, C, H, W) -> (N, C, H * scale, W * scale) in [0, 1]."""

    verb = "upscale"
    span = (0.0, 1.0)
    comparisons = ("output",)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Fidelity to the target, and where the recipe has a discriminator, its judgement."""
        target = batch["target"]
        output = self.fake(phase, batch, lambda: self.generator(batch["input"])).float()
        if phase == "discriminator":
            return self.discriminator_terms(self.discriminator, target, output, step)
        found = self.fidelity_terms(output, target, step)
        if self.adversarial is not None:
            found |= self.generator_terms(self.discriminator, target, output)
        return found

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the enlarged image, clamped to [0, 1]."""
        return self.generator(inputs).float().clamp(0, 1)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The enlarged image beside the original."""
        return {"": Trial(self.infer(batch["input"]), batch["input"], batch["target"])}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return random crops for training, or fixed centre crops for validation.

        Raises:
            ValueError: more than one folder.
        """
        folder = only(folders, self.recipe.name)
        data, check = self.recipe.data, self.recipe.validate
        if validation:
            return Whole(folder, check.size, data.scale, data.degradation, channels=data.channels, images=check.images)
        return Crops(
            folder,
            data.size,
            data.scale,
            data.degradation,
            channels=data.channels,
            flip=data.flip,
            rotate=data.rotate,
            flat=data.flat,
        )
