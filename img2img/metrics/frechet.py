"""Frechet distance between sets of images, by the Gaussians of their features."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from img2img.metrics.distribution import SetMetric, enough


class Gaussian(NamedTuple):
    """Mean (D,) and a root (R, D) of the covariance: root^T root = covariance. Float64."""

    mean: Tensor
    root: Tensor


def gaussian(features: Tensor) -> Gaussian:
    """Return the Gaussian of features (N, D), with the unbiased covariance.

    Raises:
        ValueError: Fewer than two vectors.
    """
    enough(features, 2, "a covariance")
    features = features.double().cpu()
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    # With no more samples than features, the centred samples are a root already, and a smaller one.
    return Gaussian(mean, centred if len(features) <= len(mean) else covariance_root(gram(centred.T)))


def gram(rows: Tensor) -> Tensor:
    """Return rows rows^T. NumPy sees that it is symmetric and computes half of it, where PyTorch computes all."""
    return torch.from_numpy(rows.numpy() @ rows.numpy().T)


def covariance_root(covariance: Tensor) -> Tensor:
    """Return R (D, D) with R^T R = covariance: Cholesky's, or for a singular one the root of its eigenvalues."""
    root, failed = torch.linalg.cholesky_ex(covariance, upper=True)
    if failed:
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp(min=0).sqrt()).T
    return root


def frechet(x: Gaussian, y: Gaussian) -> float:
    """Return the squared Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    With S1 = A^T A and S2 = B^T B, the eigenvalues of S1 S2 are the squared singular values of A B^T, and those the
    eigenvalues of its smaller Gram matrix, so that no matrix needs a square root, and a set smaller than its features
    costs as little as it is. Each eigenvalue that should be 0 may add 1e-8 of the largest one's root.

    Dowson & Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X.
    """
    product = x.root @ y.root.T if len(x.root) <= len(y.root) else y.root @ x.root.T
    shared = torch.linalg.eigvalsh(gram(product)).clamp(min=0).sqrt().sum()
    spread = x.root.square().sum() + y.root.square().sum() - 2 * shared
    return max(float((x.mean - y.mean).square().sum() + spread), 0.0)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared Frechet distance between the Gaussians of features (N, D) and (M, D).

    Raises:
        ValueError: Fewer than two vectors in one of them.
    """
    return frechet(gaussian(x), gaussian(y))


class FrechetDistance(SetMetric):
    """FID's formula on the network that is at hand, which the name says: `fid[efficientnet_lite0]`; lower is better.

    Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6. Figures of different networks do not compare,
    nor do those of different numbers of images: fewer give larger ones. Only `fid[inception]` is the paper's.

    Args:
        network: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
    """

    def compute(self) -> float:
        """Return the squared distance.

        Raises:
            ValueError: Fewer than two outputs or real images.
        """
        return frechet(self._real_gaussian, gaussian(self.outputs))

    @cached_property
    def _real_gaussian(self) -> Gaussian:
        return gaussian(self.real)
