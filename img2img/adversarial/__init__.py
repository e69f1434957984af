"""What makes two players learn: losses, penalties and stabilisers."""

from img2img.adversarial.losses import (
    Adversarial,
    hinge,
    least_squares,
    logistic,
    maximum_likelihood,
    minimax,
    relativistic,
    relativistic_average,
    wasserstein,
)
from img2img.adversarial.penalties import gradient_penalty, r1, r2
from img2img.adversarial.stabilize import EMA, clip_weights, spectral_norm

__all__ = [
    "EMA",
    "Adversarial",
    "clip_weights",
    "gradient_penalty",
    "hinge",
    "least_squares",
    "logistic",
    "maximum_likelihood",
    "minimax",
    "r1",
    "r2",
    "relativistic",
    "relativistic_average",
    "spectral_norm",
    "wasserstein",
]
