import json

import numpy as np
import pytest
import torch

from img2img import checkpoint
from img2img.pipeline import load
from img2img.recipe import read
from img2img.systems.system import build

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from img2img import exporter as module  # noqa: E402

export = module.export

PAGES = {
    "fast": ("fast", {"networks.generator.width": 8, "networks.generator.depth": 2}),
    "prelu": (
        "fast",
        {
            "networks.generator.width": 8,
            "networks.generator.depth": 1,
            "data.scale": 3,
            "networks.generator.activation": "prelu",
        },
    ),
    "srresnet": ("srresnet", {"networks.generator.width": 8, "networks.generator.blocks": 2}),
    "paper": (
        "srresnet",
        {"networks.generator": {"type": "srresnet", "width": 8, "blocks": 1}, "data.scale": 2, "data.channels": 1},
    ),
    "pix2pix": ("pix2pix", {"networks.generator.width": 4, "data.size": 8}),
    "instance": ("pix2pix", {"networks.generator.width": 4, "data.size": 8, "networks.generator.norm": "instance"}),
}


def weight(folder, name):
    page, changes = PAGES[name]
    torch.manual_seed(0)
    recipe = read(page).override(changes)
    system = build(recipe)
    with torch.no_grad():
        for value in system.generator.parameters():  # louder than the start, so that a wrong operator shows
            value.add_(torch.randn_like(value) * 0.1)
    tensors = {f"generator.{key}": value for key, value in system.generator.state_dict().items()}
    checkpoint.save(folder / f"{name}.safetensors", tensors, {"recipe": recipe.page()})
    return folder / f"{name}.safetensors"


@pytest.mark.parametrize("name", PAGES)
def test_a_file_for_any_size_that_both_runtimes_agree_on(tmp_path, name):
    path = weight(tmp_path, name)
    found = export(path, tmp_path / "net.onnx")
    assert set(found["difference"]) == {"onnxruntime", "cv2.dnn"}
    assert max(found["difference"].values()) < 1e-4
    assert len({tuple(size) for size in found["sizes"]}) == 2
    assert json.loads(json.dumps(found)) == found

    pipe = load(path, device="cpu", precision="fp32")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    given = session.get_modelmeta().custom_metadata_map
    low, high = pipe.span
    assert given == {
        "name": name,
        "task": pipe.task,
        "scale": str(pipe.scale),
        "range": f"{low:.0f} {high:.0f}",
        "channels": str(pipe.channels),
        "multiple": str(pipe.multiple),
        "side": "0",
    }
    side, shapes = pipe.multiple, (session.get_inputs()[0].shape, session.get_outputs()[0].shape)
    assert all(shape[:2] == [1, pipe.channels] and all(isinstance(each, str) for each in shape[2:]) for shape in shapes)

    image = torch.rand(1, pipe.channels, side * (61 if side == 1 else 2), side * (17 if side == 1 else 5))
    output = session.run(None, {"input": (image * (high - low) + low).numpy()})[0]
    assert np.abs(np.clip((output - low) / (high - low), 0, 1) - pipe.tensor(image).numpy()).max() < 1e-4
    assert output.std() > 0.01


def test_nothing_of_this_computer_is_in_the_file(tmp_path):
    export(weight(tmp_path, "fast"), tmp_path / "net.onnx", check=False)
    data = (tmp_path / "net.onnx").read_bytes()
    assert b".py" not in data
    assert str(tmp_path).encode() not in data


def test_community_networks_are_exported_too(tmp_path):
    pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    torch.save(Compact(num_feat=8, num_conv=1, upscale=2).state_dict(), tmp_path / "net.pth")
    found = export(tmp_path / "net.pth", tmp_path / "net.onnx")
    assert found["scale"] == 2
    assert max(found["difference"].values()) < 1e-4


