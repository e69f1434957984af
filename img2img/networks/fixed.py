"""What a shipped classifier sees in images, as a network that nothing changes."""

import torch.nn.functional as F
from torch import Tensor, nn

from img2img.networks.classifier import trained


class FixedClassifier(nn.Module):
    """Images (N, 1 or 3, H, W) in [-1, 1] to a trained classifier's features (N, length); gradients reach the images.

    Args:
        name: of a shipped classifier, e.g. "digits_m"; see `img2img.networks.classifier.trained`.

    Attributes:
        length: of the features.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.reader = trained(name)
        self.length = self.reader.network.head.in_features

    def train(self, mode: bool = True) -> "FixedClassifier":
        """Stay in evaluation mode: its batch norms' statistics are part of what is fixed."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        x, side = x / 2 + 0.5, self.reader.size
        if x.shape[-2:] != (side, side):  # in float32: bfloat16 cannot be resized with antialiasing
            x = F.interpolate(x.float(), (side, side), mode="bilinear", antialias=True).to(x.dtype)
        return self.reader(x)[0]
