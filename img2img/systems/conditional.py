"""Label to image: the generator is asked for a class, and the discriminator knows what was asked."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.data.images import Images
from img2img.data.labelled import Labelled
from img2img.data.stream import Source
from img2img.networks.conditional import one_hot
from img2img.recipe import Recipe
from img2img.systems.generate import Generate
from img2img.systems.system import Trial, only


class Given:
    """A discriminator as a critic of images alone: their labels are given, and of its logits the first counts.

    Args:
        network: (images (N, C, H, W), labels (N,)) to logits (N, 1 or more).
        labels: (N,).
    """

    def __init__(self, network: nn.Module, labels: Tensor | None) -> None:
        self.network, self.labels = network, labels

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logit of being real, (N, 1)."""
        return self.network(images, self.labels)[:, :1]

    def features(self, images: Tensor) -> Tensor:
        """Return the values before the last layer."""
        return self.network.features(images, self.labels)


class Asked(nn.Module):
    """A generator of one class as a generator of noise: (N, latent) to images.

    Args:
        network: (latents (N, latent), labels (N,)) to images (N, C, H, W).
        label: the class; None for all in turn.

    Attributes:
        in_turn: whether the class of an image depends on its place.
    """

    def __init__(self, network: nn.Module, label: int | None) -> None:
        super().__init__()
        self.network, self.label, self.latent = network, label, network.latent
        self.in_turn = label is None

    def forward(self, z: Tensor, first: int | None = 0) -> Tensor:
        """Return the images of latents.

        Args:
            z: (N, latent).
            first: place of the first one among all that are drawn; None for class 0 in place of all in turn.
        """
        label = 0 if first is None else self.label
        given = labels(label, len(z), self.network.classes, z.device, first or 0)
        return self.network(z, one_hot(given, self.network.classes).to(z.dtype))


class Coded(Asked):
    """As `Asked`, with continuous codes: the first of a latent's standard normal numbers stand for them.

    Each is brought to U(-1, 1), which InfoGAN learns with, by its quantile; so seeds keep their meaning, and what lies
    between two codes is one.

    Args:
        network, label: as in `Asked`.
        continuous: how many codes there are.
        code: values of the first of them, whatever the latent says.
    """

    def __init__(self, network: nn.Module, label: int | None, continuous: int, code: tuple[float, ...]) -> None:
        super().__init__(network, label)
        self.continuous = continuous
        self.register_buffer("code", torch.tensor(code))

    def forward(self, z: Tensor, first: int | None = 0) -> Tensor:
        """Return the images of latents, as `Asked` does."""
        drawn = torch.erf(z[:, len(self.code) : self.continuous] / 2**0.5)
        z = torch.cat([self.code.to(z.dtype).expand(len(z), -1), drawn, z[:, self.continuous :]], 1)
        return super().forward(z, first)


