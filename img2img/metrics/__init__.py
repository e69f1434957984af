"""How results are judged: image by image against a target, or a set of outputs against a set of real images."""

from img2img.metrics.classification import accuracy, classifier_accuracy_score, linear_svm
from img2img.metrics.frechet import frechet_distance
from img2img.metrics.inception_score import inception_score
from img2img.metrics.kernel import kernel_distance
from img2img.metrics.manifold import density_coverage, precision_recall
from img2img.metrics.modes import class_modes, mixture_modes
from img2img.metrics.neighbours import nearest_images
from img2img.metrics.neural_distance import neural_distance
from img2img.metrics.parzen import log_likelihood
from img2img.metrics.perceptual import perceptual_distance
from img2img.metrics.psnr import psnr
from img2img.metrics.ssim import ssim
from img2img.metrics.structure import structure_distance

__all__ = [
    "accuracy",
    "class_modes",
    "classifier_accuracy_score",
    "density_coverage",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "linear_svm",
    "log_likelihood",
    "mixture_modes",
    "nearest_images",
    "neural_distance",
    "perceptual_distance",
    "precision_recall",
    "psnr",
    "ssim",
    "structure_distance",
]

HIGHER_IS_BETTER = frozenset(
    {
        "accuracy",
        "assigned_accuracy",
        "box_iou",
        "caption_accuracy",
        "confident",
        "coverage",
        "density",
        "inception_score",
        "label_kept",
        "modes",
        "parzen",
        "precision",
        "psnr",
        "recall",
        "ssim",
        "target_accuracy",
    }
)
"""Metrics of which more is better; of all others less is, but for the ``DESCRIPTIVE``."""

DESCRIPTIVE = frozenset({"neighbour_distance"})
"""Metrics that describe and have no better side."""