def test_a_pipeline_is_taken_in_any_precision(tmp_path):
    pipe = load(weight(tmp_path, "fast"), device="cpu", precision="bf16")
    found = export(pipe, tmp_path / "net.onnx")
    assert max(found["difference"].values()) < 1e-4
    exact = load(tmp_path / "fast.safetensors", device="cpu", precision="fp32")
    image = torch.rand(1, 3, 20, 20)
    output = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"input": image.numpy()})[0]
    assert np.abs(output.clip(0, 1) - exact.tensor(image).numpy()).max() < 1e-5  # fp32 weights, not rounded ones


def test_a_wrong_translation_is_refused_and_the_old_file_stays(tmp_path, monkeypatch):
    path, target = weight(tmp_path, "fast"), tmp_path / "out" / "net.onnx"
    target.parent.mkdir()
    target.write_bytes(b"old")
    shuffled = module._shuffled
    monkeypatch.setattr(module, "_shuffled", lambda image, factor: shuffled(image, factor) + 0.002)
    with pytest.raises(
        ValueError, match=r"net.onnx: not written, onnxruntime differs from PyTorch by 0.002, more than 0.001"
    ):
        export(path, target)
    assert target.read_bytes() == b"old"
    assert [each.name for each in target.parent.iterdir()] == ["net.onnx"]
    assert "difference" not in export(path, target, check=False)
    assert target.read_bytes() != b"old"


def test_a_file_that_opencv_cannot_read_is_refused(tmp_path, monkeypatch):
    def broken(path, images):
        raise RuntimeError("unknown\nlayer")

    monkeypatch.setattr(module, "_opencv", broken)
    with pytest.raises(ValueError, match=r"net.onnx: not written, cv2.dnn cannot run it \(unknown layer\)"):
        export(weight(tmp_path, "fast"), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_not_a_number_is_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module,
        "_opencv",
        lambda path, images: [np.full((1, 3, *(4 * side for side in image.shape[2:])), np.nan) for image in images],
    )
    with pytest.raises(ValueError, match="cv2.dnn differs from PyTorch by inf"):
        export(weight(tmp_path, "fast"), tmp_path / "net.onnx")


def test_a_network_that_cannot_be_traced_gives_one_line(tmp_path, monkeypatch):
    pipe = load(weight(tmp_path, "fast"), device="cpu", precision="fp32")
    forward = type(pipe.network).forward
    monkeypatch.setattr(type(pipe.network), "forward", lambda self, x: forward(self, x) if float(x.sum()) > 0 else x)
    with pytest.raises(ValueError, match="cannot be written as ONNX") as caught:
        export(pipe, tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*onnx*"))


def test_generators_of_noise_are_refused(tmp_path):
    recipe = read("wgan_gp").override(
        {"networks.generator.width": 4, "networks.discriminator.width": 4, "data.size": 16}
    )
    tensors = {f"generator.{key}": value for key, value in build(recipe).generator.state_dict().items()}
    checkpoint.save(tmp_path / "noise.safetensors", tensors, {"recipe": recipe.page()})
    with pytest.raises(ValueError, match="makes images from noise"):
        export(tmp_path / "noise.safetensors", tmp_path / "net.onnx")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXTRA", ("onnx", "no_such_package"))
    with pytest.raises(ValueError, match=r"no_such_package: pip install no_such_package"):
        export(weight(tmp_path, "fast"), tmp_path / "net.onnx")


def test_the_name_must_end_in_onnx(tmp_path):
    with pytest.raises(ValueError, match=r"net.pb: .*\.onnx"):
        export(weight(tmp_path, "fast"), tmp_path / "net.pb")


@pytest.mark.parametrize(("name", "sizes"), [("pixelda.digits", [[24, 37], [51, 33]]), ("dtn.digits_m", [[28, 28]])])
def test_shipped_adapters(name, sizes, tmp_path):
    """A generator of noise and image is written without the noise; one that draws one size, at that size."""
    found = export(name, tmp_path / "net.onnx")
    assert found["sizes"] == sizes and max(found["difference"].values()) < 1e-4
    assert set(found["difference"]) == {"onnxruntime", "cv2.dnn"}
