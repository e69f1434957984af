import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from img2img.imaging.tiles import margin_of
from img2img.networks import community as module
from img2img.networks.community import community

spandrel = pytest.importorskip("spandrel")
from spandrel.architectures.Compact import Compact  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402


def compact(**options):
    torch.manual_seed(0)
    return Compact(**({"num_feat": 8, "num_conv": 3, "upscale": 4} | options)).eval()


def esrgan(**options):
    torch.manual_seed(0)
    return ESRGAN(**({"num_filters": 8, "num_blocks": 1, "scale": 2} | options)).eval()


def saved(network, path, wrap=lambda state: state):
    state = network.state_dict()
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(wrap(state), path)
    return path


def photo(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_a_compact_network_gives_its_own_output(tmp_path, name):
    network = compact()
    pipe = community(saved(network, tmp_path / name)).to("cpu", "fp32")
    assert (pipe.task, pipe.scale, pipe.channels, pipe.multiple, pipe.margin) == ("super_resolve", 4, 3, 1, 3 + 2)
    image = torch.rand(1, 3, 19, 23)
    with torch.no_grad():
        wanted = network(image).clamp(0, 1)
    assert torch.allclose(pipe.tensor(image), wanted, atol=1e-6)


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model"])
def test_weights_inside_a_dictionary_are_found(tmp_path, key):
    network = compact()
    pipe = community(saved(network, tmp_path / "net.pth", lambda state: {key: state, "iteration": 5})).to("cpu", "fp32")
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(pipe.tensor(image), network(image).clamp(0, 1), atol=1e-6)


def test_half_precision_weights_are_computed_in_fp32(tmp_path):
    pipe = community(saved(compact().half(), tmp_path / "net.pth")).to("cpu", "fp32")
    assert next(pipe.network.parameters()).dtype is torch.float32
    assert pipe.tensor(torch.rand(1, 3, 16, 16)).isfinite().all()


def test_grey_networks(tmp_path):
    pipe = community(saved(compact(num_in_ch=1, num_out_ch=1, upscale=2), tmp_path / "net.pth"))
    assert pipe.channels == 1
    assert pipe(photo(10, 12)).shape == (20, 24, 3)
    assert pipe(photo(10, 12)[..., 0]).shape == (20, 24)


def test_a_restorer_of_scale_1_is_accepted(tmp_path):
    pipe = community(saved(compact(upscale=1), tmp_path / "net.pth"))
    assert pipe.scale == 1
    assert pipe(photo(20, 17)).shape == (20, 17, 3)


@pytest.mark.parametrize("network", [compact, esrgan])
def test_the_measured_margin_is_the_exact_one(tmp_path, network):
    built = network()
    pipe = community(saved(built, tmp_path / "net.pth"))
    assert pipe.margin == margin_of(built, 3, pipe.scale)


@pytest.mark.parametrize("network", [compact, esrgan])
def test_tiles_equal_the_whole_image(tmp_path, network):
    built = network()
    with torch.no_grad():
        for parameter in built.parameters():  # the start is so quiet that eight bits would hide an error
            parameter.mul_(1.5)
    pipe = community(saved(built, tmp_path / "net.pth")).to("cpu", "fp32")
    image = photo(70, 90)
    whole, tiled = pipe(image, tile=0), pipe(image, tile=32)
    assert int(np.abs(whole.astype(int) - tiled).max()) <= 1
    assert whole.std() > 1


def test_deep_networks_get_an_overlap_and_global_ones_none(tmp_path, monkeypatch):
    network = esrgan(num_blocks=5, num_filters=4)
    pipe = community(saved(network, tmp_path / "deep.pth")).to("cpu", "fp32")
    assert margin_of(network, 3, 2, limit=128) > module.REACH
    assert module.OVERLAP <= pipe.margin <= module.REACH
    image = photo(50, 60)
    assert int(np.abs(pipe(image, tile=0).astype(int) - pipe(image, tile=32)).max()) <= 1
    load = spandrel.ModelLoader.load_from_state_dict

    def advised(self, state):
        found = load(self, state)
        found.tiling = spandrel.ModelTiling.INTERNAL
        return found

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", advised)
    assert community(tmp_path / "deep.pth").margin is None


def test_size_requirements_hold_for_any_image(tmp_path):
    # Pixels are first folded into channels two by two; the file tells it by its 12 input channels.
    network = esrgan(in_nc=12, scale=4, shuffle_factor=2)
    pipe = community(saved(network, tmp_path / "net.pth"))
    assert (pipe.scale, pipe.channels, pipe.multiple) == (2, 3, 4)
    assert pipe.margin % 4 == 0
    for height, width in ((1, 1), (17, 30), (41, 75)):
        assert pipe(photo(height, width), tile=32).shape == (height * 2, width * 2, 3)


def test_a_precision_that_the_network_does_not_bear(tmp_path, monkeypatch):
    load = spandrel.ModelLoader.load_from_state_dict

    def delicate(self, state):
        found = load(self, state)
        found.supports_bfloat16 = False
        return found

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", delicate)
    pipe = community(saved(compact(), tmp_path / "net.pth"))
    assert pipe.dtype is torch.float32
    with pytest.raises(ValueError, match="does not work in bf16"):
        pipe.to("cpu", "bf16")
    assert pipe.to("cpu").dtype is torch.float32


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["file", "zip", "nested", "numpy"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, place, suffix):
    marker, path = tmp_path / "marker", tmp_path / f"net{suffix}"
    if place == "file":
        path.write_bytes(pickle.dumps(Hostile(marker)))
    elif place == "zip":
        torch.save(Hostile(marker), path)
    elif place == "nested":
        torch.save({"params": compact().state_dict() | {"extra": Hostile(marker)}}, path)
    else:
        torch.save({"params": compact().state_dict(), "hyper_parameters": np.random.default_rng(0)}, path)
    with pytest.raises(ValueError, match=f"net{suffix}: refused.*safetensors"):
        community(path)
    assert not marker.exists()


def test_the_hostile_file_would_have_run(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Hostile(marker)))
    assert marker.exists()


