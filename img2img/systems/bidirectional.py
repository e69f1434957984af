"""Noise to image and back: an encoder learns to undo the generator, in one game over pairs of image and latent."""

import torch
from torch import Tensor, nn

from img2img.recipe import Recipe
from img2img.systems.autoencode import Encoding
from img2img.systems.system import per_sample


class OfPairs:
    """A joint discriminator as a critic of pairs that are one vector each, so that penalties see both.

    Args:
        network: images (N, C, H, W) and latents (N, latent) to logits (N, 1).
        augment: what happens to every image first.
    """

    def __init__(self, network: nn.Module, augment: nn.Module) -> None:
        self.network, self.augment = network, augment

    def __call__(self, pairs: Tensor) -> Tensor:
        """Return the logits (N, 1) of pairs (N, C * H * W + latent)."""
        images, latents = pairs[:, : -self.network.latent], pairs[:, -self.network.latent :]
        return self.network(self.augment(images.unflatten(1, self.network.shape)), latents)


class Bidirectional(Encoding):
    """BiGAN, ALI and ALICE: real images with their codes E(x) play against latents with their images G(z).

    Donahue et al. 2016 (https://arxiv.org/abs/1605.09782), section 3; Dumoulin et al. 2016
    (https://arxiv.org/abs/1606.00704), section 2. Generator and encoder learn together, each by the cost of the
    generator, the encoder's with real and made exchanged. BiGAN's encoder is deterministic, ALI's stochastic. Fidelity
    terms make it ALICE: Li et al. 2017 (https://arxiv.org/abs/1709.01215).
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if self.adversarial is not None and not getattr(self.adversarial, "exchangeable", False):
            raise ValueError(
                f"{recipe.name}: the encoder needs a game whose players can be exchanged; use adversarial logistic, "
                "minimax, hinge or wasserstein"
            )

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The two halves of the game over pairs, and what reconstructions lack."""
        real, critic = batch["real"], OfPairs(self.discriminator, self.augment)

        def make() -> Tensor:
            z = self.latents(len(real), real.device)
            return torch.stack([pairs(real, self.encode(real, draw=True)), pairs(self.generator(z), z)])

        inferred, made = self.fake(phase, batch, make)
        if phase == "discriminator":
            return self.discriminator_terms(critic, inferred, made, step)
        found = self.generator_terms(critic, inferred, made)
        score = -critic(inferred).float()
        found["encoder"] = self.adversarial_weight * per_sample(self.adversarial.generator(score.detach(), score))
        if self.compares("reconstruction", step):
            again = self.generator(inferred[:, -self.generator.latent :])
            found |= self.fidelity_terms(again.float(), real, step)
        return found

    def seen_by(self, critic: OfPairs) -> OfPairs:
        """Return the critic as it is: it changes the image of each pair itself."""
        return critic


def pairs(images: Tensor, latents: Tensor) -> Tensor:
    """Return images (N, C, H, W) and their latents (N, latent) as vectors (N, C * H * W + latent), in float32."""
    return torch.cat([images.flatten(1).float(), latents.float()], 1)
