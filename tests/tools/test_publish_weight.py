"""A published weight is the run's, in half precision, with a card that holds, and nothing of the machine."""

import hashlib
import json

import publish_weight
import pytest
import torch

import img2img
from img2img import checkpoint


@pytest.fixture
def run(photos, tmp_path):
    changes = ["networks.generator.width=4", "networks.generator.depth=1", "data.size=32", "train.batch=2"]
    changes += ["train.workers=0", "validate.metrics=[]", "validate.best=''"]
    for name, init in (("first", ""), ("second", str(tmp_path / "first"))):
        more = [f"init.generator={init}"] if init else []
        img2img.train("fast", photos, tmp_path / name, images=2, set=changes + more, doctor=False, progress=False)
    return tmp_path / "second"


def test_weight_and_card(run, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    card = publish_weight.publish(run, "tiny.x4", "photos", shelf)
    body = (shelf / "tiny.x4.safetensors").read_bytes()
    assert str(tmp_path).encode() not in body
    assert json.loads((shelf / "manifest.json").read_text()) == {"tiny.x4": card}
    assert card["sha256"] == hashlib.sha256(body).hexdigest() and card["bytes"] == len(body) and card["page"] == "fast"
    pipes = [img2img.load(path, device="cpu", precision="fp32") for path in (run, shelf / "tiny.x4.safetensors")]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pipes[0].network(x), pipes[1].network(x), atol=2e-3, rtol=0)
    kept, _ = checkpoint.load(shelf / "tiny.x4.safetensors")
    assert {name.split(".")[0] for name in kept} == {"generator"}, "nothing that only training needs"


def test_figures_stay_on_the_page(run, tmp_path):
    tensors, header = checkpoint.load(run / "last.safetensors")
    header["recipe"]["measured"] = [{"metric": "psnr", "value": 30.0}]
    checkpoint.save(tmp_path / "told.safetensors", tensors, header)
    publish_weight.publish(tmp_path / "told.safetensors", "told.x4", "photos", tmp_path / "shelf")
    written = checkpoint.header(tmp_path / "shelf" / "told.x4.safetensors")["recipe"]
    assert "measured" not in written and written["name"] == "fast"


def test_the_card_says_what_was_validated_of_this_state_alone(run, tmp_path):
    tensors, header = checkpoint.load(run / "last.safetensors")
    for images, told in ((header["images"], True), (header["images"] - 1, False)):
        best = {"metric": "psnr", "value": 30.0, "step": 1, "images": images}
        checkpoint.save(tmp_path / "state.safetensors", tensors, header | {"best": best})
        card = publish_weight.publish(tmp_path / "state.safetensors", "state.x4", "photos", tmp_path / "shelf")
        assert card["validation"] == (best if told else None)


@pytest.mark.parametrize("name", ["foo", "fast.", ".x4", "../fast.x4", "fast.x4/b"])
def test_a_name_without_a_variant_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="is not PAGE.VARIANT: .* e.g. fast.x4"):
        publish_weight.publish(tmp_path, name, "photos", tmp_path)


def test_what_halves_cannot_hold_is_refused(run, tmp_path):
    path = tmp_path / "large.safetensors"
    tensors, header = checkpoint.load(run / "last.safetensors")
    name = next(key for key in tensors if key.startswith("ema.generator.") and tensors[key].is_floating_point())
    checkpoint.save(path, tensors | {name: tensors[name] + 1e6}, header)
    with pytest.raises(ValueError, match=f"{name.removeprefix('ema.')} does not fit half precision"):
        publish_weight.publish(path, "large.x4", "photos", tmp_path)
