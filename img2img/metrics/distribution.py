"""Sets of images as sets of feature vectors: what every metric over sets is built on."""

import hashlib
import logging
import weakref
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from img2img.data import fetch
from img2img.networks.features import CLASSIFIERS, PACKAGES, classifier
from img2img.registry import nearest

log = logging.getLogger(__name__)

BATCH = 64
"""Images that the network sees at once."""


class Embedding:
    """A frozen network that turns images into features, and into logits where it is a classifier.

    The last batches are remembered as long as their tensors live unchanged, so that several metrics on one
    network cost one pass. Runs where its input lies, in float32 whatever autocast says; results are on the CPU.

    Args:
        network: A name for `img2img.networks.features.classifier`; "pixels" for the values as they are, which takes
            points (N, D) too; or a module with the contract of `classifier`.

    Raises:
        ValueError: Unknown network; weights that cannot be fetched.
    """

    def __init__(self, network: str | nn.Module):
        self.network = None if network == "pixels" else classifier(network)
        self._recent: list[tuple[weakref.ref, int, tuple[Tensor, Tensor | None]]] = []

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1], or (N, D) for "pixels", to (N, D) float32."""
        return self._run(images)[0]

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the probability of each class, (N, K) float64.

        Raises:
            ValueError: The network is "pixels", which knows no classes.
        """
        logits = self._run(images)[1]
        if logits is None:
            raise ValueError("'pixels' knows no classes; use a network that does, e.g. efficientnet_lite0 or digits")
        return logits.double().softmax(1)

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if not images.is_floating_point() or images.dim() < 2 or (self.network is not None and images.dim() != 4):
            raise ValueError(f"expected float (N, C, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}")
        if self.network is None:
            return images.flatten(1).float().cpu(), None
        version = -1 if images.is_inference() else images._version
        self._recent = [each for each in self._recent if each[0]() is not None][-2:]
        for place, (alive, seen, found) in enumerate(self._recent):
            if alive() is images and seen == version >= 0:
                self._recent.append(self._recent.pop(place))
                return found
        with torch.autocast(images.device.type, enabled=False):
            network = self.network.to(images.device)
            # Many small images, of which a batch may hold thousands, become as many large ones in the network.
            parts = [network(part) for part in images.float().split(BATCH)]
            found = tuple(torch.cat(each).float().cpu() for each in zip(*parts, strict=True))
        self._recent.append((weakref.ref(images), version, found))
        return found


def known_network(network: str | nn.Module, *others: str) -> str | nn.Module:
    """Return ``network`` as it is, so that a misspelt name is found before anything is fetched or trained.

    Raises:
        ValueError: A name that no classifier has, nor is among ``others``.
    """
    names = (*CLASSIFIERS, *others)
    if isinstance(network, str) and network not in names:
        hint = nearest(network, names) or f"; known: {', '.join(names)}"
        raise ValueError(f"no network {network!r} to compare images by{hint}")
    return network


@cache
def embedding(network: str | nn.Module) -> Embedding:
    """Return the one `Embedding` of a network, which all metrics share."""
    return Embedding(network)


def file_features(files: Sequence[str | Path], network: str = "efficientnet_lite0", channels: int = 3) -> Tensor:
    """Return the features (N, D) of image files, from the cache when the same contents were seen before.

    Args:
        files: Image files, in the order wanted; each is seen whole, brought to the network's size.
        network: A name for `Embedding`.
        channels: 3 or 1; alpha lies on white.

    Raises:
        ValueError: No files; one that is no readable image; or for "pixels", files of different sizes.
    """
    from img2img.checkpoint import atomic
    from img2img.data.photos import rgb

    if not files:
        raise ValueError("no image files to compare with; name at least one")
    package = PACKAGES.get(network.removeprefix("stacked_"))
    key = hashlib.sha256(f"{network} {package and package.content} {channels}".encode())
    for path in files:
        key.update(hashlib.sha256(Path(path).read_bytes()).digest())
    target = fetch.cache() / "features" / f"{key.hexdigest()[:32]}.npy"
    if target.is_file():
        try:
            return torch.from_numpy(np.load(target))
        except (ValueError, EOFError) as error:
            log.warning("%s: damaged (%s); made again", target, error)
    net, found, batch = embedding(network), [], []
    for place, path in enumerate(files):
        batch.append(torch.from_numpy(rgb(Path(path), channels).transpose(2, 0, 1) / np.float32(255)))
        following = place + 1 < len(files) and len(batch) < BATCH
        if not following or batch[0].shape != batch[-1].shape:
            sizes = {tuple(each.shape) for each in batch}
            found += [net.features(torch.stack(batch))] if len(sizes) == 1 else _singly(net, batch)
            batch = []
    if len({each.shape[1] for each in found}) > 1:
        raise ValueError(f"{network}: the images differ in size; bring them to one size first")
    features = torch.cat(found)
    with atomic(target) as temporary:
        np.save(temporary, features.numpy())
    return features


