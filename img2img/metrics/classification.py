"""What a classifier reads in outputs, and what one learns from them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.metrics.distribution import embedding, known_network
from img2img.metrics.mean import MeanMetric


def accuracy(images: Tensor, labels: Tensor, network: str | nn.Module = "digits") -> float:
    """Return the share of images in which a network reads the label.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,), whole numbers; for stacked_digits 100 r + 10 g + b.
        network: digits, stacked_digits, efficientnet_lite0 or inception.

    Raises:
        ValueError: Other numbers of labels than images, or none; a network that knows no classes.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels must be as many, and at least one")
    net = embedding(network)
    read = torch.cat([net.probabilities(part).argmax(1) for part in images.split(64)])
    return float((read == labels.cpu()).double().mean())


def linear_svm(features: Tensor, labels: Tensor, *, regularisation: float = 1.0) -> nn.Linear:
    """Fit one-against-all linear support vector machines: |w|^2 / 2 + C sum max(0, 1 - y (w x + b))^2, b penalised too.

    What Radford et al. 2015 (https://arxiv.org/abs/1511.06434, section 5.1) put on a discriminator's features.

    Args:
        features: (N, D).
        labels: (N,), whole numbers from 0.
        regularisation: C, the weight of the errors.

    Returns:
        A float64 layer (N, D) to scores (N, classes).
    """
    features, labels = features.detach().double().cpu(), labels.cpu()
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    signs = 2.0 * F.one_hot(labels.long(), layer.out_features) - 1
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        hinge = (1 - signs * layer(features)).relu().square().sum()
        loss = (layer.weight.square().sum() + layer.bias.square().sum()) / 2 + regularisation * hinge
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return layer.requires_grad_(False)


def classifier_accuracy_score(
    features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, *, regularisation: float = 1.0
) -> float:
    """Return how well a classifier that learnt from labelled outputs alone reads real images, 0 to 1.

    The question of Ravuri & Vinyals 2019, https://arxiv.org/abs/1905.10887, section 3, asked of a linear classifier
    on features (or pixels) instead of a deep one on images, so that it costs seconds; figures differ from theirs.

    Args:
        features: Of outputs, (N, D), brought to like scales where they are not.
        labels: That they were asked for, (N,).
        real: Of real images, (M, D).
        real_labels: Theirs, (M,).
        regularisation: See `linear_svm`.
    """
    read = linear_svm(features, labels, regularisation=regularisation)(real.detach().double().cpu()).argmax(1)
    return float((read == real_labels.cpu()).double().mean())


class LabelKept(MeanMetric):
    """Share of outputs in which a network reads the same class as in their inputs; higher is better.

    For translation that must keep what an image shows, as of digits into another style.

    Args:
        network: digits, stacked_digits, efficientnet_lite0 or inception.
    """

    against = "input"

    def __init__(self, *, network: str | nn.Module = "digits"):
        super().__init__()
        self.network = known_network(network)

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return where outputs and their inputs, (N, C, H, W) in [0, 1], are read alike, (N,)."""
        read = [embedding(self.network).probabilities(images).argmax(1) for images in (output, reference)]
        return read[0] == read[1]
