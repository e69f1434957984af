"""How far an enlargement, reduced again, is from what it was made of."""

from torch import Tensor

from img2img.metrics.mean import MeanMetric
from img2img.networks.projection import Projection


class Consistency(MeanMetric):
    """Mean absolute difference of enlargements reduced by Pillow's bicubic to their inputs, in [0, 1]: 0 is none.

    It needs no truth. Of inputs that were reduced in another way it says nothing.
    """

    against = "input"

    def values(self, output: Tensor, reference: Tensor) -> Tensor:
        """Return the differences (N,) of outputs (N, C, H * scale, W * scale) and inputs (N, C, H, W) in [0, 1].

        Raises:
            ValueError: outputs that are no enlargement by a whole number.
        """
        scale = output.shape[-1] // reference.shape[-1]
        if not scale or output.shape[-2:] != tuple(side * scale for side in reference.shape[-2:]):
            raise ValueError(f"metric consistency: {tuple(output.shape)} is no enlargement of {tuple(reference.shape)}")
        reduced = Projection(scale).to(output.device).reduce(output.float())
        return (reduced - reference).abs().mean((1, 2, 3))
