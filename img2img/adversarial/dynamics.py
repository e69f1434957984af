"""The game as a vector field: looking ahead of the discriminator's steps, and keeping the field from turning.

Both need gradients of gradients with respect to weights, and run in float32 with autocast off. Networks are called on
stand-ins of their weights and copies of their buffers: batch norm's statistics and power iterations stay as they are.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

Network = Callable[..., Any]


def borrowed(module: nn.Module, weights: dict[str, Tensor]) -> Network:
    """Return the module as a function that runs on other weights, without changing any of its state."""
    state = {name: buffer.clone() for name, buffer in module.named_buffers()} | weights

    def call(*inputs: Any, **controls: Any) -> Any:
        return functional_call(module, state, inputs, controls)

    return call


def unroll(
    discriminator: nn.Module,
    loss: Callable[[Network], Tensor],
    *,
    steps: int,
    rate: float,
    optimizer: Literal["sgd", "adam"] = "sgd",
    betas: tuple[float, float] = (0.5, 0.999),
) -> dict[str, Tensor]:
    """Let the discriminator take steps ahead, and return the weights it arrives at.

    Unrolled GANs, Metz et al. 2016 (https://arxiv.org/abs/1611.02163), equations 7 to 9. The weights are functions of
    whatever ``loss`` used, so that a generator's loss on ``borrowed(discriminator, weights)`` learns how the
    discriminator would answer. Neither the discriminator nor its optimizer changes.

    Args:
        discriminator: starts from its present weights.
        loss: what it minimises, a scalar, of the network as a function; its fakes must not be detached.
        steps: steps ahead; 0 returns the weights as they are.
        rate: learning rate of the steps.
        optimizer: "sgd", or "adam" with a fresh state.
        betas: Adam's.
    """
    weights = {name: p.detach().requires_grad_() for name, p in discriminator.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in weights.items()}
    second = {name: torch.zeros_like(p) for name, p in weights.items()}
    with torch.enable_grad():
        for step in range(1, steps + 1):
            device = next(iter(weights.values())).device.type
            with torch.autocast(device, enabled=False):
                value = loss(borrowed(discriminator, weights))
                found = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
            gradients = {name: g for name, g in zip(weights, found, strict=True) if g is not None}
            moved = dict(weights)
            for name, gradient in gradients.items():
                if optimizer == "adam":
                    first[name] = torch.lerp(gradient, first[name], betas[0])
                    second[name] = torch.lerp(gradient.square(), second[name], betas[1])
                    mean, square = first[name] / (1 - betas[0] ** step), second[name] / (1 - betas[1] ** step)
                    # The tiny number is inside the root: its derivative at 0 is infinite.
                    gradient = mean / ((square + 1e-20).sqrt() + 1e-8)
                moved[name] = weights[name] - rate * gradient
            weights = moved
    return weights


def consensus(
    game: Callable[[Network, Network], tuple[Tensor, Tensor]], discriminator: nn.Module, generator: nn.Module
) -> Tensor:
    """Half the squared length of the game's vector field, a scalar, for both players to minimise beside their losses.

    Mescheder et al. 2017, The numerics of GANs (https://arxiv.org/abs/1705.10461), section 4: L = |v|^2 / 2 with
    v = (gradient of the discriminator's loss by its weights, of the generator's by its own). Gradients of the result
    reach those networks that learn at present, frozen ones take part through stand-ins.

    Args:
        game: (discriminator, generator) as functions -> (the discriminator's loss, the generator's loss), scalars;
            the fakes must not be detached, since each player's gradient depends on the other's weights.
        discriminator: the network of the first player.
        generator: the network of the second.
    """
    players = [
        {n: p if p.requires_grad else p.detach().requires_grad_() for n, p in network.named_parameters()}
        for network in (discriminator, generator)
    ]
    device = next(iter(players[0].values())).device.type
    with torch.enable_grad(), torch.autocast(device, enabled=False):
        losses = game(borrowed(discriminator, players[0]), borrowed(generator, players[1]))
        total = torch.zeros((), device=losses[0].device)
        for loss, weights in zip(losses, players, strict=True):
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
            total = total + sum(gradient.square().sum() for gradient in found if gradient is not None)
    return total / 2
