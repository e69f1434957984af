"""Distances between an output and its target: (output, target) -> one value per sample, shape (N,)."""

from img2img.fidelity.perceptual import Perceptual
from img2img.fidelity.pixel import charbonnier, l1, mse
from img2img.fidelity.structural import ssim
from img2img.fidelity.total_variation import total_variation

__all__ = ["Perceptual", "charbonnier", "l1", "mse", "ssim", "total_variation"]
