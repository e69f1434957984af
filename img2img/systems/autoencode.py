"""Latents of images: systems with an encoder, and autoencoders whose codes a game brings to the prior."""

from typing import Any

import torch
from torch import Tensor, nn

from img2img.recipe import Recipe
from img2img.registry import options
from img2img.systems.conditional import Conditional
from img2img.systems.generate import Generate
from img2img.systems.system import Trial


class Encoding(Generate):
    """What systems with an encoder share: it learns with the generator, which makes images of its codes again.

    An ``encoder`` with twice as many outputs as the latent has numbers gives mean and log variance of a Gaussian, from
    which codes are drawn while it learns. A page's fidelity terms compare reconstructions with the images.
    """

    inference = ("generator", "encoder")
    learners = {"generator": ("generator", "encoder")}
    comparisons = ("reconstruction",)
    pooled = False
    simultaneous = False
    refused = "classes"  # the option of an encoder that has no meaning here

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; what takes or gives latents has as many as the generator.

        Raises:
            ValueError: the page does not have its generator first, or an encoder that gives what nothing takes.
        """
        if role == "encoder" and self.recipe.networks[role].get(self.refused):
            raise ValueError(
                f"{self.recipe.name}: networks.encoder.{self.refused} is not for the task {self.recipe.task}; drop it"
            )
        if role != "generator":
            if "generator" not in self._modules:
                raise ValueError(f"{self.recipe.name}: put the generator first under [networks]")
            known = options("network", spec["type"])
            spec = {key: self.generator.latent for key in ("latent", "inputs") if key in known} | spec
        return super().network(role, spec, **more)

    def encode(self, images: Tensor, draw: bool = False) -> Tensor:
        """Return the codes (N, latent) of images (N, C, H, W) in [-1, 1], in float32.

        Args:
            images: what to encode.
            draw: draw from what a stochastic encoder says, in place of its mean.
        """
        return self.code(self.encoder(images).float(), draw)

    def code(self, said: Tensor, draw: bool) -> Tensor:
        """Return the codes (N, latent) of what the encoder gave, (N, latent or 2 * latent); ``draw`` as in `encode`."""
        mean, spread = said[:, : self.generator.latent], said[:, self.generator.latent :]
        if not (draw and spread.shape[1]):
            return mean
        return mean + torch.randn_like(mean) * (spread / 2).exp()

    def reconstruct(self, images: Tensor, **controls: Any) -> Tensor:
        """Return the images (N, C, H, W) of the codes of images; ``controls`` as `infer` takes them."""
        return self.infer(self.encode(images), **controls)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The reconstruction of each real image."""
        real = batch["real"]
        return {"": Trial(self.reconstruct(real), real, real, real)}


class AdversarialAutoencoder(Encoding):
    """The encoder learns to reconstruct, and to make codes that a discriminator cannot tell from the normal prior.

    Makhzani et al. 2015 (https://arxiv.org/abs/1511.05644), section 2: what is real to the discriminator is a latent
    drawn from the prior, what is made is a code. The paper's two steps of the encoder, reconstruction and
    regularisation, are one here, whose weights the page chooses.

    Raises:
        ValueError: an augmentation that only images can take.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if wrong := [item["type"] for item in recipe.augment if item["type"] != "instance_noise"]:
            raise ValueError(f"{recipe.name}: it judges codes: augment {wrong[0]} is for images; drop it")

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game over codes, and what reconstructions lack."""
        real = batch["real"]
        prior = self.latents(len(real), real.device)
        code = self.fake(phase, batch, lambda: self.encode(real, draw=True))
        if phase == "discriminator":
            return self.discriminator_terms(self.discriminator, prior, code, step)
        found = self.generator_terms(self.discriminator, prior, code)
        return found | self.fidelity_terms(self.decode(code, batch).float(), real, step)

    def decode(self, code: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the images (N, C, H, W) of the codes (N, latent) of a batch."""
        return self.generator(code)


class AdversarialVariationalBayes(AdversarialAutoencoder):
    """A variational autoencoder whose posterior q(z|x) can take any shape: a discriminator gives its KL to the prior.

    Mescheder et al. 2017 (https://arxiv.org/abs/1701.04722): the discriminator is told the image, and tells draws of
    q(z|x) from latents of the prior (equation 3.3); minus its logit is then T(x, z) = log q(z|x) - log p(z).
    Generator and encoder minimise that, by the loss ``reverse_kl``, and -log p(x|z) (equation 3.7), which is a fidelity
    term: ``mse`` of the weight D / (2 s^2) for a Gaussian of deviation s in each of D values. Without a game, and with
    a stochastic encoder, it is the Gaussian variational autoencoder, whose KL has a formula (Kingma & Welling 2013,
    https://arxiv.org/abs/1312.6114, appendix B).
    """

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The game over codes of given images, or the KL by its formula, and what reconstructions lack."""
        real = batch["real"]
        said = self.fake(phase, batch, lambda: self.encoder(real).float())
        prior, code = self.latents(len(real), real.device), self.code(said, draw=True)

        def critic(codes: Tensor) -> Tensor:
            return self.discriminator(real, codes)

        if phase == "discriminator":
            return self.discriminator_terms(critic, prior, code, step)
        found = {"kl": self.divergence(said)} if self.adversarial is None else self.generator_terms(critic, prior, code)
        return found | self.fidelity_terms(self.generator(code).float(), real, step)

    def divergence(self, said: Tensor) -> Tensor:
        """Return the KL (N,) to the normal prior of the Gaussians that the encoder gave as (N, 2 * latent).

        Raises:
            ValueError: it gave codes, whose KL only a game can tell.
        """
        if said.shape[1] != 2 * self.generator.latent:
            raise ValueError(
                f"{self.recipe.name}: without 'adversarial' the encoder must give a Gaussian; set its stochastic = true"
            )
        mean, spread = said.chunk(2, 1)
        return (mean.square() + spread.exp() - 1 - spread).sum(1) / 2


class SupervisedAutoencoder(AdversarialAutoencoder, Conditional):
    """An adversarial autoencoder whose decoder is told the class, so that codes are left with the style.

    Makhzani et al. 2015 (https://arxiv.org/abs/1511.05644), section 4: one code with all labels gives every class in
    the same handwriting.
    """

    def decode(self, code: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the images of codes with the batch's classes."""
        return self.generator(code, batch["label"])

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """The reconstruction of each real image with its class."""
        real, label = batch["real"], batch["label"]
        return {"": Trial(self.reconstruct(real, label=label), real, real, real, label)}
