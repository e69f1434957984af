"""How results are judged: image by image against a target, or a set of outputs against a set of real images."""

from img2img.metrics.frechet import frechet_distance
from img2img.metrics.inception_score import inception_score
from img2img.metrics.kernel import kernel_distance
from img2img.metrics.manifold import density_coverage, precision_recall
from img2img.metrics.perceptual import perceptual_distance
from img2img.metrics.psnr import psnr
from img2img.metrics.ssim import ssim

__all__ = [
    "density_coverage",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "perceptual_distance",
    "precision_recall",
    "psnr",
    "ssim",
]

HIGHER_IS_BETTER = frozenset({"coverage", "density", "inception_score", "precision", "psnr", "recall", "ssim"})
"""Metrics of which more is better; of all others less is."""
