"""Sets of features: what is kept, what is shared, what is cached."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from img2img.data.fetch import cache
from img2img.metrics import distribution
from img2img.metrics.distribution import Embedding, SetMetric, embedding, file_features, in_blocks


class Counting(nn.Module):
    """A classifier of the mean colour that counts its images."""

    def __init__(self):
        super().__init__()
        self.seen = self.most = 0

    def forward(self, images):
        self.seen += len(images)
        self.most = max(self.most, len(images))
        found = images.mean((2, 3))
        return found, found.log()


class Means(SetMetric):
    def compute(self):
        return float(self.outputs.mean() - self.real.mean())


def test_several_metrics_cost_one_pass():
    net = Counting()
    metrics = [Means(net), Means(net), Means(net)]
    output, real = torch.rand(5, 3, 4, 4), torch.rand(2, 3, 4, 4)
    for metric in metrics:
        metric.update(output, real)
        assert metric.compute() == pytest.approx(float(output.mean() - real.mean()), abs=1e-6)
    assert net.seen == 7
    for metric in metrics:
        metric.update(output, real.clone())
    assert net.seen == 7 + 3 * 2  # outputs are known still
    output.add_(1)  # the same tensor, other values
    metrics[0].update(output)
    assert net.seen == 18 and metrics[0].outputs[10:].mean() > 1


def test_the_memory_of_a_batch_ends_with_it():
    net = Counting()
    for value in (0.25, 0.5, 0.75):  # the allocator may give each the same place
        assert embedding(net).features(torch.full((1, 3, 2, 2), value)).unique().tolist() == [value]
    with torch.inference_mode():
        images = torch.full((1, 3, 2, 2), 0.5)
        assert embedding(net).features(images).unique().tolist() == [0.5]
        images.fill_(0.75)
        assert embedding(net).features(images).unique().tolist() == [0.75]


def test_thousands_of_small_images_are_not_in_the_network_at_once():
    net, images = Counting(), torch.rand(1000, 3, 2, 2)
    assert torch.equal(embedding(net).features(images), images.mean((2, 3)))
    assert net.seen == 1000 and net.most <= 64
    assert embedding(net).features(images[:0]).shape == (0, 3)


def test_reset_keeps_the_real_set():
    metric = Means("pixels")
    metric.reset()  # before anything is known
    metric.update(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    metric.update(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
    assert metric.compute() == -0.5
    metric.reset()
    with pytest.raises(ValueError, match="no output was added"):
        metric.compute()
    metric.update(torch.ones(1, 1, 2, 2), torch.full((4, 1, 2, 2), 9.0))
    assert metric.compute() == 0.5 and metric.real.shape == (4, 4)
    metric.know(torch.ones(3, 1, 2, 2))
    assert metric.compute() == 0


def test_points_and_probabilities():
    points = torch.rand(6, 2)
    assert torch.equal(Embedding("pixels").features(points), points)
    with pytest.raises(ValueError, match="'pixels' knows no classes"):
        Embedding("pixels").probabilities(points)
    images = torch.rand(4, 3, 2, 2)
    means = images.mean((2, 3))
    expected = means / means.sum(1, keepdim=True)  # the softmax of a logarithm
    torch.testing.assert_close(Embedding(Counting()).probabilities(images).float(), expected)
    with pytest.raises(ValueError, match=r"expected float \(N, C, H, W\)"):
        Embedding(Counting()).features(points)
    with pytest.raises(ValueError, match="unknown classifier 'digit'; did you mean 'digits'"):
        Embedding("digit")


def test_files_are_seen_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 5, 4, 3), np.uint8)
    files = [tmp_path / f"{place}.png" for place in range(3)]
    for path, pixels in zip(files, pictures, strict=True):
        cv2.imwrite(str(path), pixels[..., ::-1])
    expected = torch.from_numpy(pictures / np.float32(255)).permute(0, 3, 1, 2).flatten(1)
    assert torch.equal(file_features(files, "pixels"), expected)
    (stored,) = (cache() / "features").iterdir()
    read = []
    monkeypatch.setattr(distribution, "embedding", lambda network: read.append(network) or embedding(network))
    assert torch.equal(file_features(files, "pixels"), expected) and not read
    assert torch.equal(file_features(files[::-1], "pixels"), expected.flip(0)) and read  # another order
    stored.write_bytes(stored.read_bytes()[:-7])
    assert torch.equal(file_features(files, "pixels"), expected) and len(read) == 2
    files[0].write_bytes(files[1].read_bytes())  # other contents under the same name
    assert torch.equal(file_features(files, "pixels")[0], expected[1])
    metric = Means("pixels")
    metric.know(files[1:])
    assert torch.equal(metric.real, expected[1:])


def test_files_of_several_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, side in zip(files, (4, 6), strict=True):
        cv2.imwrite(str(path), np.full((side, side, 3), 10 * side, np.uint8))
    with pytest.raises(ValueError, match="bring them to one size"):
        file_features(files, "pixels")
    with pytest.raises(ValueError, match="no image files"):
        file_features([], "pixels")
    monkeypatch.setitem(distribution.PACKAGES, "counting", None)
    monkeypatch.setattr(distribution, "embedding", lambda network: Embedding(Counting()))
    torch.testing.assert_close(file_features(files, "counting"), torch.tensor([[40.0] * 3, [60.0] * 3]) / 255)


def test_in_blocks():
    rows, sizes = torch.arange(10.0), []
    found = in_blocks(lambda block: sizes.append(len(block)) or block * 2, rows, 3, numbers=12)
    assert torch.equal(found, rows * 2) and sizes == [4, 4, 2]
