"""The rows of the truncation curve are the metrics of the same latents, cut."""

import plot_truncation as truncation
import pytest
import torch
from PIL import Image

import img2img
from img2img.metrics.manifold import density_coverage, precision_recall


@pytest.fixture
def pipe(squares, tmp_path):
    changes = [
        "data.size=8",
        "networks.generator.width=4",
        "networks.discriminator.width=4",
        "train.workers=0",
        "train.batch=8",
    ]
    changes += ["validate.metrics=[]", 'validate.best=""']
    img2img.train("dcgan", squares, tmp_path / "run", images=8, set=changes, progress=False)
    return img2img.load(tmp_path / "run", device="cpu", precision="fp32")


def test_rows_are_of_the_same_latents(pipe, squares, tmp_path):
    rows = truncation.measure(pipe, squares, (0.01, 8.0), images=12, network="pixels")
    assert [row["threshold"] for row in rows] == [0.01, 8.0, float("inf")]
    # Nobody lies beyond eight standard deviations; within a hundredth all draws are all but one.
    assert rows[1] == {name: pytest.approx(value, rel=1e-3) for name, value in rows[2].items()} | {"threshold": 8.0}
    source = pipe.system.source([squares], True)
    real = torch.stack([source.item(place, None)["real"] for place in range(len(source))]) / 2 + 0.5
    for threshold, row in ((0.01, rows[0]), (None, rows[2])):
        drawn = pipe.draw(pipe.latents(12, 0), truncation=threshold)
        assert (row["precision"], row["recall"]) == precision_recall(drawn.flatten(1), real.flatten(1))
        assert (row["density"], row["coverage"]) == density_coverage(drawn.flatten(1), real.flatten(1))
    text = truncation.table(rows)
    assert text.count("\n") == 4 and text.splitlines()[-1].startswith("| none |")
    truncation.plot(rows, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 100
