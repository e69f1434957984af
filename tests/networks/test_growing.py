"""Progressive growing, StyleGAN, BigGAN, R3GAN and the pyramid: what each paper says of its parts."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from img2img.networks import autoencoder, biggan, lapgan, progressive, r3gan, stylegan, voxel
from img2img.networks.equalised import Blur, EqualConv2d, EqualLinear, PixelNorm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_equalised_layers_keep_the_variance():
    """Weights N(0, 1) times gain / sqrt(fan-in): unit variance in, gain^2 out, whatever the width."""
    for inputs in (8, 200):
        layer = EqualConv2d(inputs, 64, 3, gain=1.0)
        inner = layer(torch.randn(8, inputs, 12, 12))[:, :, 1:-1, 1:-1]
        assert inner.std().item() == pytest.approx(1, rel=0.1) and layer.weight.std().item() == pytest.approx(
            1, rel=0.1
        )
        layer = EqualLinear(inputs, 400, gain=2.0, rate=0.01)
        assert layer(torch.randn(200, inputs)).std().item() == pytest.approx(2, rel=0.1)
        assert layer.weight.std().item() == pytest.approx(100, rel=0.1)


def test_equal_rate_is_a_rate():
    """A step of the raw weight moves the effective one by gain * rate / sqrt(inputs) of it."""
    layer = EqualLinear(4, 1, rate=0.01)
    before = layer(torch.eye(4)).flatten()
    with torch.no_grad():
        layer.weight += 1
        layer.bias += 1
    torch.testing.assert_close(layer(torch.eye(4)).flatten() - before, torch.full((4,), 0.01 / 2 + 0.01))


def test_pixel_norm():
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(PixelNorm()(x).square().mean(1), torch.ones(2, 3, 3), rtol=1e-4, atol=1e-4)


def test_blur_is_the_binomial_filter():
    from scipy.ndimage import convolve

    x = torch.randn(1, 2, 6, 7)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = [convolve(plane.numpy(), kernel, mode="nearest") for plane in x[0]]
    np.testing.assert_allclose(Blur()(x)[0].numpy(), expected, atol=1e-6)
    assert not Blur().state_dict()


@pytest.mark.parametrize(
    ("images", "position"),
    [(0, 0), (99, 0), (100, 0), (120, 0.5), (140, 1), (239, 1), (240, 1), (260, 1.5), (280, 2), (10**9, 2)],
)
def test_schedule(images, position):
    """100 stable, 40 fading, twice."""
    growth = progressive.Growth(2, 100, 40)
    assert growth.position == 2, "full-grown unless told otherwise"
    growth.set_progress(images)
    assert growth.position.item() == pytest.approx(position)
    level, weight = growth.level
    assert level - 1 + weight == pytest.approx(position) and 0 < weight <= 1


def test_schedules_without_fading_or_without_rest():
    for stable, fade in ((10, 0), (0, 10), (0, 0)):
        growth = progressive.Growth(3, stable, fade)
        positions = []
        for images in range(50):
            growth.set_progress(images)
            positions.append(growth.position.item())
        assert positions == sorted(positions) and positions[-1] == 3


SIZES = {"size": 16, "channels": 2, "width": 3, "widest": 6, "stable_images": 10, "fade_images": 10}


def test_generator_fades_between_its_levels():
    net = progressive.ProgressiveGenerator(latent=5, **SIZES)
    z, found = torch.randn(2, 5), {}
    for images in (0, 10 + 10, 10 + 5):
        net.set_progress(images)
        found[images] = net(z)
    low, high, between = found.values()
    assert low.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).std(4).max() == 0, "pixels of the 4 x 4 level, repeated"
    torch.testing.assert_close(between, (low + high) / 2)
    with torch.no_grad():
        net.set_progress(10**6)
        assert net(z).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).std(4).min() > 0


def test_discriminator_sees_its_level_only():
    net = progressive.ProgressiveDiscriminator(**SIZES)
    x = torch.randn(4, 2, 16, 16)
    coarse = progressive.enlarge(functional.avg_pool2d(x, 4), 4)
    net.set_progress(0)
    torch.testing.assert_close(net(x), net(coarse))
    net.set_progress(10**6)
    assert not torch.allclose(net(x), net(coarse))


def test_discriminator_fades_continuously():
    net, x = progressive.ProgressiveDiscriminator(group=0, **SIZES), torch.randn(2, 2, 16, 16)
    for images in (10, 20, 30, 40):  # at the ends of every fade
        found = []
        for position in (images - 1e-4, images, images + 1e-4):
            net.growth.set_progress(position)
            found.append(net(x))
        torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found[1], found[2], rtol=1e-3, atol=1e-3)


def test_progress_is_in_the_checkpoint():
    net = progressive.ProgressiveGenerator(latent=5, **SIZES)
    net.set_progress(15)
    other = progressive.ProgressiveGenerator(latent=5, **SIZES)
    other.load_state_dict(net.state_dict())
    z = torch.randn(2, 5)
    assert torch.equal(net(z), other(z))


@pytest.fixture
def style():
    return stylegan.StyleGANGenerator(latent=6, styles=5, depth=2, width=4, widest=8, size=16, mixing=0.0)


def test_adain_sets_mean_and_deviation(style):
    layer, w = style.styles[1].eval(), torch.randn(3, 5)
    found = layer(torch.randn(3, 8, 4, 4) * 5, w)
    gain, bias = layer.affine(w).chunk(2, 1)
    torch.testing.assert_close(found.mean((2, 3)), bias, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.std((2, 3), correction=0), (1 + gain).abs(), atol=1e-3, rtol=1e-3)


def test_truncation_pulls_to_the_mean(style):
    style.train()
    mean = torch.zeros(5)
    for _ in range(3):
        z = torch.randn(64, 6)
        mean = torch.lerp(mean, style.mapping(z).mean(0), 1 - 0.995)
        style(z)
    torch.testing.assert_close(style.mean, mean.detach())
    assert "mean" in style.state_dict()
    style.eval()
    z = torch.randn(4, 6)
    torch.testing.assert_close(style.map(z, truncation=0.0), mean.detach().expand(4, 5))
    torch.testing.assert_close(style.map(z, truncation=0.3), mean + 0.3 * (style.map(z) - mean))
    assert style(z, truncation=0.0).std(0).max() < 1e-5 < style(z).std(0).max()


def test_style_mixing_takes_coarse_from_one_and_fine_from_another(style):
    style.eval()
    a, b = (style.map(torch.randn(2, 6))[:, None].expand(-1, style.layers, -1) for _ in range(2))
    assert style.layers == 6
    mixed = style.synthesise(torch.cat([a[:, :3], b[:, 3:]], 1))
    assert not torch.allclose(mixed, style.synthesise(a)) and not torch.allclose(mixed, style.synthesise(b))
    style.train().mixing = 1.0
    for layer in style.styles:
        nn.init.zeros_(layer.strength)
    torch.manual_seed(3)
    first = style(torch.zeros(2, 6) + 1)
    style.mixing = 0.0
    assert not torch.allclose(first, style(torch.zeros(2, 6) + 1))


def test_noise_is_new_in_training_and_fixed_in_evaluation(style):
    for layer in style.styles:
        nn.init.ones_(layer.strength)
    z = torch.randn(2, 6)
    assert not torch.equal(style(z), style(z))
    style.eval()
    assert torch.equal(style(z), style(z))


def test_biggan_hierarchy_and_shared_embedding():
    net = biggan.BigGANGenerator(latent=20, width=2, size=32, classes=4, embedding=7).eval()
    assert net.piece == 5 and len(net.blocks) == 3
    gains = [m.gain.in_features for m in net.modules() if hasattr(m, "gain") and isinstance(m.gain, nn.Linear)]
    assert gains == [5 + 7] * 6
    z, labels = torch.randn(2, 20), torch.tensor([0, 3])
    for piece in range(4):
        changed = z.clone()
        changed[:, 5 * piece : 5 * piece + 5] += 1
        assert not torch.equal(net(z, labels), net(changed, labels)), piece


def test_r3gan_starts_as_a_linear_map_of_small_gradients():
    """Fix-up: every block is the identity at first; and there is no norm of any kind."""
    block = r3gan.Block(16, 2, 16, blocks=8)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)
    convolutions = [layer for layer in block.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in convolutions] == [1, 2, 1]
    for layer in convolutions[:2]:
        expected = math.sqrt(2 / 1.04) * 8**-0.25 / math.sqrt(layer.weight[0].numel())
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
    for net in (r3gan.R3GANGenerator(width=4, widest=8), r3gan.R3GANDiscriminator(width=4, widest=8)):
        assert not any("Norm" in type(layer).__name__ for layer in net.modules()) and not list(net.buffers())
    z = torch.randn(3, 64)
    net = r3gan.R3GANGenerator(width=4, widest=8)
    torch.testing.assert_close(net(z * 2), net(z) * 2)


def test_r3gan_resampling_is_bilinear():
    x = torch.randn(1, 3, 8, 8)
    halved = functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(r3gan.Resample(3, 3, up=False)(x), halved)
    assert r3gan.Resample(3, 5, up=True)(x).shape == (1, 5, 16, 16)


def test_r3gan_treats_samples_apart():
    net = r3gan.R3GANDiscriminator(width=4, widest=8, size=16)
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


def test_pyramid_adds_up():
    images = torch.randn(2, 3, 32, 32)
    levels = lapgan.split(images, 3)
    assert [drawn.shape[-1] for drawn, _ in levels] == [8, 16, 32]
    rebuilt = levels[0][0]
    for drawn, given in levels[1:]:
        torch.testing.assert_close(given, progressive.enlarge(rebuilt))
        rebuilt = drawn + given
    torch.testing.assert_close(rebuilt, images)
    assert functional.avg_pool2d(levels[2][0], 2).abs().max() < 1e-5, "a residual has nothing that the level below has"


def test_lapgan_levels():
    options = {"width": 4, "smallest": 8, "size": 32, "channels": 3, "classes": 2}
    generator, judge = lapgan.LAPGANGenerator(base=5, **options).eval(), lapgan.LAPGANDiscriminator(**options)
    assert generator.pieces == [5, 256, 1024] and generator.latent == 1285 and generator.levels == judge.levels == 3
    labels = torch.tensor([0, 1])
    levels = lapgan.split(torch.rand(2, 3, 32, 32) * 2 - 1, 3)
    for index, (drawn, given) in enumerate(levels):
        made = generator.level(index, torch.randn(2, generator.pieces[index]), given, labels)
        assert made.shape == drawn.shape
        assert judge.level(index, made, given, labels).shape == (2, 1)
    z = torch.randn(2, generator.latent)
    images = generator.base(z[:, :5], labels)
    for index, piece in enumerate(z[:, 5:].split([256, 1024], 1), 1):
        given = progressive.enlarge(images)
        images = (given + generator.level(index, piece, given, labels)).clamp(-1, 1)
    torch.testing.assert_close(generator(z, labels), images)


@pytest.mark.parametrize("error", ["mse", "l1"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_autoencoder_judges_by_its_error(error, norm):
    net = autoencoder.AutoencoderDiscriminator(hidden=5, width=3, size=16, channels=2, error=error, norm=norm).eval()
    x = torch.rand(3, 2, 16, 16) * 2 - 1
    apart = (net.decoder(net.features(x)) - x).detach().numpy()
    expected = (apart**2 if error == "mse" else np.abs(apart)).mean((1, 2, 3))
    np.testing.assert_allclose(net(x)[:, 0].detach().numpy(), -expected, rtol=1e-4)
    assert net(x).shape == (3, 1) and net.features(x).shape == (3, 5)


def test_autoencoder_learns_to_reconstruct():
    net = autoencoder.AutoencoderDiscriminator(hidden=8, width=8, size=8, channels=1)
    x = torch.sign(torch.randn(4, 1, 1, 1)).expand(4, 1, 8, 8) * torch.linspace(-1, 1, 8)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    before = net(x).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = -net(x).mean()
        loss.backward()
        optimizer.step()
    assert net(x).mean().item() > 0.2 * before


@pytest.mark.parametrize("norm", ["batch", "none", "spectral"])
def test_voxels(norm):
    generator, judge = voxel.VoxelGenerator(latent=4, width=2, size=16), voxel.VoxelDiscriminator(2, 16, norm=norm)
    found = generator(torch.randn(3, generator.latent))
    assert found.shape == (3, 1, 16, 16, 16) and found.abs().max() <= 1
    assert judge(found).shape == (3, 1) and judge.features(found).shape == (3, 2 * 2 * 64)
