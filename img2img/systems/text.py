"""Text to image: the generator draws what a caption says, and with boxes or points where."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from img2img.data.captioned import WORD, Captioned
from img2img.data.stream import Source
from img2img.fidelity.classification import cross_entropy
from img2img.networks.text_gan import place_maps
from img2img.recipe import Recipe
from img2img.systems.system import System, Trial, only, per_sample


class TextToImage(System):
    """GAN-INT-CLS: the discriminator learns from mismatched captions too, the generator from captions in between.

    Reed et al. 2016 (https://arxiv.org/abs/1605.05396), algorithm 1 and equation 5. Before both players learn,
    ``encoder`` (of captions) and ``reader`` (of images) learn to agree: as the paper's joint embedding, but by the
    cross entropy of finding an image's caption among those of the batch, and the other way
    (https://arxiv.org/abs/2103.00020, figure 3). The players take the embeddings as they are. A fidelity term, such as
    the cross entropy, also has the generator make what the reader finds its caption by, as
    https://arxiv.org/abs/1711.10485, section 3.2. A generator with ``boxes`` puts what it draws there,
    one with ``points`` has it reach to these (https://arxiv.org/abs/1610.02454).
    """

    verb = "synthesize"
    inference = ("generator", "encoder")
    learners = {"encoder": ("encoder", "reader")}
    comparisons = ("caption",)
    SHARPNESS = 10.0
    PLACES = {"box": (0.1, 0.1, 0.9, 0.9), "points": (0.1, 0.5, 0.5, 0.1, 0.9, 0.5, 0.5, 0.9)}
    """Where, if nobody says: in the middle. Points are the leftmost, topmost, rightmost and bottommost one."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        options = {"box": "boxes", "points": "points"}
        self.place = next((key for key, option in options.items() if getattr(self.generator, option, 0)), "")

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role; the encoder's embeddings are what the players take and the reader makes."""
        length = self.recipe.networks.get("encoder", {}).get("embedding", 128)
        return super().network(role, {"classes" if role == "reader" else "embedding": length} | spec, **more)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """What encoder and reader disagree about, or the game of image and text."""
        real, where = batch["real"], batch[self.place] if self.place else None
        own = torch.arange(len(real), device=real.device)
        if phase == "encoder":
            likeness = self.likeness(real, self.encoder(batch["read"]))
            ways = [cross_entropy(table, own) for table in (likeness, likeness.T)]
            return {"agreement": (ways[0] + ways[1]) / 2}
        with torch.no_grad():
            text = self.encoder(batch["read"])
        wrong = text.roll(1, 0)
        z = self.latents(len(real), real.device)
        fake = self.fake(phase, batch, lambda: self.generator(z, text, where))

        def critic(images: Tensor) -> Tensor:
            return self.discriminator(images, text, where)

        if phase == "discriminator":
            found = self.discriminator_terms(critic, real, fake, step)
            seen = self.augment(real)
            scores = (self.discriminator(seen, said, where).float() for said in (text, wrong))
            mismatched = self.adversarial.discriminator(*scores)
            # Two images may have one caption, which is then not wrong.
            differ = (batch["text"] != batch["text"].roll(1, 0)).any(1).float()
            found["adversarial"] = found["adversarial"] / 2
            return found | {"mismatched": per_sample(mismatched) * differ / 2}
        between = (text + wrong) / 2
        score = self.discriminator(self.augment(self.generator(z, between, where)), between, where).float()
        found = self.generator_terms(critic, real, fake)
        if self.compares("caption", step):
            found |= self.fidelity_terms(self.likeness(fake, text), own, step)
        loss = self.adversarial_weight * per_sample(self.adversarial.generator(score.detach(), score))
        return found | {"interpolated": loss}

    def likeness(self, images: Tensor, embedded: Tensor) -> Tensor:
        """Return how well each image of a batch, as the discriminator sees it, goes with each caption, (N, N)."""
        read = functional.normalize(self.reader(self.augment(images)).float(), dim=1)
        return read @ embedded.float().T * self.SHARPNESS

    def infer(
        self,
        inputs: Tensor,
        text: Tensor | str = "",
        box: Tensor | tuple[float, ...] | None = None,
        points: Tensor | tuple[float, ...] | None = None,
        **controls: Any,
    ) -> Tensor:
        """Return the images of latents (N, latent).

        Args:
            inputs: latents.
            text: what to draw, or several texts, (N, ...), as the encoder reads them.
            box: where: x0, y0, x1, y1 in shares of the side, or (N, 4); None for the middle.
            points: where it reaches to: x, y of its leftmost, topmost, rightmost and bottommost point in shares of the
                side, 8 numbers, or (N, 4, 2); None for the middle.
            controls: of other systems; without effect.
        """
        known = text if isinstance(text, Tensor) else self.encoder.read(text)[None].to(inputs.device)
        embedded = self.encoder(known).expand(len(inputs), -1)
        return self.generator(inputs, embedded, self._where(box, points, inputs)).float().clamp(*self.span)

    def _where(self, box: Any, points: Any, like: Tensor) -> Tensor | None:
        if not self.place:
            return None
        given, shape = {"box": (box, (4,)), "points": (points, (4, 2))}[self.place]
        found = torch.as_tensor(self.PLACES[self.place] if given is None else given)
        return found.to(like.device).float().reshape(-1, *shape).expand(len(like), *shape)

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """A drawing of each caption; as input the box, or the points, dark on white."""
        real, place = batch["real"], {self.place: batch[self.place]} if self.place else {}
        drawn, asked = self.infer(self.latents(len(real), real.device), batch["read"], **place), None
        for where in place.values():
            asked = (1 - 2 * place_maps(where, real.shape[-1]).amax(1, keepdim=True)).expand_as(real)
        return {"": Trial(drawn, asked, real=real, text=batch["text"], points=place.get("points"))}

    def deployed(
        self, text: str = "", box: tuple[float, ...] | None = None, points: tuple[float, ...] | None = None
    ) -> nn.Module:
        """Return the generator of one text.

        Raises:
            ValueError: a box or points that are none, or for a system that knows no such.
        """
        for key, given, option in (("box", box, "boxes = true"), ("points", points, "points = 4")):
            if given is not None and key != self.place:
                raise ValueError(f"{self.recipe.name}: has no {key} to choose; a generator with {option} has")
        if box is not None:
            x0, y0, x1, y1 = box if len(box) == 4 else (1, 1, 0, 0)
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise ValueError(
                    f"box {tuple(box)} must be x0, y0, x1, y1 in shares of the side, 0 to 1, x0 < x1, y0 < y1"
                )
        if points is not None:
            x, y, fits = points[::2], points[1::2], len(points) == 8 and all(0 <= share <= 1 for share in points)
            if not (fits and (x[0], x[2], y[1], y[3]) == (min(x), max(x), min(y), max(y))):
                raise ValueError(
                    f"points {tuple(points)} must be x, y of the leftmost, topmost, rightmost and bottommost point in "
                    "shares of the side, 8 numbers from 0 to 1"
                )
        if text and not WORD.search(text):
            raise ValueError(f"text {text!r}: has no letter or digit in it; say in words what to draw")
        with torch.no_grad():
            embedded = self.encoder(self.encoder.read(text)[None])
        return Told(self.generator, embedded, self._where(box, points, embedded))

    def depths(self, **controls: Any) -> tuple[int, int]:
        """Return the channels of the images."""
        return super().depths()

    def source(self, folders: list[Path], validation: bool = False) -> Source:
        """Return the captioned images of a folder, see `img2img.data.captioned.Captioned`."""
        data = self.recipe.data
        return Captioned(
            only(folders, self.recipe.name),
            data.size,
            data.channels,
            read=self.encoder.read,
            boxes=self.place == "box",
            points=self.place == "points",
            flip=data.flip,
            validation=validation,
        )


class Told(nn.Module):
    """A generator of one text as a generator of noise: (N, latent) to images.

    Args:
        network: (latents, embeddings, boxes or points) to images.
        embedded: the text, (1, embedding).
        where: the box (1, 4) or the points (1, 4, 2), or None.
    """

    def __init__(self, network: nn.Module, embedded: Tensor, where: Tensor | None) -> None:
        super().__init__()
        self.network, self.latent = network, network.latent
        self.register_buffer("embedded", embedded)
        self.register_buffer("where", where)

    def forward(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        where = None if self.where is None else self.where.expand(len(z), *self.where.shape[1:])
        return self.network(z, self.embedded.expand(len(z), -1), where)
