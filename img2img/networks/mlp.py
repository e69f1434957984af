"""Fully connected networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661)."""

from typing import Literal

from torch import Tensor, nn


class MLP(nn.Module):
    """A plain multilayer perceptron: (N, inputs) -> (N, outputs); more dimensions are flattened first.

    Args:
        inputs: values in.
        outputs: values out; a discriminator has 1.
        width: hidden units. depth: hidden layers.
        activation: "relu" or "leaky_relu" (slope 0.2).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        width: int = 128,
        depth: int = 2,
        activation: Literal["relu", "leaky_relu"] = "relu",
    ) -> None:
        super().__init__()
        self.latent = inputs
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), nn.ReLU(True) if activation == "relu" else nn.LeakyReLU(0.2, True)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
