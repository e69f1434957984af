"""Kernel distance between sets of images: the maximum mean discrepancy of their features."""

from functools import cached_property

from torch import Tensor

from img2img.metrics.distribution import SetMetric, enough, in_blocks


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """Return the kernel (x . y / D + 1)^3 of all pairs, (N, D) and (M, D) to (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mean_within(x: Tensor) -> Tensor:
    """Return the mean kernel of all pairs of different vectors of (N, D)."""
    total = in_blocks(lambda rows: polynomial(rows, x).sum(1), x, len(x)).sum()
    own = (x.square().sum(1) / x.shape[1] + 1) ** 3
    return (total - own.sum()) / (len(x) * (len(x) - 1))


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy of (N, D) and (M, D), which may be under 0.

    Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, equation 4 with the kernel of section 4. Over all pairs:
    the paper's mean over random subsets estimates the same with more variance. In blocks, so that memory stays small.

    Raises:
        ValueError: Fewer than two vectors in one of them.
    """
    x, y = x.double(), y.double()
    enough(x, 2, "the kernel distance")
    enough(y, 2, "the kernel distance")
    return float(mean_within(x) + mean_within(y) - 2 * _mean_between(x, y))


def _mean_between(x: Tensor, y: Tensor) -> Tensor:
    return in_blocks(lambda rows: polynomial(rows, y).mean(1), x, len(y)).mean()


class KernelDistance(SetMetric):
    """KID's formula on the network that is at hand, which the name says: `kid[efficientnet_lite0]`; lower is better.

    Unbiased, so that small sets do not look worse than large ones; see `kernel_distance`. Only `kid[inception]` is
    the paper's, and tables often give it times 1,000.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
    """

    def compute(self) -> float:
        """Return the squared discrepancy.

        Raises:
            ValueError: Fewer than two outputs or real images.
        """
        outputs = self.outputs.double()
        enough(outputs, 2, "the kernel distance")
        between = _mean_between(outputs, self.real.double())
        return float(self._real_within + mean_within(outputs) - 2 * between)

    @cached_property
    def _real_within(self) -> Tensor:
        enough(self.real, 2, "the kernel distance")
        return mean_within(self.real.double())
