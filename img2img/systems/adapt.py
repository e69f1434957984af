"""Domain adaptation: labelled images of one domain become useful in another, whose images nobody labelled."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.data.labelled import Adaptation
from img2img.data.stream import Source
from img2img.recipe import Recipe
from img2img.registry import part
from img2img.systems.system import System, Trial
from img2img.systems.unpaired import unpaired_images


class PixelDA(System):
    """The generator turns labelled ``source`` images into the style of ``target`` ones; a classifier learns of both.

    Bousmalis et al. 2016 (https://arxiv.org/abs/1612.05424), equations 1 to 3: the ``classifier`` learns with the
    generator, from source images and what becomes of them. A page's fidelity terms compare what it reads with the
    labels (``task``), and what is made of an image with the image (``input``). Noise is drawn from U(-1, 1), and zero
    in use.
    """

    layout = "unpaired"
    inference = ("generator", "classifier")
    learners = {"generator": ("generator", "classifier")}
    comparisons = ("task", "input")

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game for the target's style; the classifier's task on both kinds of labelled images."""
        source, target, label = batch["source"], batch["target"], batch["label"]
        adapted = self.fake(phase, batch, lambda: self.generator(source, self.noise(source)))
        if phase == "discriminator":
            return self.discriminator_terms(self.discriminator, target, adapted, step)
        found = self.generator_terms(self.discriminator, target, adapted)
        plain = coloured(source, adapted.shape[1])
        if self.compares("task", step):
            for images in (plain, adapted):
                read = self.classifier(images).float()
                for name, value in self.fidelity_terms(read, label, step, "task").items():
                    found[name] = found.get(name, 0) + value
        return found | self.fidelity_terms(adapted.float(), plain, step, "input")

    def noise(self, like: Tensor) -> Tensor | None:
        """Draw noise for a batch (N, C, H, W) of images, U(-1, 1); None for a generator without."""
        count = getattr(self.generator, "noise", 0)
        return torch.rand(len(like), count, *like.shape[2:], device=like.device) * 2 - 1 if count else None

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return source images in the target's style; deterministic, since the noise is zero."""
        return self.generator(inputs).float().clamp(*self.span)

    def classify(self, images: Tensor) -> Tensor:
        """Return the class (N,) of target images (N, C, H, W)."""
        return self.classifier(images).argmax(1)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Adapted images, and whether the classifier reads target images right where their labels are known."""
        source, target = batch["source"], batch["target"]
        adapted = self.generator(source, self.noise(source)).float().clamp(*self.span)
        known = batch.get("target_label")
        right = None if known is None else (self.classify(target) == known).float()
        return {"": Trial(adapted, source, real=target, label=batch["label"], right=right)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of a labelled source folder and of a target folder; see `img2img.data.labelled.Adaptation`."""
        return adaptation(self, folders, validation, self.recipe.networks["classifier"].get("classes", 10))


class DTN(System):
    """The generator draws, from what a fixed classifier of the source sees in an image, a target image that shows it.

    Taigman et al. 2016 (https://arxiv.org/abs/1611.02200), equations 4 to 8: G = g(f(x)), where ``features`` is f and
    ``generator`` is g. A page's fidelity terms compare f of a source image with f of what is drawn of it (``features``,
    f-constancy), and a target image with what is drawn of it (``identity``). What is drawn of either is to be taken for
    a target image.
    """

    layout = "unpaired"
    inference = ("generator", "features")
    comparisons = ("features", "identity")

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; the generator's latents are features."""
        if role == "generator":
            spec = spec | {"latent": part("network", self.recipe.networks["features"]).length}
        return super().network(role, spec, **more)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game for what is drawn of source and of target images, and what must stay as it was."""
        target, found = batch["target"], {}
        for side in ("source", "target"):
            seen = self.features(batch[side])
            drawn = self.fake(phase, batch, lambda seen=seen: self.generator(seen), side)
            if phase == "discriminator":
                terms = self.discriminator_terms(self.discriminator, target, drawn, step)
            else:
                terms = self.generator_terms(self.discriminator, target, drawn)
                if side == "source":
                    terms |= self.fidelity_terms(self.features(drawn), seen, step, "features")
                else:
                    terms |= self.fidelity_terms(drawn, target, step, "identity")
            found |= {f"{name}_{side}": value for name, value in terms.items()}
        return found

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return source images (N, C, H, W) as target images of the page's size."""
        return self.generator(self.features(inputs)).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Source images as target images; their classes are those that should be seen."""
        source = batch["source"]
        return {"": Trial(self.infer(source), source, real=batch["target"], label=batch["label"])}

    def deployed(self) -> nn.Module:
        """Return both networks as one translator of images."""
        return Redrawn(self.features, self.generator, self.recipe.data.size)

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of a labelled source folder and of a target folder; only validation looks at the classes."""
        return adaptation(self, folders, validation)


class Redrawn(nn.Module):
    """Images (N, C, H, W) to as large ones that a generator draws of their features.

    Args:
        features: images to (N, length). generator: (N, length) to images of its own size.
        side: of those; what is given is brought to it, and what is drawn back.
    """

    def __init__(self, features: nn.Module, generator: nn.Module, side: int) -> None:
        super().__init__()
        self.features, self.generator, self.side = features, generator, side

    def forward(self, x: Tensor) -> Tensor:
        """Return what is drawn, resized where the generator draws another size."""
        found = self.generator(self.features(x))
        return found if found.shape[-2:] == x.shape[-2:] else F.interpolate(found, x.shape[-2:], mode="bilinear")


def adaptation(system: System, folders: list[Path], validation: bool, classes: int = 0) -> Source:
    """Return a labelled source folder and a target folder as a system's page wants them."""
    data = system.recipe.data
    found = Adaptation(
        folders,
        data.size,
        data.channels,
        input_channels=data.input_channels,
        classes=classes,
        flip=data.flip,
        validation=validation,
        names=system.classes,
    )
    system.classes = found.names
    return found


class SimGAN(System):
    """The generator refines synthetic images ``a`` until they look like real ones ``b``, and changes them little.

    Shrivastava et al. 2016 (https://arxiv.org/abs/1612.07828), equations 1 to 4: a page's fidelity terms compare the
    refined image with its ``input``, so that labels stay true; the discriminator judges patches, with a ``pool`` of
    new and earlier results alike.
    """

    layout = "unpaired"
    comparisons = ("input",)
    pooled = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.pool = self.past_fakes()

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game of patches, and what keeps an image like itself."""
        given, real = batch["a"], batch["b"]
        refined = self.fake(phase, batch, lambda: self.generator(given))
        if phase == "discriminator":
            return self.discriminator_terms(self.discriminator, real, self.pool(refined), step)
        found = self.generator_terms(self.discriminator, real, refined)
        return found | self.fidelity_terms(refined.float(), coloured(given, refined.shape[1]), step)

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return the refined images."""
        return self.generator(inputs).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Refined images beside what they were."""
        return {"": Trial(self.infer(batch["a"]), batch["a"], real=batch["b"])}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of a folder of synthetic and of a folder of real ones; classes below them are not looked at."""
        return unpaired_images(self, folders, validation)


class CoGAN(System):
    """One latent makes an image of each of two domains, of which only unpaired images ``a`` and ``b`` are known.

    Liu & Tuzel 2016 (https://arxiv.org/abs/1606.07536), equation 3: two games whose players share weights, so that the
    two images of a latent show the same thing.
    """

    layout = "unpaired"
    verb = "synthesize"
    SIDES = ("a", "b")
    KEYS = SIDES  # of a batch

    def __init__(self, recipe: Recipe) -> None:
        if recipe.data.input_channels not in (0, recipe.data.channels):
            raise ValueError(
                f"{recipe.name}: both domains have data.channels = {recipe.data.channels}; drop input_channels"
            )
        super().__init__(recipe)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two games."""
        return self.games(phase, batch, self.pair(phase, batch), step)

    def pair(self, phase: str, batch: dict[str, Tensor]) -> Tensor:
        """Draw as many pairs as a batch has images of a side, (N, 2, C, H, W), once for both phases."""
        given = batch[self.KEYS[0]]
        return self.fake(phase, batch, lambda: self.generator(self.latents(len(given), given.device)))

    def games(self, phase: str, batch: dict[str, Tensor], pair: Tensor, step: int) -> dict[str, Tensor]:
        """Return the terms of both games for images that were drawn of one latent each, (N, 2, C, H, W)."""
        found = {}
        for place, side in enumerate(self.SIDES):
            real = batch[self.KEYS[place]]

            def critic(images: Tensor, place: int = place) -> Tensor:
                return self.discriminator(images, place)[:, :1]

            if phase == "discriminator":
                terms = self.discriminator_terms(critic, real, pair[:, place], step)
            else:
                terms = self.generator_terms(critic, real, pair[:, place])
            found |= {f"{name}_{side}": value for name, value in terms.items()}
        return found

    def infer(self, inputs: Tensor, side: str = "a", **controls: Any) -> Tensor:
        """Return the images of latents (N, latent) in domain "a" or "b"."""
        return self.generator(inputs)[:, self.SIDES.index(side)].float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Pairs of the same latents: as input a's image, as output b's."""
        real = batch[self.KEYS[1]]
        pair = self.generator(self.latents(len(real), real.device)).float().clamp(*self.span)
        return {"": Trial(pair[:, 1], pair[:, 0], real=real)}

    def deployed(self, side: str = "a") -> nn.Module:
        """Return the generator of one domain.

        Raises:
            ValueError: a side that is neither "a" nor "b".
        """
        if side not in self.SIDES:
            raise ValueError(f"{self.recipe.name}: side {side!r} is none of {', '.join(self.SIDES)}")
        return Half(self.generator, self.SIDES.index(side))

    def depths(self, side: str = "a") -> tuple[int, int]:
        """Return the channels of the images, the same on both sides."""
        return super().depths()

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of two folders, or of one with A/ and B/ in it."""
        return unpaired_images(self, folders, validation)


class LabelledCoGAN(CoGAN):
    """CoGAN whose discriminators also read classes: labels of the ``source`` teach layers that the target's share.

    Liu & Tuzel 2016 (https://arxiv.org/abs/1606.07536), section 4.1, unsupervised domain adaptation: beside the two
    games the discriminator, which has ``outputs`` = 1 + classes, learns to read labelled source images; a page's
    fidelity terms compare what it reads with the ``label``. Target images are read by the shared layers behind the
    target's own first one. Beyond the paper, terms on ``pair`` compare what is read in the target's half of a drawn
    pair with the class that is read in the source's: of it the discriminator learns to read, and the generator to draw.
    """

    inference = ("generator", "discriminator")
    comparisons = ("label", "pair")
    KEYS = ("source", "target")

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two games, how badly the discriminator reads source images, and how unlike the halves of pairs."""
        pair = self.pair(phase, batch)
        found = self.games(phase, batch, pair, step)
        if phase == "discriminator" and self.compares("label", step):
            read = self.discriminator(batch["source"], 0)[:, 1:].float()
            found |= self.fidelity_terms(read, batch["label"], step, "label")
        if self.compares("pair", step):
            with torch.no_grad():
                shown = self.discriminator(pair[:, 0], 0)[:, 1:].argmax(1)
            read = self.discriminator(pair[:, 1], 1)[:, 1:].float()
            found |= self.fidelity_terms(read, shown, step, "pair")
        return found

    def classify(self, images: Tensor) -> Tensor:
        """Return the class (N,) of target images (N, C, H, W)."""
        return self.discriminator(images, 1)[:, 1:].argmax(1)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Pairs as CoGAN draws them, and whether target images are read right where their labels are known."""
        known = batch.get("target_label")
        right = None if known is None else (self.classify(batch["target"]) == known).float()
        return {"": super().trial(batch)[""]._replace(right=right)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of a labelled source folder and of a target folder; see `img2img.data.labelled.Adaptation`."""
        return adaptation(self, folders, validation, self.recipe.networks["discriminator"].get("outputs", 1) - 1)


class Half(nn.Module):
    """A generator of pairs as a generator of one side: latents (N, latent) to (N, C, H, W).

    Args:
        network: latents to (N, 2, C, H, W). place: 0 or 1.
    """

    def __init__(self, network: nn.Module, place: int) -> None:
        super().__init__()
        self.network, self.place, self.latent = network, place, network.latent

    def forward(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.network(z)[:, self.place]


def coloured(images: Tensor, channels: int) -> Tensor:
    """Return images (N, C, H, W) with another number of channels: grey repeated, or colours averaged."""
    if images.shape[1] == channels:
        return images
    return images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
