"""The saturation of the minimax cost: gradients as a formula has them, and what they do as the discriminator learns."""

import plot_saturation as saturation
import pytest
import torch
from PIL import Image
from torch import nn


def test_gradients_of_a_line():
    """Of x = w z with the logit l = a x: the mean of z a times dcost / dl."""
    generator, discriminator = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    z = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) - 2
    with torch.no_grad():
        generator.weight.fill_(0.7)
        discriminator.weight.fill_(1.3)
    logits = 1.3 * 0.7 * z
    says = 1 / (1 + torch.exp(-logits))
    slopes = {"minimax": -says, "logistic": says - 1, "maximum_likelihood": -says / (1 - says)}
    found = saturation.gradients(generator, discriminator, z)
    assert found == {name: pytest.approx((1.3 * z * slope).mean().abs().item()) for name, slope in slopes.items()}


def test_the_minimax_cost_saturates_and_the_other_does_not(tmp_path):
    rows = saturation.measure(120, 40, seed=1, batch=128)
    assert [row["step"] for row in rows] == [0, 40, 80, 120] and rows[-1]["right"] > 0.95
    for name in ("minimax", "maximum_likelihood"):
        assert rows[-1][name] < rows[0][name] / 2
    assert rows[-1]["logistic"] > 5 * rows[0]["logistic"]
    assert saturation.table(rows).count("\n") == 5
    saturation.draw(rows, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 100
