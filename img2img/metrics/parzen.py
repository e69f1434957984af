"""Log-likelihood by a Parzen window: what early papers report, kept to compare with them.

It misleads (Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3): in many dimensions the estimate has
little to do with the true likelihood, and samples at cluster centres get more than real images. Choose no model by it.
"""

import math

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import SetMetric, in_blocks

BANDWIDTHS = tuple(10 ** (place / 8 - 2) for place in range(25))
"""Standard deviations that are tried, 0.01 to 10."""


def log_likelihood(points: Tensor, samples: Tensor, sigma: float) -> Tensor:
    """Return log p(x) in nats of points (N, D) under Gaussians about samples (M, D), as (N,) float64.

    Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, section 5, after Breuleux et al. 2011.

    Raises:
        ValueError: A bandwidth that is not over 0, or no samples.
    """
    if not sigma > 0 or not len(samples):
        raise ValueError(f"a Parzen window takes samples and a sigma over 0, not {len(samples)} and {sigma}")
    points, samples = points.double(), samples.double()
    constant = math.log(len(samples)) + samples.shape[1] * (math.log(sigma) + math.log(2 * math.pi) / 2)

    def block(rows: Tensor) -> Tensor:
        return (torch.cdist(rows, samples).square() / (-2 * sigma**2)).logsumexp(1) - constant

    return in_blocks(block, points, len(samples))


def best_bandwidth(points: Tensor, samples: Tensor, bandwidths: tuple[float, ...] = BANDWIDTHS) -> float:
    """Return the bandwidth under which held-out points (N, D) are likeliest, given samples (M, D)."""
    return max(bandwidths, key=lambda sigma: float(log_likelihood(points, samples, sigma).mean()))


class Parzen(SetMetric):
    """Mean log-likelihood in nats of real images under a Parzen window of outputs; higher is better, and misleading.

    Args:
        network: What it is taken of: "pixels" as in the papers, or another; see `Embedding`.
        sigma: Standard deviation of the window; 0 chooses it by every second real image, and judges by the others.
    """

    def __init__(self, *, network: str | nn.Module = "pixels", sigma: float = 0.0):
        super().__init__(network)
        if sigma < 0:
            raise ValueError(f"sigma = {sigma} must be over 0, or 0 to have it chosen")
        self.sigma = sigma

    def compute(self) -> float:
        """Return the mean.

        Raises:
            ValueError: No outputs, or fewer than two real images where sigma is to be chosen.
        """
        real, sigma = self.real, self.sigma
        if not sigma:
            if len(real) < 2:
                raise ValueError("parzen: choosing sigma takes two real images at least; set sigma, or judge more")
            held_out, real = real[::2], real[1::2]
            sigma = best_bandwidth(held_out, self.outputs)
        return float(log_likelihood(real, self.outputs, sigma).mean())
