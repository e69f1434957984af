"""A small image classifier: what adaptation trains, what conditional systems are judged by."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from img2img import checkpoint
from img2img.networks.norms import normalisation
from img2img.recipe import root
from img2img.registry import nearest


class Classifier(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to logits (N, classes): three convolutions one hidden layer.

    Args:
        classes: logits.
        channels: of the images.
        width: channels of the first convolution; the others have twice as many.
        hidden: features before the logits.
        norm: "batch"; "instance" where images of several domains meet, whose statistics differ; or "none".
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 3,
        width: int = 24,
        hidden: int = 64,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, pool in ((channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 0)):
            layers += [nn.Conv2d(before, after, 3, 1, 1, bias=norm == "none")]
            layers += [*normalisation(norm, after), nn.ReLU(True)]
            layers += [nn.MaxPool2d(pool)] if pool else []
        layers += [nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18 * width, hidden), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the values before the logits (N, hidden)."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class Reader(nn.Module):
    """A trained classifier with the contract of `img2img.networks.features.classifier`.

    Images (N, 1 or 3, H, W) in [0, 1] to features (N, hidden) and logits (N, classes); they are brought to the
    classifier's own channels and side.

    Args:
        network: the classifier.
        channels: 1 or 3, of its images.
        size: their side in pixels.
    """

    def __init__(self, network: Classifier, channels: int, size: int) -> None:
        super().__init__()
        self.network, self.channels, self.size = network, channels, size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        found = self.network.features(images * 2 - 1)
        return found, self.network.head(found)


def shelved() -> list[str]:
    """Return the names of the shipped classifiers."""
    found = (path.stem for path in (root("weights") / "classifiers").glob("*.safetensors"))
    return sorted(name for name in found if not name.startswith("matcher."))


def trained(name: str) -> Reader:
    """Return a shipped classifier by the name of its data set, frozen and in evaluation mode.

    Raises:
        ValueError: there is none of that name.
    """
    path = root("weights") / "classifiers" / f"{name}.safetensors"
    if name not in (known := shelved()):
        raise ValueError(
            f"no classifier of {name!r}{nearest(name, known)}; make one: python tools/train_classifier.py --name {name}"
        )
    tensors, header = checkpoint.load(path)
    options, size = header["recipe"]["network"], header["recipe"]["size"]
    network = Classifier(**options)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    checkpoint.fit(network, tensors, str(path))
    return Reader(network, options["channels"], size).eval().requires_grad_(False)
