"""Points of known mixtures, and digits stacked as colours."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from img2img.data.stream import stream
from img2img.data.toys import clouds, toy
from img2img.evaluation import metric
from img2img.metrics.modes import MIXTURES
from img2img.recipe import read


@pytest.mark.parametrize(("name", "modes", "sigma"), [("ring-8", 8, 0.02), ("grid-25", 25, 0.05)])
def test_points_follow_the_papers_mixtures(name, modes, sigma):
    source = toy(name, [], 1)
    places = np.arange(20_000) * modes  # evenly spread, as a validation takes them
    points = source.items(places, np.random.default_rng(0))["real"]
    assert points.shape == (20_000, 2, 1, 1) and points.dtype == torch.float32
    centres = MIXTURES[name].centres.numpy()
    assert len(centres) == modes
    apart = points[:, :, 0, 0].numpy()[:, None] - centres
    nearest = np.square(apart).sum(2).argmin(1)
    assert stats.chisquare(np.bincount(nearest)).pvalue > 0.01, "the modes are even"
    noise = apart[np.arange(20_000), nearest].ravel() / sigma
    assert stats.kstest(noise, "norm").pvalue > 0.01
    assert points.abs().max() < MIXTURES[name].extent


def test_a_batch_follows_from_seed_and_place():
    source = toy("ring-8", [], 1)
    whole = stream(source, 6, seed=3, start=0)
    first, second = next(whole)["real"], next(whole)["real"]
    later = stream(source, 6, seed=3, start=1)
    assert torch.equal(next(later)["real"], second) and not torch.equal(first, second)
    assert not torch.equal(next(stream(source, 6, seed=4, start=0))["real"], first)
    assert source.item(3, np.random.default_rng(0))["real"].shape == (2, 1, 1)


@pytest.mark.parametrize("name", ["ring-8", "grid-25"])
def test_metrics_of_points(name):
    mixture = MIXTURES[name]
    points = toy(name, [], 1).items(np.arange(1000), np.random.default_rng(0))["real"]
    images = (points / mixture.extent + 1) / 2  # as the judge hands them on
    covered, share = metric(f"modes[{name}]"), metric(f"confident[{name}]")
    for found in (covered, share):
        found.update(images, images)
    assert covered.compute() == len(mixture.centres)
    assert share.compute() == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # within three sigma, in a plane
    for found in (covered, share):
        found.reset()
        found.update(torch.cat([images[:1], torch.full((3, 2, 1, 1), 0.001)]), images)
    assert covered.compute() == 1 and share.compute() == 0.25


def test_stacked_digits(tmp_path):
    for place in range(5):
        Image.fromarray(np.full((10, 10), 50 * place, np.uint8)).save(tmp_path / f"{place}.png")
    source = toy("stacked_digits", [tmp_path], 8)
    assert len(source) == 5
    seen = set()
    for number in range(60):
        image = source.item(number % 5, np.random.default_rng(number))["real"]
        assert image.shape == (3, 8, 8)
        colours = (image.mean((1, 2)) + 1) * 127.5 / 50
        assert colours[0] == pytest.approx(number % 5, abs=1e-4)
        seen |= {round(value) for value in colours[1:].tolist()}
    assert seen == set(range(5))


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="leave the data folder out"):
        toy("ring-8", [tmp_path], 1)
    with pytest.raises(ValueError, match="img2img prepare digits"):
        toy("stacked_digits", [], 28)
    page = read("wgan_gp")
    with pytest.raises(ValueError, match="set data.channels = 2, size = 1"):
        page.override({"data.toy": "ring-8"})
    with pytest.raises(ValueError, match="did you mean 'ring-8'"):
        page.override({"data.toy": "ring8"})
    with pytest.raises(ValueError, match="channels is 1 or 3"):
        page.override({"data.channels": 2})


def test_clouds(tmp_path):
    mixture = MIXTURES["ring-8"]
    clouds({"one": mixture.centres, "two": torch.zeros(3, 2)}, mixture, tmp_path / "deep" / "clouds.png")
    with Image.open(tmp_path / "deep" / "clouds.png") as image:
        assert image.width > 1.5 * image.height and len(image.convert("RGB").getcolors(10**6)) > 50
