"""A judge of text to image: a network that knows which caption belongs to an image."""

import torch.nn.functional as F
from torch import Tensor, nn

from img2img import checkpoint
from img2img.networks.classifier import Classifier
from img2img.networks.text_encoder import SentenceEncoder, TextEncoder
from img2img.recipe import root
from img2img.registry import nearest


class Matcher(nn.Module):
    """Images and captions to unit vectors of one space, near to each other where they belong together.

    Args:
        embedding: length of the vectors.
        width: channels of the first convolution of images. text: length of the vector of a piece of text.
        size: side in pixels that images are brought to.
        sentences: captions are sentences' meanings, not pieces.
    """

    def __init__(
        self, embedding: int = 64, width: int = 24, text: int = 32, size: int = 32, sentences: bool = False
    ) -> None:
        super().__init__()
        self.options = {"embedding": embedding, "width": width, "text": text, "size": size, "sentences": sentences}
        self.reader = Classifier(embedding, 3, width, hidden=2 * embedding)
        self.encoder = SentenceEncoder(embedding) if sentences else TextEncoder(embedding, text)

    def images(self, images: Tensor) -> Tensor:
        """Return the vectors (N, embedding) of images (N, 1 or 3, H, W) in [0, 1]."""
        side = self.options["size"]
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return F.normalize(self.reader(images.expand(-1, 3, -1, -1) * 2 - 1), dim=1)

    def captions(self, read: Tensor) -> Tensor:
        """Return the vectors (N, embedding) of captions, as the encoder reads them: (N, LENGTH) pieces, or (N, 384)."""
        return self.encoder(read)


def matcher(name: str) -> Matcher:
    """Return a shipped matcher, e.g. "matcher.emoji", frozen and in evaluation mode.

    Raises:
        ValueError: there is none of that name.
    """
    path = root("weights") / "classifiers" / f"{name}.safetensors"
    if not name.startswith("matcher.") or not path.is_file():
        known = sorted(each.stem for each in path.parent.glob("matcher.*.safetensors"))
        raise ValueError(
            f"no matcher {name!r}{nearest(name, known)}; make one: python tools/train_matcher.py --name matcher.NAME"
        )
    tensors, header = checkpoint.load(path)
    network = Matcher(**header["recipe"]["network"])
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    checkpoint.fit(network, tensors, str(path))
    return network.eval().requires_grad_(False)
