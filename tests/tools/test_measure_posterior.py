"""The known posterior, and how near learnt ones come to it."""

import json
import sys

import measure_posterior as tool
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from scipy.stats import norm


def test_truth_against_rejection_sampling():
    """Of draws of latents and noise, those whose x comes out near the given one follow the posterior."""
    random = np.random.default_rng(0)
    z = random.standard_normal((2_000_000, 2))
    x = np.linalg.norm(z, axis=1) + tool.NOISE * random.standard_normal(len(z))
    for given in tool.SHOWN:
        kept = torch.from_numpy(z[np.abs(x - given) < 0.05])
        found = tool.distances([tool.histogram(kept)], [tool.truth(given)])
        assert found["kl"] < 0.05 and found["total_variation"] < 0.1


def test_distances_of_known_shares():
    """Of the standard normal against one with another mean, whose divergence is half the square of the way."""
    edges = np.linspace(-tool.EXTENT, tool.EXTENT, tool.CELLS + 1)
    one, moved = (torch.from_numpy(np.diff(norm.cdf(edges, mean))) for mean in (0, 0.5))
    found = tool.distances([torch.outer(one, one)], [torch.outer(moved, one)])
    assert found["kl"] == pytest.approx(0.125, abs=0.002)
    assert found["total_variation"] == pytest.approx(2 * norm.cdf(0.25) - 1, abs=0.002)
    drawn = tool.histogram(torch.randn(tool.DRAWS, 2, generator=torch.Generator().manual_seed(0)))
    assert tool.distances([drawn], [torch.outer(one, one)])["kl"] < 0.02


def best_gaussian(x):
    """Return the lowest KL that a Gaussian with a diagonal covariance can have, by sums over a grid."""
    line = (np.arange(200) + 0.5) / 200 * 12 - 6
    first, second = np.meshgrid(line, line, indexing="ij")
    length = np.hypot(first, second)
    log = -(length**2) / 2 - (x - length) ** 2 / (2 * tool.NOISE**2)
    log -= np.log(np.exp(log).sum() * (12 / 200) ** 2)

    def divergence(given):
        places = zip((first, second), given[:2], np.exp(given[2:]), strict=True)
        own = sum(norm.logpdf(values, mean, deviation) for values, mean, deviation in places)
        return (np.exp(own) * (own - log)).sum() * (12 / 200) ** 2

    starts = [(0, 0, -0.5, -0.5), (x, 0, -0.5, 0)]
    return min(minimize(divergence, start, method="Nelder-Mead").fun for start in starts)


def test_the_gaussian_is_a_fair_opponent_and_the_game_comes_nearer():
    """A Gaussian autoencoder comes as near as any of its kind can; a short game is far below that already."""
    true, best = [tool.truth(x) for x in tool.SHOWN], np.mean([best_gaussian(x) for x in tool.SHOWN])
    found = {
        name: tool.distances(tool.posteriors(tool.learn(page, steps, seed=0)), true)["kl"]
        for (name, page), steps in zip(tool.pages().items(), (400, 500), strict=True)
    }
    assert best - 0.02 < found["gaussian"] < 1.15 * best
    assert found["avb"] < 0.75 * best


def test_command_line(tmp_path, monkeypatch, capsys):
    arguments = ["x", "--steps", "2", "--seeds", "2", "-o", str(tmp_path / "a.png")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(tool, "DRAWS", 1000)
    tool.main()
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 2
    for name in ("gaussian", "avb"):
        assert len(found[name]) == 2 and all(row["kl"] > 0 and 0 < row["total_variation"] <= 1 for row in found[name])
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 100
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], str(tmp_path / "none" / "a.png")])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.startswith("measure_posterior: ") and said.count("\n") == 1
