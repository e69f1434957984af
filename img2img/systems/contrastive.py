"""Unpaired translation one way: each place of the output stays recognisable among the places of the input."""

from pathlib import Path
from typing import Any

from torch import Tensor

from img2img.data.stream import Source
from img2img.registry import part
from img2img.systems.system import System, Trial
from img2img.systems.unpaired import unpaired_images


class Contrastive(System):
    """CUT: one translator from ``a`` to ``b``, both (N, C, H, W) in [-1, 1] (Park et al. 2020, arXiv:2007.15651).

    The generator's own encoder describes patches; ``projector`` maps its features to vectors. A page's fidelity terms
    compare features of the ``output`` with those of its input, and with ``identity`` those of b translated with b's.
    """

    learners = {"generator": ("generator", "projector")}
    comparisons = ("output", "identity")
