"""Penalties on a network's weights: module -> a scalar, in float32 with autocast off."""

import torch
from torch import Tensor, nn

from img2img.adversarial.latent import Mixture
from img2img.adversarial.stabilize import LAYERS, TRANSPOSED


def _raw(layer: nn.Module) -> Tensor:
    """Return the weight that learns, beneath a parametrization: reading it through would take a power iteration."""
    wrapped = getattr(layer, "parametrizations", {})
    beneath = "weight" in wrapped and hasattr(wrapped["weight"], "original")  # weight norm has two
    return wrapped["weight"].original if beneath else layer.weight


def orthogonal(module: nn.Module, *, diagonal: bool = False) -> Tensor:
    """Sum over layers of |W W^T * (1 - I)|^2: rows at right angles, of free length.

    Paper: Brock et al. 2018 (https://arxiv.org/abs/1809.11096), equation 3, weight 1e-4. With ``diagonal``,
    |W W^T - I|^2, equation 2 (Brock et al. 2016). A convolution's weight counts as (out, everything else).
    """
    total = torch.zeros((), device=next(module.parameters()).device)
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            weight = _raw(layer)
            weight = (weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight).flatten(1)
            with torch.autocast(weight.device.type, enabled=False):
                square = weight.float() @ weight.float().T
                identity = torch.eye(len(square), device=square.device)
                total = total + (square - identity if diagonal else square * (1 - identity)).square().sum()
    return total


def mixture_spread(module: nn.Module) -> Tensor:
    """Mean of (1 - sigma)^2 over the Gaussians of DeLiGAN's latents, so that none shrinks to a point.

    Paper: Gurumurthy et al. 2017 (https://arxiv.org/abs/1706.02071), equation 7.

    Raises:
        ValueError: the network has no mixture of Gaussians.
    """
    found = [part for part in module.modules() if isinstance(part, Mixture)]
    if not found:
        raise ValueError("mixture_spread: the network has no mixture of Gaussians; set its option 'mixture'")
    return torch.stack([(1 - part.sigma.float()).square().mean() for part in found]).sum()


class HistoricalAverage(nn.Module):
    """|theta - mean of all past theta|^2, Salimans et al. 2016 (https://arxiv.org/abs/1606.03498), section 3.3.

    In training mode each call takes the present weights into the mean, before it compares. The mean and the number
    of calls are buffers.

    Args:
        module: the network whose weights are watched; it is not kept.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sum(p.numel() for p in module.parameters())))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, module: nn.Module) -> Tensor:
        """Return the penalty, a scalar."""
        weights = torch.cat([p.float().flatten() for p in module.parameters()])
        if self.training:
            with torch.no_grad():
                self.calls += 1
                self.mean.lerp_(weights.detach(), 1 / self.calls.item())
        return (weights - self.mean.clone()).square().sum()
