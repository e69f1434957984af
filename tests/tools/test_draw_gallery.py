"""Draws in their rows, and the training images that they were made of below them."""

import shutil
import sys

import draw_gallery as tool
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from img2img import checkpoint
from img2img.data.images import Images
from img2img.recipe import Recipe, read
from img2img.systems.system import build


def small(name):
    roles = read(name).networks.keys() & {"generator", "discriminator", "encoder", "reader"}
    changes = {f"networks.{role}.width": 4 for role in roles} | {"networks.generator.latent": 6}
    return read(name).override(changes | {"data.size": 16, "data.channels": 3})


class Copying(nn.Module):
    """A generator that learnt images by heart, up to a shade that the latent chooses; the label chooses the image."""

    latent = 3

    def __init__(self, images, classes=0):
        super().__init__()
        self.images, self.classes = images, classes

    def forward(self, z, label=None):
        chosen = torch.arange(len(z)) if label is None else label
        return self.images[chosen] * 0.9 + 0.05 * z[:, 0].tanh().view(-1, 1, 1, 1)


def shown(folder):
    images = Images(folder, 16, 3)
    return torch.stack([images.item(place, np.random.default_rng(0))["real"] for place in range(len(images))])


@pytest.mark.parametrize(("name", "title"), [("dcgan", None), ("acgan", "{}"), ("infogan", "code {}")])
def test_rows(name, title, classes):
    system, images = build(small(name)).eval(), shown(classes / "train")
    system.generator = Copying(images, 10 if title else 0)
    found = tool.rows(system, classes, count=5, seed=2)
    assert [row.title for row in found] == ([title.format(place) for place in range(10)] if title else [""] * 4)
    for place, row in enumerate(found):
        made_of = images[[place] * 5 if title else list(range(5))] / 2 + 0.5
        assert torch.allclose(row.nearest, made_of, atol=1e-6)
        assert torch.allclose(row.drawn, made_of, atol=0.1) and not torch.equal(row.drawn, row.nearest)
        assert torch.equal((row.drawn * 255).round() / 255, row.drawn) and len(row.drawn.unique(dim=0)) == 5
    again, other = (tool.rows(system, classes / "train", count=5, seed=seed) for seed in (2, 3))
    assert all(torch.equal(a.drawn, b.drawn) for a, b in zip(found, again, strict=True))
    assert not torch.equal(found[0].drawn, other[0].drawn)


@pytest.fixture
def halves(captioned, tmp_path):
    """Return a folder of captioned images in train/, and those of two other names in validation/."""
    for part in ("train", "validation"):
        shutil.copytree(captioned, tmp_path / "data" / part)
    (tmp_path / "data" / "validation" / "captions.csv").write_text("file,name\n0.png,moon\n1.png,moon\n2.png,tree\n")
    return tmp_path / "data"


def test_held_out_captions(halves):
    system, images = build(small("text_to_image")).eval(), shown(halves / "train")
    system.infer = lambda z, text, box: images[[{"moon": 3, "tree": 1}[text]] * len(z)] * 0.9
    found = tool.rows(system, halves, count=2)
    assert sorted(row.title for row in found) == ["moon", "tree"]
    for row in found:
        assert torch.allclose(row.nearest, images[[{"moon": 3, "tree": 1}[row.title]] * 2] / 2 + 0.5, atol=1e-6)


def test_command_line(halves, classes, pages, tmp_path, monkeypatch, capsys):
    """Two weights beside each other: the pixels are those of their rows, enlarged three times."""
    torch.manual_seed(0)
    data = {"acgan": classes, "text_to_image": halves, "translator": halves}
    for name in data:
        system = build(Recipe.parse(pages[name]) if name in pages else small(name))
        page = {"recipe": system.recipe.page()}
        checkpoint.save(tmp_path / name / "last.safetensors", system.state_dict(), page)
    given = [f"{tmp_path / name}={folder}" for name, folder in data.items()]
    command = ["x", "--count", "3", "--seed", "4", "-o", str(tmp_path / "out.png"), "--models"]
    monkeypatch.setattr(sys, "argv", [*command, *given[:2]])
    tool.main()
    sheet, side, left = np.asarray(Image.open(tmp_path / "out.png")), 16 * 3 + 2, 0
    assert sheet.shape == (22 + 10 * (22 + 2 * side), 2 * 3 * side + 24, 3)
    for name, folder in list(data.items())[:2]:
        assert sheet[:22, left : left + 3 * side].min() < 128  # the heading
        system = tool.load(tmp_path / name, device="cpu", precision="fp32").system
        for place, row in enumerate(tool.rows(system, folder, count=3, seed=4)):
            top = 22 + place * (22 + 2 * side) + 22
            for line, images in enumerate((row.drawn, row.nearest)):
                y, x = top + line * side, left + 2 * side
                pixels = (images[2].permute(1, 2, 0).numpy() * 255).round()
                assert np.array_equal(sheet[y : y + 48 : 3, x : x + 48 : 3], pixels)
        left += 3 * side + 24
    for wrong, reason in ((given[0].partition("=")[0], "name the folder"), (given[2], "no draws")):
        monkeypatch.setattr(sys, "argv", [*command, wrong])
        with pytest.raises(SystemExit) as stop:
            tool.main()
        assert stop.value.code == 1 and reason in capsys.readouterr().err
