"""Semi-supervised learning: few labels and many images teach a discriminator, or an encoder, to classify."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.data.labelled import FewLabels, Labelled
from img2img.data.stream import Source
from img2img.networks.conditional import one_hot
from img2img.systems.autoencode import SupervisedAutoencoder
from img2img.systems.generate import Generate
from img2img.systems.system import System, Trial, only


class Realness:
    """A classifier as a critic: images to the logit (N, 1) of being of any class, log Z(x) = log sum_k exp l_k(x).

    The fake class has the logit 0, so D(x) = Z / (Z + 1): Salimans et al. 2016 (https://arxiv.org/abs/1606.03498),
    section 5.

    Args:
        network: images (N, C, H, W) to the logits (N, classes), with a method ``features``.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self.features = network, network.features

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logit of being real, (N, 1)."""
        return self.network(images).float().logsumexp(1, keepdim=True)


class SemiSupervised(Generate):
    """The discriminator has a logit a class, and one fixed at 0 for what is made; few of the real images have a label.

    Salimans et al. 2016 (https://arxiv.org/abs/1606.03498), section 5: its loss is that of the game for ``real``
    (unlabelled) and made images, and the page's fidelity terms for the classes of ``labelled`` ones. The paper's
    generator learns by feature matching alone: an adversarial ``weight`` of 0. In use it classifies.
    """

    inference = ("generator", "discriminator")
    comparisons = ("label",)
    pooled = False
    simultaneous = False

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two halves of the game, and how badly the discriminator reads the labelled images."""
        real, critic = batch["real"], Realness(self.discriminator)
        fake = self.fake(phase, batch, lambda: self.generator(self.latents(len(real), real.device)))
        if phase == "generator":
            return self.generator_terms(critic, real, fake)
        found = self.discriminator_terms(critic, real, fake, step)
        read = self.discriminator(self.augment(batch["labelled"])).float()
        return found | self.fidelity_terms(read, batch["label"], step)

    def classify(self, images: Tensor) -> Tensor:
        """Return the class (N,) of images (N, C, H, W) in [-1, 1]."""
        return self.discriminator(images).argmax(1)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Samples, and whether the discriminator reads the class of each real image right."""
        right = (self.classify(batch["real"]) == batch["label"]).float()
        return {"": super().trial(batch)[""]._replace(right=right)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of which few are labelled; in validation all are."""
        return few_labels(self, folders, validation, self.recipe.networks["discriminator"].get("outputs", 1))


class SemiSupervisedAutoencoder(SupervisedAutoencoder):
    """An adversarial autoencoder whose encoder gives a class beside the style, and learns it from few labels.

    Makhzani et al. 2015 (https://arxiv.org/abs/1511.05644), section 5: the first of the ``encoder``'s outputs are the
    style, the others the logits of the classes, and the decoder gets the style and the classes' probabilities. The
    ``discriminator`` compares styles with the normal prior, the ``category_discriminator`` probabilities with single
    classes that are drawn evenly. The paper's steps, reconstruction, regularisation and classification of ``labelled``
    images, are one here, whose weights the page chooses. In use it classifies, and draws the class that is asked for.
    """

    learners = SupervisedAutoencoder.learners | {"discriminator": ("discriminator", "category_discriminator")}
    comparisons = ("reconstruction", "label")
    refused = "stochastic"

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; the encoder gives the classes too, and a discriminator sees those alone."""
        key = {"encoder": "classes", "category_discriminator": "inputs"}.get(role)
        if key and "generator" in self._modules:
            spec = {key: self.generator.classes} | spec
        return super().network(role, spec, **more)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two games over codes, what reconstructions lack, and how badly the encoder reads the labelled images."""
        real, sizes = batch["real"], [self.generator.latent, self.generator.classes]

        def make() -> Tensor:
            style, logits = self.encoder(real).float().split(sizes, 1)
            return torch.cat([style, logits.softmax(1)], 1)

        code = self.fake(phase, batch, make)
        drawn = torch.randint(self.generator.classes, (len(real),), device=real.device)
        priors = self.latents(len(real), real.device), one_hot(drawn, self.generator.classes)
        critics = {"style": self.discriminator, "category": self.category_discriminator}
        terms = {}
        for (name, critic), prior, part in zip(critics.items(), priors, code.split(sizes, 1), strict=True):
            if phase == "discriminator":
                found = self.discriminator_terms(critic, prior, part, step)
            else:
                found = self.generator_terms(critic, prior, part)
            terms |= {f"{key}_{name}": value for key, value in found.items()}
        if phase == "discriminator":
            return terms
        terms |= self.fidelity_terms(self.generator(*code.split(sizes, 1)).float(), real, step)
        return terms | self.fidelity_terms(self.logits(batch["labelled"]), batch["label"], step, "label")

    def encode(self, images: Tensor, draw: bool = False) -> Tensor:
        """Return the styles (N, latent) of images (N, C, H, W) in [-1, 1], in float32; nothing is drawn."""
        return self.encoder(images)[:, : self.generator.latent].float()

    def logits(self, images: Tensor) -> Tensor:
        """Return what the encoder says of the classes (N, classes) of images (N, C, H, W) in [-1, 1], in float32."""
        return self.encoder(images)[:, self.generator.latent :].float()

    def classify(self, images: Tensor) -> Tensor:
        """Return the class (N,) of images (N, C, H, W) in [-1, 1]."""
        return self.logits(images).argmax(1)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The reconstruction of each real image with the class that was read, and whether that is right."""
        real, read = batch["real"], self.classify(batch["real"])
        right = (read == batch["label"]).float()
        return {"": Trial(self.reconstruct(real, label=read), real, real, real, batch["label"], right)}

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return images of which few are labelled; in validation all are."""
        return few_labels(self, folders, validation, self.generator.classes)


def few_labels(system: System, folders: list[Path], validation: bool, classes: int) -> Source:
    """Return images of which few are labelled as a system's page wants them; in validation all are."""
    data, folder = system.recipe.data, only(folders, system.recipe.name)
    if validation:
        return Labelled(folder, data.size, data.channels, classes=classes, names=system.classes)
    found = FewLabels(folder, data.size, data.channels, labels=data.labels, flip=data.flip, classes=classes)
    system.classes = found.names
    return found
