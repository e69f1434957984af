"""Noise to image through a pyramid: each level is a game of its own on what a doubling lacks."""

from torch import Tensor

from img2img.networks.lapgan import split
from img2img.systems.conditional import Conditional
from img2img.systems.generate import Generate


class Pyramid(Generate):
    """LAPGAN, Denton et al. 2015 (https://arxiv.org/abs/1506.05751), section 3: all levels learn in one run.

    The networks have levels: ``generator.level`` draws what ``discriminator.level`` judges, both given the real image
    of the level below, enlarged. In use each level is given what the one below made.
    """

    simultaneous = False
    pooled = False

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game of every level."""
        real, label, terms = batch["real"], batch.get("label"), {}
        pieces = self.latents(len(real), real.device).split(self.generator.pieces, 1)
        for level, (goal, given) in enumerate(split(real, self.generator.levels)):

            def draw(level: int = level, given: Tensor = given) -> Tensor:
                return self.generator.level(level, pieces[level], given, label)

            def critic(drawn: Tensor, level: int = level, given: Tensor = given) -> Tensor:
                return self.discriminator.level(level, drawn, given, label)

            fake = self.fake(phase, batch, draw, str(level))
            if phase == "discriminator":
                found = self.discriminator_terms(critic, goal, fake, step)
            else:
                found = self.generator_terms(critic, goal, fake)
            terms |= {f"{name}_{level}": value for name, value in found.items()}
        return terms


class ConditionalPyramid(Conditional):
    """The class-conditional pyramid of the paper's section 3.2: every level knows the label."""

    comparisons = ()  # levels judge, and read no class
    losses = Pyramid.losses
