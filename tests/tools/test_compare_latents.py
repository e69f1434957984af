"""The two-sample test: as often wrong as it says where sets are alike, and right where they are not."""

import json
import sys

import compare_latents as tool
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics.pairwise import rbf_kernel

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build


def test_the_distance():
    x, y = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = np.concatenate([x, y])
    apart = np.square(both[:, None] - both[None]).sum(2)[np.triu_indices(60, 1)]
    gamma = 1 / np.sort(apart)[(len(apart) - 1) // 2]
    means = [rbf_kernel(a, b, gamma=gamma).mean() for a, b in ((x, x), (y, y), (x, y))]
    assert tool.two_sample(x, y, 10)[0] == pytest.approx(means[0] + means[1] - 2 * means[2], rel=1e-9)


def test_the_probability():
    generator = torch.Generator().manual_seed(0)
    found = [tool.two_sample(*torch.randn(2, 40, 4, generator=generator), 100, seed)[1] for seed in range(100)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    x, y = torch.randn(2, 1000, 4, generator=generator)
    # The last has the mean and the covariance of the others, which fewer samples would not tell from them.
    for other in (y + torch.tensor([0.5, 0, 0, 0]), y * 1.4, y.sign()):
        assert tool.two_sample(x, other, 100)[1] < 0.02


def test_command_line(squares, tmp_path, monkeypatch, capsys):
    small = {"data.size": 8, "networks.encoder.width": 4, "networks.generator.width": 4}
    torch.manual_seed(0)
    recipe = read("aae").override(small)
    system = build(recipe)
    checkpoint.save(tmp_path / "last.safetensors", system.state_dict(), {"recipe": recipe.page()})
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--data", str(squares), "--images", "4"])
    tool.main()
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 4 and 0 < found["p"] <= 1 and 0 <= found["rejected"] <= 1
    recipe = read("dcgan").override({"data.size": 8, "networks.generator.width": 4, "networks.discriminator.width": 4})
    checkpoint.save(tmp_path / "last.safetensors", build(recipe).state_dict(), {"recipe": recipe.page()})
    with pytest.raises(SystemExit):
        tool.main()
    assert "the task generate has no encoder" in capsys.readouterr().err
