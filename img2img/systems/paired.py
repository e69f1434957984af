"""Paired translation: an image in, its counterpart out, judged together with what it was made from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.data.pairs import Pairs
from img2img.data.stream import Source
from img2img.recipe import Recipe
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
            jitter=data.size // 8 if data.jitter and not validation else 0,
            augment=None if validation else data.augment,
        )


class StructureStyle(Paired):
    """Noise to structure, structure to image: S^2-GAN, learnt of pairs of a structure ``input`` and its ``target``.

    Wang & Gupta 2016 (https://arxiv.org/abs/1603.05631): ``structure`` draws what lies where, judged by
    ``structure_discriminator``; ``generator`` draws the image of a structure, and both are judged together, as in
    `Paired`, of true structures and (section 3.3, joint learning) of drawn ones, whose images structures learn of, too.
    """

    verb = "synthesize"
    inference = ("structure", "generator")
    learners = {
        "generator": ("structure", "generator"),
        "discriminator": ("structure_discriminator", "discriminator"),
    }

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        lacking = {"structure_discriminator", "discriminator"} - recipe.networks.keys()
        if recipe.adversarial and lacking:
            raise ValueError(f"{recipe.name}: task {recipe.task} needs a network {min(lacking)!r} under [networks]")

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; those of structures have the channels of inputs."""
        if role.startswith("structure"):
            spec = {"channels": self.depths()[0]} | spec
        return super().network(role, spec, **more)

    def latents(self, count: int, device: torch.device) -> Tensor:
        """Draw latents (N, latent) of structures."""
        return torch.randn(count, self.structure.latent, device=device)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game of structures, and that of images of true and of drawn structures."""
        found, given, target = super().losses(phase, batch, step), batch["input"], batch["target"]

        def draw() -> Tensor:
            drawn = self.structure(self.latents(len(given), given.device))
            return torch.cat([drawn, self.generator(drawn)], 1)

        both, depth = self.fake(phase, batch, draw, "drawn"), given.shape[1]
        games = {
            "structure": (self.structure_discriminator, given, both[:, :depth]),
            "joint": (self.discriminator, torch.cat([given, target], 1), both),
        }
        for name, (critic, real, fake) in games.items():
            if phase == "discriminator":
                terms = self.discriminator_terms(critic, real, fake, step)
            else:
                terms = self.generator_terms(critic, real, fake)
            found |= {f"{key}_{name}": value for key, value in terms.items()}
        return found

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the images of latents (N, latent)."""
        return self.deployed()(inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """As many samples as there are real images in the batch."""
        real = batch["target"]
        return {"": Trial(self.infer(self.latents(len(real), real.device)), real=real)}

    def deployed(self) -> nn.Module:
        """Return both generators as one of noise."""
        return Styled(self.structure, self.generator)


class Styled(nn.Module):
    """Latents (N, latent) to images, by way of structures.

    Args:
        structure: latents to structures. style: structures to images.
    """

    def __init__(self, structure: nn.Module, style: nn.Module) -> None:
        super().__init__()
        self.structure, self.style, self.latent = structure, style, structure.latent

    def forward(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.style(self.structure(z))