def _singly(net: Embedding, batch: list[Tensor]) -> list[Tensor]:
    return [net.features(image[None]) for image in batch]


class SetMetric:
    """A metric over two sets of images: outputs, and the real ones.

    ``update`` with each batch, then ``compute``. Only features are kept, float32 on the CPU: 4 D bytes an image.
    The real set is fixed: it grows until the first ``reset`` or is given to ``know``, and later references are
    ignored, so that its statistics are computed once.

    Args:
        network: A name for `Embedding`, or a module.
    """

    against: Literal["real", "input", "target"] = "real"

    def __init__(self, network: str | nn.Module = "efficientnet_lite0"):
        self.network = known_network(network, "pixels")
        self._outputs: list[Tensor] = []
        self._real: list[Tensor] = []
        self._fixed = False

    @property
    def embedding(self) -> Embedding:
        """The network, built at first use."""
        return embedding(self.network)

    def update(self, output: Tensor, reference: Tensor | None = None) -> None:
        """Add outputs and, while the real set is not fixed, real images.

        Args:
            output: (N, C, H, W) in [0, 1]; (N, D) for "pixels".
            reference: (M, C, H, W) in [0, 1]; None where the real set is known.
        """
        self._outputs.append(self._features(output))
        if not self._fixed and reference is not None:
            self._real.append(self._features(reference))
            self._forget_statistics()

    def know(self, real: Tensor | Sequence[str | Path]) -> None:
        """Fix the real set: its images (N, C, H, W) in [0, 1], or its image files, whose features are cached."""
        if isinstance(real, Tensor):
            self._real = [self._features(part) for part in real.split(BATCH)]
        else:
            self._real = [file_features(real, self.network)]
        self._forget_statistics()
        self._fixed = True

    def reset(self) -> None:
        """Forget the outputs; what is known of the real set stays, and is from now on all of it."""
        self._outputs = []
        self._fixed = bool(self._real)

    def compute(self) -> float:
        """Return the metric of all that was added.

        Raises:
            ValueError: Too few images.
        """
        raise NotImplementedError  # abstract: every metric has its own

    @property
    def outputs(self) -> Tensor:
        """Features of the outputs so far, (N, D)."""
        return self._joined(self._outputs, "output")

    @cached_property
    def real(self) -> Tensor:
        """Features of the real images so far, (M, D)."""
        self._real = [self._joined(self._real, "real image")]
        return self._real[0]

    def _features(self, images: Tensor) -> Tensor:
        return self.embedding.features(images)

    def _forget_statistics(self) -> None:
        for name in [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]:
            delattr(self, name)

    @staticmethod
    def _joined(parts: list[Tensor], what: str) -> Tensor:
        if not parts:
            raise ValueError(f"no {what} was added; call update first")
        return torch.cat(parts)


class ClassMetric(SetMetric):
    """A metric of the classes that a network sees in outputs; real images are not looked at.

    Args:
        network: A name for `img2img.networks.features.classifier`, or a module.
    """

    def __init__(self, network: str | nn.Module):
        super().__init__(known_network(network))

    def update(self, output: Tensor, reference: Tensor | None = None) -> None:
        """Add outputs (N, C, H, W) in [0, 1]."""
        self._outputs.append(self.embedding.probabilities(output).float())

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the outputs so far, (N, K)."""
        return self.outputs


def in_blocks(function: Callable[[Tensor], Tensor], rows: Tensor, columns: int, numbers: int = 1 << 24) -> Tensor:
    """Return ``function`` of ``rows``, a few at a time, so that (rows, columns) tables stay under ``numbers``."""
    return torch.cat([function(block) for block in rows.split(max(1, numbers // max(1, columns)))])


def enough(features: Tensor, least: int, what: str) -> None:
    """Refuse fewer than ``least`` vectors.

    Raises:
        ValueError: There are fewer.
    """
    if len(features) < least:
        raise ValueError(f"{what} takes at least {least} images, not {len(features)}; judge more of them")
