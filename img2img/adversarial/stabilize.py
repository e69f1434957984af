"""Stabilisers that act on a network's weights: clipping, spectral normalisation, moving averages."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clamp every parameter to [-limit, limit], in place: Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875).

    To be called after each of the critic's optimizer steps; the paper's limit is 0.01.

    Raises:
        ValueError: The limit is not positive.
    """
    if limit <= 0:
        raise ValueError(f"clip_weights: limit = {limit} must be positive")
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


def spectral_norm(module: nn.Module) -> nn.Module:
    """Divide the weight of every linear and convolutional layer by its largest singular value.

    Paper: Miyato et al. 2018 (https://arxiv.org/abs/1802.05957). Each forward pass in training mode takes one
    power iteration; its vectors are buffers, so that a checkpoint resumes it exactly. As in the paper, a
    convolution's weight counts as a matrix of (out, everything else). A layer that has it already is left alone.

    Returns:
        The module itself, changed in place.
    """
    for layer in list(module.modules()):
        if isinstance(layer, LAYERS) and not parametrize.is_parametrized(layer, "weight"):
            parametrizations.spectral_norm(layer)
    return module


class EMA(nn.Module):
    """Exponential moving average of a network's weights (https://arxiv.org/abs/1806.04498).

    Parameters are averaged, buffers copied. The decay grows as (1 + t) / (10 + t) with the number t of
    updates until it reaches its value, so that the first, random weights are soon forgotten. Everything
    that moves is in the state: averaging goes on bit for bit after `load_state_dict`.

    Args:
        module: The network; it is copied, and the copy neither learns nor changes to training mode by itself.
        decay: Share of the old average that an update keeps, in [0, 1).
        warmup: Whether the decay grows at first.

    Raises:
        ValueError: The decay is outside its range.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, *, warmup: bool = True):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay = {decay} must lie in [0, 1)")
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay, self.warmup = decay, warmup
        self.register_buffer("updates", torch.zeros((), dtype=torch.long, device="cpu"))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the network's present weights; to be called after each optimizer step."""
        t = self.updates.item()
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        mine, theirs = list(self.module.parameters()), list(module.parameters())
        if mine:
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        for own, other in zip(self.module.buffers(), module.buffers(), strict=True):
            own.copy_(other)
        self.updates += 1

    def forward(self, *args: Tensor, **controls) -> Tensor:
        """Run the averaged network."""
        return self.module(*args, **controls)