class Conditional(Generate):
    """The generator makes images of a ``label`` (N,) from latents (N, latent), the discriminator judges both together.

    How labels come in is the networks' business: concatenated (Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784),
    or projected on features (Miyato & Koyama 2018, https://arxiv.org/abs/1802.05637, equation 3). A discriminator that
    has ``outputs`` = 1 + classes reads the class besides, which a page's fidelity terms compare with the ``label``: of
    real and made images while it learns, of made ones while the generator does (Odena et al. 2016,
    https://arxiv.org/abs/1610.09585, equations 2 and 3), all as the page's ``augment`` changes them.
    """

    comparisons: tuple[str, ...] = ("label",)
    pooled = False
    simultaneous = False

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if not getattr(self.generator, "classes", 0):
            raise ValueError(f"{recipe.name}: the task {recipe.task} needs a generator with classes, e.g. classes = 10")
        wanted = 1 + self.generator.classes
        reads = self.comparisons == ("label",) and self.fidelity
        if reads and recipe.networks.get("discriminator", {}).get("outputs", 1) != wanted:
            raise ValueError(
                f"{recipe.name}: a discriminator that reads the class needs outputs = 1 + classes; set "
                f"networks.discriminator.outputs = {wanted}"
            )

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two halves of the game, and what the discriminator reads in the images."""
        real, label = batch["real"], batch["label"]
        fake = self.fake(phase, batch, lambda: self.generator(self.latents(len(real), real.device), label))
        critic = Given(self.discriminator, label)
        if phase == "discriminator":
            found = self.discriminator_terms(critic, real, fake, step)
            return found | self.reading_terms([real, fake], label, step)
        return self.generator_terms(critic, real, fake) | self.reading_terms([fake], label, step)

    def reading_terms(self, images: list[Tensor], label: Tensor, step: int) -> dict[str, Tensor]:
        """Return how badly the discriminator reads the class in some sets of images, their mean, (N,)."""
        if not self.compares("label", step):
            return {}
        found: dict[str, Tensor] = {}
        for each in images:
            read = self.discriminator(self.augment(each), label)[:, 1:]
            for name, value in self.fidelity_terms(read.float(), label, step, "label").items():
                found[name] = found.get(name, 0) + value / len(images)
        return found

    def infer(self, inputs: Tensor, label: int | Tensor | None = None, **controls: Any) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, latent) and labels: one, (N,), or None for all in turn."""
        given = labels(label, len(inputs), self.generator.classes, inputs.device)
        return self.generator(inputs, given).float().clamp(*self.span)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """A sample of the label of each real image."""
        real, label = batch["real"], batch["label"]
        return {"": Trial(self.infer(self.latents(len(real), real.device), label), real=real, label=label)}

    def deployed(self, label: int | str | None = None) -> nn.Module:
        """Return the generator of one class, by its name or number, or of all in turn.

        Raises:
            ValueError: there is no such class.
        """
        return Asked(self.generator, self.number(label))

    def number(self, label: int | str | None) -> int | None:
        """Return the number of a class that is given by its name or number; of None, None.

        Raises:
            ValueError: there is no such class.
        """
        if label is None:
            return None
        count = self.generator.classes
        known = {str(number): number for number in range(count)} | {name: n for n, name in enumerate(self.classes)}
        if str(label) not in known:
            names = f", or one of {', '.join(self.classes)}" if self.classes else ""
            raise ValueError(f"{self.recipe.name}: label {label} must be 0 to {count - 1}{names}")
        return known[str(label)]

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return the labelled images of a folder, see `img2img.data.labelled.Labelled`."""
        data = self.recipe.data
        found = Labelled(
            only(folders, self.recipe.name),
            data.size,
            data.channels,
            flip=data.flip and not validation,
            classes=self.generator.classes,
            names=self.classes,
        )
        self.classes = found.names
        return found


class InfoGAN(Conditional):
    """Classes that nobody named: the generator is asked for a code, and the discriminator must find it in the image.

    A ``category`` is the generator's label, drawn evenly; ``continuous`` codes are the first values of its latent,
    drawn from U(-1, 1). Both are read from the discriminator's logits after the first: Chen et al. 2016
    (https://arxiv.org/abs/1606.03657), equation 6, with the lower bound L_I of equation 5; the weights of a page's
    terms are its lambda. A page's ``augment`` comes before the reading, too: a code must then be something that lasts
    through it. A discriminator has ``outputs`` = 1 + classes + continuous codes.
    """

    comparisons = ("category", "continuous")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if "discriminator" in recipe.networks and not 0 <= self.continuous <= self.generator.latent:
            raise ValueError(
                f"{recipe.name}: the discriminator needs outputs = 1 + classes + continuous codes, and the generator a "
                f"latent of as many codes or more; outputs leave {self.continuous} codes for a latent of "
                f"{self.generator.latent}"
            )

    @property
    def continuous(self) -> int:
        """Number of continuous codes, as many as the discriminator has outputs for."""
        return self.recipe.networks["discriminator"].get("outputs", 1) - 1 - self.generator.classes

    def latents(self, count: int, device: torch.device) -> Tensor:
        """Draw latents whose first values are the continuous codes, U(-1, 1)."""
        z = super().latents(count, device)
        z[:, : self.continuous] = torch.rand(count, self.continuous, device=device) * 2 - 1
        return z

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game of `Generate`, and in both phases the codes that are lost in made images."""
        real = batch["real"]

        def make() -> tuple[Tensor, Tensor, Tensor]:
            z, category = self.latents(len(real), real.device), self.categories(len(real), real.device)
            return self.generator(z, category), z[:, : self.continuous], category

        if phase == "discriminator":
            with torch.no_grad():
                fake, codes, category = make()
            found = self.discriminator_terms(Given(self.discriminator, None), real, fake, step)
        else:
            fake, codes, category = make()
            found = self.generator_terms(Given(self.discriminator, None), real, fake)
        read, classes = self.discriminator(self.augment(fake))[:, 1:].float(), self.generator.classes
        found |= self.fidelity_terms(read[:, :classes], category, step, "category")
        if self.continuous:
            found |= self.fidelity_terms(read[:, classes:], codes, step, "continuous")
        return found

    def categories(self, count: int, device: torch.device) -> Tensor:
        """Draw categories (N,), all as often in expectation."""
        return torch.randint(self.generator.classes, (count,), device=device)

    def deployed(self, label: int | str | None = None, code: tuple[float, ...] = ()) -> nn.Module:
        """Return the generator of one category, or of all in turn; ``code`` are values of the first continuous codes.

        Raises:
            ValueError: there is no such category or code.
        """
        if len(code) > self.continuous or not all(-1 <= value <= 1 for value in code):
            raise ValueError(f"{self.recipe.name}: code {code} must be {self.continuous} numbers or fewer, -1 to 1")
        return Coded(self.generator, self.number(label), self.continuous, tuple(code))

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """As many samples as there are real images, of random codes; the category is the label."""
        real = batch["real"]
        category = self.categories(len(real), real.device)
        found = self.infer(self.latents(len(real), real.device), category)
        return {"": Trial(found, real=real, label=category)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return the images of a folder; whatever classes they have are not looked at."""
        data = self.recipe.data
        return Images(only(folders, self.recipe.name), data.size, data.channels, data.flip and not validation)


def labels(label: int | Tensor | None, count: int, classes: int, device: torch.device, first: int = 0) -> Tensor:
    """Return labels (N,): of one class, as given, or of all classes in turn, the ``first`` ones left out."""
    if label is None:
        return torch.arange(first, first + count, device=device) % classes
    return label.to(device) if isinstance(label, Tensor) else torch.full((count,), int(label), device=device)
