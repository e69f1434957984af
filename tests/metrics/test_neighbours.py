"""Nearest neighbours against scikit-learn's."""

import numpy as np
import pytest
import torch

from img2img.metrics import distribution
from img2img.metrics.neighbours import NeighbourDistance, nearest, nearest_images

NearestNeighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors


def test_equals_scikit_learn(monkeypatch):
    rng = np.random.default_rng(0)
    queries, features = rng.normal(size=(31, 6)), rng.normal(size=(200, 6))
    distances, indices = NearestNeighbors(n_neighbors=3).fit(features).kneighbors(queries)
    for numbers in (1 << 24, 1000):
        monkeypatch.setattr(distribution.in_blocks, "__defaults__", (numbers,))
        found = nearest(torch.from_numpy(queries), torch.from_numpy(features), 3)
        np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-9)
        assert found.indices.dtype == torch.long and (found.indices.numpy() == indices).all()
    with pytest.raises(ValueError, match="k = 201 must be 1 to the number of images to search, 200"):
        nearest(torch.from_numpy(queries), torch.from_numpy(features), 201)


def test_copies_are_found():
    training = torch.rand(150, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([140, 3, 77])
    found = nearest_images(training[chosen] + 0.01, training, network="pixels")
    assert torch.equal(found.indices[:, 0], chosen)
    assert found.distances.flatten().tolist() == pytest.approx([0.01 * 48**0.5] * 3, rel=1e-3)


def test_ratio():
    rng = np.random.default_rng(0)
    real, fresh = (torch.from_numpy(rng.normal(size=(1500, 2))) for _ in range(2))
    metric = NeighbourDistance(network="pixels")
    metric.update(fresh, real)
    assert metric.compute() == pytest.approx(1, abs=0.05)
    metric.reset()
    metric.update(real)
    assert metric.compute() == pytest.approx(0, abs=1e-6)
    metric.reset()
    metric.update(real + torch.tensor([0.0, 100.0]))
    assert metric.compute() > 100
