"""What a classifier learns of right samples is as good as of real images, and of wrong ones worthless."""

from types import SimpleNamespace

import classifier_score as tool
import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def bars(tmp_path):
    """The class is where a bar is."""
    rng = np.random.default_rng(0)
    for part in ("train", "validation"):
        for label in range(2):
            (tmp_path / part / str(label)).mkdir(parents=True)
            for number in range(64):
                Image.fromarray(bar(rng, label)).save(tmp_path / part / str(label) / f"{number}.png")
    return tmp_path


def bar(rng, label):
    pixels = rng.integers(0, 30, (8, 8)).astype(np.uint8)
    pixels[:, 1 + 4 * label : 3 + 4 * label] += 200
    return pixels


class Drawing:
    """A generator that draws the class that it is asked for, or always the other one."""

    name, task, verb = "bars", "conditional", "synthesize"
    recipe = SimpleNamespace(data=SimpleNamespace(size=8, channels=1))
    system = SimpleNamespace(generator=SimpleNamespace(classes=2))

    def __init__(self, wrong):
        self.wrong = wrong

    def ask(self, label):
        self.label = label
        return self

    def latents(self, count, seed):
        return torch.full((count, 1), float(seed))

    def draw(self, z):
        rng = np.random.default_rng(int(z[0, 0]))
        images = [bar(rng, 1 - self.label if self.wrong else self.label) for _ in z]
        return torch.from_numpy(np.stack(images)).float()[:, None] / 255


@pytest.mark.parametrize(("wrong", "score"), [(False, 1.0), (True, 0.0)])
def test_score(wrong, score, bars):
    found = tool.measure(Drawing(wrong), bars, count=64, epochs=8, seed=0)
    assert found["samples"] == pytest.approx(score, abs=0.05) and found["real"] == pytest.approx(1, abs=0.05)
    assert found["images"] == 128
    images, labels = tool.samples(Drawing(False), 2, 3)
    assert images.shape == (6, 1, 8, 8) and images.dtype == torch.uint8 and labels.tolist() == [0, 0, 0, 1, 1, 1]
