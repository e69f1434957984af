"""What all generators and discriminators of images keep: shapes, ranges, labels, gradients, small widths."""

import pytest
import torch
from torch import nn

from img2img.registry import options, part

FAMILIES = ("biggan", "dcgan", "lapgan", "mlp", "progressive", "r3gan", "resnet_gan", "stylegan")
GENERATORS = [f"{name}_generator" for name in FAMILIES]
DISCRIMINATORS = [f"{name}_discriminator" for name in FAMILIES if name not in ("biggan", "stylegan")]
BOUNDED = ("biggan", "dcgan", "lapgan", "mlp", "resnet_gan")


def build(name, **given):
    torch.manual_seed(0)
    known = options("network", name)
    small = {"width": 4, "widest": 8, "latent": 12, "styles": 6, "depth": 2, "embedding": 5, "smallest": 8, "blocks": 1}
    small |= {"mapping": 2} | given
    return part("network", {"type": name} | {key: value for key, value in small.items() if key in known})


def smallest(name, size):
    return {"smallest": 14 if size == 28 else 8} if name.startswith("lapgan") else {}


def used(net):
    """Parameters without the images of smaller levels, which rest when a growing network is full-grown."""
    rest = tuple(f"images.{level}." for level in range(getattr(net, "doublings", 0)))
    return [(key, p) for key, p in net.named_parameters() if not key.startswith(rest)]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize("name", GENERATORS)
def test_generator(name, size, channels, classes):
    net = build(name, size=size, channels=channels, classes=classes, **smallest(name, size))
    labels = torch.tensor([0, 1, 2]) if classes else None
    z = torch.randn(3, net.latent)
    found = net(z, labels)
    assert found.shape == (3, channels, size, size) and found.isfinite().all()
    if name.removesuffix("_generator") in BOUNDED:
        assert found.abs().max() <= 1
    net.eval()
    with torch.no_grad():
        first = net(z, labels)
        assert torch.equal(first, net(z, labels)), "a latent means one image"
        alone = net(z[:1], None if labels is None else labels[:1])
        torch.testing.assert_close(first[:1], alone, rtol=1e-3, atol=1e-4)
        assert not torch.equal(first, net(z.flip(0), labels))
        if classes:
            assert not torch.equal(first, net(z, labels.flip(0)))
            with pytest.raises(ValueError, match="3 classes"):
                net(z)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator(name, size, channels, classes):
    net = build(name, size=size, channels=channels, classes=classes, norm="none", **smallest(name, size))
    labels = torch.tensor([0, 1, 2]) if classes else None
    x = torch.randn(3, channels, size, size, requires_grad=True)
    logits = net(x, labels)
    assert logits.shape == (3, 1)
    if classes:
        assert not torch.equal(logits, net(x, labels.flip(0)))
    if hasattr(net, "features"):
        assert net.features(x, labels).shape[0] == 3 and net.features(x, labels).dim() == 2
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    gradient.square().sum().backward()  # as R1 asks
    heavy = [p for key, p in used(net) if key.endswith("weight") and p.dim() > 1]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heavy)


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS, "autoencoder_discriminator"])
def test_every_weight_learns(name):
    net = build(name, size=16, channels=3, latent=12, classes=2)
    labels = torch.tensor([0, 1, 1, 0])
    inputs = torch.randn(4, net.latent) if name.endswith("generator") else torch.randn(4, 3, 16, 16)
    net(inputs, labels).square().sum().backward()
    for key, parameter in used(net):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS, "autoencoder_discriminator"])
def test_channels_last_is_the_same(name):
    net = build(name, size=16, channels=3).eval()
    inputs = torch.randn(2, net.latent) if name.endswith("generator") else torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = net(inputs)
        net.to(memory_format=torch.channels_last)
        if inputs.dim() == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        torch.testing.assert_close(net(inputs), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet_gan_discriminator", "dcgan_discriminator", "mlp_discriminator"])
def test_spectral_norm_reaches_every_layer(name):
    net = build(name, size=16, channels=3, norm="spectral", classes=3, attention=8)
    for _ in range(60):
        net(torch.randn(2, 3, 16, 16), torch.tensor([0, 1]))
    net.eval()
    count = 0
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel():
            found = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
            assert found == pytest.approx(1, abs=0.05)
            count += 1
    assert count >= 3


@pytest.mark.parametrize("name", ["resnet_gan_generator", "biggan_generator", "resnet_gan_discriminator"])
def test_attention_where_it_is_asked(name):
    from img2img.networks.attention import SelfAttention

    net, sides = build(name, size=32, attention=16, classes=2), []
    for layer in net.modules():
        if isinstance(layer, SelfAttention):
            layer.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    net(torch.randn(2, net.latent) if hasattr(net, "latent") else torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert sides == [16]
    with pytest.raises(ValueError, match="attention = 13"):
        build(name, size=32, attention=13)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "biggan_generator", "size": 32, "latent": 81}, "latent = 81"),
        ({"type": "resnet_gan_generator", "norm": "none", "classes": 3}, "condition = 'norm' needs"),
        ({"type": "lapgan_generator", "size": 32, "smallest": 12}, "smallest = 12"),
        ({"type": "lapgan_discriminator", "size": 32, "smallest": 32}, "smallest = 32"),
        ({"type": "stylegan_generator", "size": 33}, "image size 33"),
        ({"type": "stylegan_generator", "depth": 10**12}, "depth = 1000000000000"),
        ({"type": "r3gan_generator", "blocks": 10**12}, "blocks = 1000000000000"),
        ({"type": "resnet_gan_discriminator", "flat": 10**12}, "flat = 1000000000000"),
        ({"type": "mlp_generator", "mixture": 10**12}, "cannot be built"),
        ({"type": "progressive_generator", "width": 10**9, "widest": 10**9}, "cannot be built"),
    ],
)
def test_options_that_cannot_be(spec, words):
    with pytest.raises(ValueError, match=f"network {spec['type']}: ") as caught:
        part("network", spec)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS, "autoencoder_discriminator"])
@pytest.mark.parametrize("given", [{}, {"classes": 3}, {"attention": 8}, {"minibatch": "std"}], ids=str)
def test_autocast(name, given):
    """No layer trips over two kinds of numbers; a network that is growing does so while it fades, too."""
    if not given.keys() <= options("network", name).keys() or (name, *given.values()) == ("mlp_discriminator", "std"):
        given = {}
    net = build(name, size=16, channels=3, **given)
    labels = torch.tensor([0, 1, 2, 0]) if "classes" in given else None
    for images in (None, 150_000) if hasattr(net, "set_progress") else (None,):
        if images:
            net.set_progress(images)
            assert net.growth.level == (1, 0.5)
        net.zero_grad()
        inputs = torch.randn(4, net.latent) if name.endswith("generator") else torch.randn(4, 3, 16, 16).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            found = net(inputs, labels)
        found.float().square().sum().backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        assert found.isfinite().all() and gradients and all(g.isfinite().all() for g in gradients)
