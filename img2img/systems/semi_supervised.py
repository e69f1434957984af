"""Semi-supervised learning: few labels and many images teach a discriminator to classify."""

from pathlib import Path

from torch import Tensor, nn

from img2img.data.labelled import FewLabels, Labelled
from img2img.data.stream import Source
from img2img.systems.generate import Generate
from img2img.systems.system import Trial, only


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
        data, classes = self.recipe.data, self.recipe.networks["discriminator"].get("outputs", 1)
        folder = only(folders, self.recipe.name)
        if validation:
            return Labelled(folder, data.size, data.channels, classes=classes)
        return FewLabels(folder, data.size, data.channels, labels=data.labels, flip=data.flip, classes=classes)
