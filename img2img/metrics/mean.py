"""What metrics share that are a mean of one value an image, whatever those are compared with."""

from torch import Tensor


class MeanMetric:
    """A metric over sets that is the mean of `values`."""

    def __init__(self) -> None:
        self.reset()

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return one value an image, (N,), for outputs (N, C, H, W) in [0, 1] and what they are compared with."""
        raise NotImplementedError  # abstract: every metric has its own

    def update(self, output: Tensor, reference: Tensor) -> None:
        """Add a batch of outputs and what they are compared with."""
        found = self.values(output, reference)
        self.total += float(found.double().sum())
        self.count += len(found)

    def compute(self) -> float:
        """Return the mean.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.count:
            raise ValueError("no output was added; call update first")
        return self.total / self.count

    def reset(self) -> None:
        """Forget all."""
        self.total, self.count = 0.0, 0
