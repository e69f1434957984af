"""Unpaired translation: two sets of images, and a translator each way that the other one undoes."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from img2img.data.stream import Source
from img2img.data.unpaired import Unpaired as Folders
from img2img.recipe import Recipe
from img2img.registry import part
from img2img.systems.system import System, Trial

OTHER = {"a": "b", "b": "a"}


class Unpaired(System):
    """CycleGAN: ``generator`` is a pair of translators, ``discriminator`` a pair of judges (Zhu et al. 2017).

    The batch holds ``a`` and ``b``, (N, C, H, W) in [-1, 1], that need not belong together. A page's fidelity terms
    compare a ``cycle`` (a -> b -> a with a) or an ``identity`` (b -> b with b). With a ``pool`` discriminators
    see a mixture of new and earlier translations.
    """

    layout = "unpaired"
    comparisons = ("cycle", "identity")
    pooled = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        depth = dict(zip(OTHER, self.depths(), strict=True))
        self.pool = nn.ModuleDict({side: self.past_fakes(depth[side]) for side in OTHER})

    def network(self, role: str, spec: dict[str, Any]) -> nn.Module:
        """Return a pair: a generator for each direction, a discriminator for each side."""
        size, depth = self.recipe.data.size, dict(zip(OTHER, self.depths(), strict=True))
        if role == "generator":
            return nn.ModuleDict(
                {
                    a + b: part("network", spec, input_channels=depth[a], channels=depth[b], size=size)
                    for a, b in OTHER.items()
                }
            )
        return nn.ModuleDict(
            {side: part("network", spec, inputs=depth[side], channels=depth[side], size=size) for side in OTHER}
        )

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Both directions of the game, with cycles and identities."""
        terms = {}
        for source, target in OTHER.items():
            there, back = source + target, target + source
            real, goal, critic = batch[source], batch[target], self.discriminator[target]
            fake = self.fake(phase, batch, lambda real=real, there=there: self.generator[there](real), there)
            if phase == "discriminator":
                found = self.discriminator_terms(critic, goal, self.pool[target](fake), step)
            else:
                found = self.generator_terms(critic, goal, fake)
                if self.compares("cycle", step):
                    found |= self.fidelity_terms(self.generator[back](fake).float(), real, step, "cycle")
                if self.compares("identity", step) and real.shape[1] == goal.shape[1]:
                    same = self.generator[there](goal).float()
                    found |= self.fidelity_terms(same, goal, step, "identity")
            terms |= {f"{name}_{there}": value for name, value in found.items()}
        return terms

    def infer(self, inputs: Tensor, direction: str = "ab", **controls: Any) -> Tensor:
        """Return the images translated from a to b, or with ``direction="ba"`` from b to a."""
        return self.generator[direction](inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Both directions; a target only of true pairs."""
        target = {side: batch[side] if "paired" in batch else None for side in OTHER}
        return {a + b: Trial(self.infer(batch[a], a + b), batch[a], target[b], batch[b]) for a, b in OTHER.items()}

    def deployed(self, direction: str = "ab") -> nn.Module:
        """Return the translator of one direction.

        Raises:
            ValueError: a direction that is neither "ab" nor "ba".
        """
        if direction not in self.generator:
            raise ValueError(f"{self.recipe.name}: direction {direction!r} is none of {', '.join(self.generator)}")
        return self.generator[direction]

    def depths(self, direction: str = "ab") -> tuple[int, int]:
        """Return the channels of one side and of the other."""
        return super().depths()[:: 1 if direction == "ab" else -1]

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of two folders, or of one with A/ and B/ (or trainA/, trainB/, testA/, testB/) in it."""
        return unpaired_images(self, folders, validation)


def unpaired_images(system: System, folders: list[Path], validation: bool) -> Source:
    """Return the images of two sides as a system's page wants them.

    Args:
        system: whose page it is.
        folders: one with both sides in it, or two.
        validation: the images as they are; else crops of images that were enlarged by an eighth, as CycleGAN does (286
            pixels for 256), unless the page's ``data.jitter`` is false: of digits of 28 pixels that makes larger,
            softer ones, cut at the border.
    """
    data = system.recipe.data
    return Folders(
        folders,
        size=data.size,
        channels=data.channels,
        input_channels=data.input_channels,
        flip=data.flip and not validation,
        jitter=data.size // 8 if data.jitter and not validation else 0,
        validation=validation,
    )
