"""What makes two players learn: losses, penalties and stabilisers."""

from img2img.adversarial.augment import ADA, DiffAugment, InstanceNoise
from img2img.adversarial.dynamics import borrowed, consensus, unroll
from img2img.adversarial.latent import Mixture, truncate
from img2img.adversarial.losses import (
    BEGAN,
    EBGAN,
    FGAN,
    Adversarial,
    DensityRatio,
    Logistic,
    hinge,
    least_squares,
    logistic,
    maximum_likelihood,
    minimax,
    relativistic,
    relativistic_average,
    wasserstein,
)
from img2img.adversarial.matching import feature_matching, pulling_away
from img2img.adversarial.penalties import gradient_penalty, r1, r2
from img2img.adversarial.pool import Pool
from img2img.adversarial.stabilize import EMA, clip_weights, spectral_norm
from img2img.adversarial.weights import HistoricalAverage, mixture_spread, orthogonal

__all__ = [
    "ADA",
    "BEGAN",
    "EBGAN",
    "EMA",
    "FGAN",
    "Adversarial",
    "DiffAugment",
    "HistoricalAverage",
    "InstanceNoise",
    "Logistic",
    "Mixture",
    "Pool",
    "borrowed",
    "clip_weights",
    "consensus",
    "DensityRatio",
    "feature_matching",
    "gradient_penalty",
    "hinge",
    "least_squares",
    "logistic",
    "maximum_likelihood",
    "minimax",
    "mixture_spread",
    "orthogonal",
    "pulling_away",
    "r1",
    "r2",
    "relativistic",
    "relativistic_average",
    "spectral_norm",
    "truncate",
    "unroll",
    "wasserstein",
]
