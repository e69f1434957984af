"""Fully connected networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from img2img.adversarial.latent import Mixture
from img2img.adversarial.stabilize import spectral_norm
from img2img.networks.conditional import Head, one_hot
from img2img.networks.minibatch import MinibatchDiscrimination

Activation = Literal["relu", "leaky_relu", "softplus"]


def _activation(name: Activation) -> nn.Module:
    return {"relu": nn.ReLU(True), "leaky_relu": nn.LeakyReLU(0.2, True), "softplus": nn.Softplus()}[name]


class Noise(nn.Module):
    """Add Gaussian noise of a standard deviation while training, as Salimans et al. 2016 do between layers."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class MLP(nn.Module):
    """A plain multilayer perceptron: (N, inputs) -> (N, outputs); more dimensions are flattened first.

    Args:
        inputs: values in.
        outputs: values out; a discriminator has 1.
        width: hidden units. depth: hidden layers.
        activation: "relu", "leaky_relu" (slope 0.2) or "softplus".
        norm: "none", or "batch" before each activation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        width: int = 128,
        depth: int = 2,
        activation: Activation = "relu",
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__()
        self.latent = inputs
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm == "batch" else [])]
            layers.append(_activation(activation))
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MLPGenerator(nn.Module):
    """Latent (N, latent) to images (N, channels, size, size) in [-1, 1]; points of a plane are 2 channels of size 1.

    Args:
        latent: numbers that stand for an image.
        width: hidden units. depth: hidden layers.
        size: side of the images.
        channels: image channels.
        activation: "relu", "leaky_relu" (slope 0.2) or "softplus".
        norm: "none", or "batch" before each activation.
        bounded: whether tanh ends it; points of a toy may need the whole plane.
        classes: classes that are appended to the latent; 0 for none.
        mixture: Gaussians of DeLiGAN's latent; 0 for the plain normal. It takes one number more a sample.
        sigma: their first standard deviation.
    """

    def __init__(
        self,
        latent: int = 100,
        width: int = 128,
        depth: int = 2,
        size: int = 28,
        channels: int = 1,
        activation: Activation = "relu",
        norm: Literal["none", "batch"] = "none",
        bounded: bool = True,
        classes: int = 0,
        mixture: int = 0,
        sigma: float = 0.2,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.prior = Mixture(latent, mixture, sigma) if mixture else None
        self.latent = latent + 1 if mixture else latent
        self.network = MLP(latent + classes, channels * size * size, width, depth, activation, norm)
        self.shape = (channels, size, size)
        self.bounded = bounded

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = self.prior(z) if self.prior is not None else z
        if self.classes:
            z = torch.cat([z, one_hot(labels, self.classes)], 1)
        images = self.network(z).unflatten(1, self.shape)
        return torch.tanh(images) if self.bounded else images


class Maxout(nn.Module):
    """The largest of several linear layers: (N, inputs) -> (N, outputs), https://arxiv.org/abs/1302.4389."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(inputs, outputs * pieces), (outputs, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, self.shape).amax(2)


class MLPDiscriminator(nn.Module):
    """Images (N, channels, size, size), or points (N, channels) where size is 1, to logits (N, outputs).

    Args:
        width: hidden units. depth: hidden layers, 1 or more.
        size: side of the images.
        channels: image channels.
        activation: "relu", "leaky_relu" (slope 0.2) or "softplus", where there are no pieces.
        pieces: linear pieces of maxout units, as in the paper (5); 0 for the activation instead.
        dropout: share of hidden values dropped, as in the paper (0.5).
        noise: standard deviation of the noise added to hidden values while training; 0 for none.
        norm: "none", "spectral", or "weight" (Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868).
        minibatch: numbers of minibatch discrimination; 0 for none.
        classes: classes; 0 for none.
        condition: how labels come in: a "projection" of the features, or "concatenate" to the pixels.
        outputs: logits a sample.

    Raises:
        ValueError: no hidden layer, or an impossible share of dropout.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        size: int = 28,
        channels: int = 1,
        activation: Activation = "leaky_relu",
        pieces: int = 0,
        dropout: float = 0.0,
        noise: float = 0.0,
        norm: Literal["none", "spectral", "weight"] = "none",
        minibatch: int = 0,
        classes: int = 0,
        condition: Literal["projection", "concatenate"] = "projection",
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth = {depth} must be 1 or more")
        self.classes, self.concatenate = classes, condition == "concatenate"
        inputs = channels * size * size + (classes if self.concatenate else 0)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [Maxout(inputs, width, pieces)] if pieces else [nn.Linear(inputs, width), _activation(activation)]
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [Noise(noise)] if noise else []
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.minibatch = MinibatchDiscrimination(width, minibatch) if minibatch else nn.Identity()
        self.head = Head(width + minibatch, outputs, 0 if self.concatenate else classes)
        if norm == "spectral":
            spectral_norm(self)
        elif norm == "weight":
            for layer in [each for each in self.modules() if isinstance(each, nn.Linear)]:
                parametrizations.weight_norm(layer)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the last hidden layer's values (N, width)."""
        x = x.flatten(1)
        if self.classes and self.concatenate:
            x = torch.cat([x, one_hot(labels, self.classes)], 1)
        return self.layers(x)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.minibatch(self.features(x, labels)), labels)
