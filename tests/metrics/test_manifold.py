"""Precision, recall, density and coverage against brute force in numpy and scikit-learn's neighbours."""

import numpy as np
import pytest
import torch

from img2img.metrics import distribution
from img2img.metrics.manifold import Coverage, Density, Precision, Recall, density_coverage, precision_recall, radii

NearestNeighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors


def sets(seed=0, n=80, m=60, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * 0.8 + 0.4, rng.normal(size=(m, d))


def brute(output, real, k):
    """Precision, recall, density, coverage, pair by pair."""

    def distance(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))

    def reach(x):
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]  # without the point itself

    between = distance(output, real)
    inside = between <= reach(real)[None]
    precision, recall = inside.any(1).mean(), (between <= reach(output)[:, None]).any(0).mean()
    return precision, recall, inside.sum(1).mean() / k, (between.min(0) <= reach(real)).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_brute_force(k, monkeypatch):
    output, real = sets()
    monkeypatch.setattr(distribution.in_blocks, "__defaults__", (1000,))  # several blocks
    x, y = torch.from_numpy(output), torch.from_numpy(real)
    expected = brute(output, real, k)
    assert min(expected) > 0 and max(expected[0], expected[1], expected[3]) < 1  # neither trivial nor full
    assert (*precision_recall(x, y, k), *density_coverage(x, y, k)) == pytest.approx(expected, abs=1e-12)


def test_metrics_have_the_papers_neighbourhoods():
    output, real = (each.astype(np.float32) for each in sets(1))
    found = {}
    for kind in (Precision, Recall, Density, Coverage):
        metric = kind(network="pixels")
        for a, b in zip(np.array_split(output, 3), np.array_split(real, 3), strict=True):
            metric.update(torch.from_numpy(a), torch.from_numpy(b))
        found[kind] = metric.compute()
        metric.reset()
        metric.update(torch.from_numpy(output), torch.from_numpy(output))
        assert metric.compute() == pytest.approx(found[kind])
    assert (found[Precision], found[Recall]) == pytest.approx(brute(output, real, 3)[:2])
    assert (found[Density], found[Coverage]) == pytest.approx(brute(output, real, 5)[2:])


def test_what_they_tell_apart():
    rng = np.random.default_rng(2)
    real = torch.from_numpy(np.concatenate([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 50]))
    dropped, astray = real[:50] + 0.01, torch.cat([real + 0.01, real[:50] - 500])
    assert precision_recall(dropped, real) == (1.0, pytest.approx(0.5, abs=0.02))
    assert precision_recall(astray, real)[0] == pytest.approx(2 / 3, abs=0.02)
    assert density_coverage(dropped, real)[1] == pytest.approx(0.5, abs=0.02)
    assert density_coverage(astray, real)[1] == 1
    assert precision_recall(real, real) == (1, 1) and density_coverage(real, real)[1] == 1


def test_errors():
    with pytest.raises(ValueError, match="k = 3 takes at least 4 images, not 3"):
        radii(torch.zeros(3, 2), 3)
    with pytest.raises(ValueError, match="k = 0 must be 1"):
        radii(torch.zeros(3, 2), 0)
    with pytest.raises(ValueError, match="k = 0 must be 1"):
        Precision(k=0)