def test_torchscript_is_not_run(tmp_path):
    torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.rand(1, 3, 8, 8)).save(str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match="net.pt: .*TorchScript"):
        community(tmp_path / "net.pt")


def unreadable(folder):
    (folder / "text.pth").write_text("not a network")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.safetensors").write_text("not a network")
    saved(compact(), folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:-100])
    saved(compact(), folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:-1000])
    torch.save([1, 2, 3], folder / "list.pth")
    torch.save({}, folder / "nothing.pth")
    torch.save({"weight": torch.zeros(3, 3)}, folder / "unknown.pth")
    torch.save({"params": 5, "epoch": "x"}, folder / "number.pth")
    torch.save({"body.0.weight": 1, "body.1.weight": 2}, folder / "mistaken.pth")
    (folder / "folder.pth").mkdir()
    return sorted(path.name for path in folder.iterdir())


def test_unreadable_files_give_one_line_with_their_name(tmp_path):
    found = unreadable(tmp_path)
    assert len(found) == 11
    for name in [*found, "missing.pth", "missing.safetensors"]:
        with pytest.raises(ValueError, match=name) as caught:
            community(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [(4, 4), (3, 1), (2, 2)])
def test_networks_of_other_channels_are_refused(tmp_path, channels):
    # Scale and channels are told from the shapes, so that 3 to 1 may be taken for something else: refused in any case.
    network = compact(num_in_ch=channels[0], num_out_ch=channels[1], upscale=2)
    with pytest.raises(ValueError, match=r"net.pth: .*(channels|no network)"):
        community(saved(network, tmp_path / "net.pth"))


@pytest.mark.parametrize("purpose", ["FaceSR", "Inpainting"])
def test_networks_for_other_purposes_are_refused(tmp_path, monkeypatch, purpose):
    kind = spandrel.ImageModelDescriptor if purpose == "FaceSR" else spandrel.MaskedImageModelDescriptor
    extra = {"scale": 4} if purpose == "FaceSR" else {}

    def other(self, state):
        network = compact()
        return kind(
            network, network.state_dict(), None, purpose, [], True, True, input_channels=3, output_channels=3, **extra
        )

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", other)
    with pytest.raises(ValueError, match=f"net.pth: a network for {purpose}, not for upscaling"):
        community(saved(compact(), tmp_path / "net.pth"))


def test_without_spandrel_the_extra_is_named(tmp_path, monkeypatch):
    path = saved(compact(), tmp_path / "net.pth")
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(ValueError, match=r"net.pth: .*pip install spandrel"):
        community(path)


def test_load_takes_community_files(tmp_path):
    from img2img.pipeline import load

    for name in ("net.pth", "net.safetensors"):
        pipe = load(saved(compact(), tmp_path / name), precision="fp32")
        assert pipe(photo(9, 14)).shape == (36, 56, 3)
        assert pipe.settings.endswith("float32")
