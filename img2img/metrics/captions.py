"""Whether outputs show what was said, as a network reads them that learnt from real images and captions alone."""

from math import comb
from typing import Literal

import torch
from torch import Tensor

from img2img.networks.matcher import Matcher, matcher

OTHERS = 9
"""Wrong captions among which the right one is to be found."""


class CaptionAccuracy:
    """How often an output's caption is the nearest of ten: it and nine others of those asked for; higher is better.

    The others are any nine: what is returned is the mean over all choices of them, in closed form. Chance is 0.1.

    Args:
        network: a shipped matcher, e.g. matcher.emoji, or one as it is.
    """

    against: Literal["text"] = "text"

    def __init__(self, *, network: str | Matcher = "matcher.emoji") -> None:
        self.network = network if isinstance(network, Matcher) else matcher(network)
        self.reset()

    @torch.no_grad()
    def update(self, output: Tensor, reference: Tensor) -> None:
        """Add outputs (N, C, H, W) in [0, 1] and their captions' pieces (N, L)."""
        self.images.append(self.network.images(output.float().cpu()))
        self.captions.append(reference.cpu())

    @torch.no_grad()
    def compute(self) -> float:
        """Return the share, 0 to 1; a wrong caption as near as the right one counts as nearer.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.captions:
            raise ValueError("no output was added; call update first")
        captions, own = torch.cat(self.captions).unique(dim=0, return_inverse=True)
        wrong = len(captions) - 1
        likeness = torch.cat(self.images) @ self.network.captions(captions).T
        nearer = (likeness >= likeness.gather(1, own[:, None])).sum(1) - 1
        others = min(OTHERS, wrong)
        return sum(comb(wrong - n, others) for n in nearer.tolist()) / comb(wrong, others) / len(nearer)

    def reset(self) -> None:
        """Forget all."""
        self.images: list[Tensor] = []
        self.captions: list[Tensor] = []
