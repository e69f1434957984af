"""A small encoder of captions, which needs nothing but the numbers of their pieces."""

import torch.nn.functional as F
from torch import Tensor, nn

from img2img.data.captioned import BUCKETS


class TextEncoder(nn.Module):
    """Pieces (N, L), whole numbers with 0 for none, to unit vectors (N, embedding).

    The mean of the pieces' vectors (Joulin et al. 2016, https://arxiv.org/abs/1607.01759) through one hidden layer.

    Args:
        embedding: length of the result.
        width: length of a piece's vector, and hidden units.
    """

    def __init__(self, embedding: int = 128, width: int = 128) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(BUCKETS, width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(True), nn.Linear(width, embedding))

    def forward(self, pieces: Tensor) -> Tensor:
        return F.normalize(self.layers(self.pieces(pieces)).float(), dim=1)
