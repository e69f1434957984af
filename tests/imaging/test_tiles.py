import contextlib
import warnings

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional

from img2img.imaging import tiles
from img2img.networks.norms import InstanceNorm, Statistics, gathering
from img2img.networks.resnet import ResNet
from img2img.networks.unet import UNet


def convolutions(scale, *kernels, dilation=1, channels=3, width=6):
    """A random network whose receptive field is known: sum of kernel // 2 * dilation."""
    torch.manual_seed(0)
    layers, wide = [], channels
    for kernel in kernels:
        layers += [nn.Conv2d(wide, width, kernel, padding=kernel // 2 * dilation, dilation=dilation), nn.ReLU()]
        wide = width
    layers += [nn.Conv2d(wide, channels * scale**2, 1), nn.PixelShuffle(scale), nn.Sigmoid()]
    return nn.Sequential(*layers).eval()


class Nearest(nn.Module):
    """Repeats pixels; everything about it is known exactly."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, values):
        return functional.interpolate(values, scale_factor=self.scale, mode="nearest")


class Global(nn.Module):
    def forward(self, values):
        return values - values.mean((2, 3), keepdim=True)


class Down(nn.Module):
    """Halves and doubles again: sides must be even."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 8, 4, 2, 1), nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def forward(self, values):
        assert values.shape[2] % 2 == 0 and values.shape[3] % 2 == 0
        return torch.sigmoid(self.up(self.down(values)))


def photo(height, width, channels=3, kind=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, (height, width, channels), kind, endpoint=True)


def whole_and_tiled(network, image, scale, margin, tile, multiple=1):
    out = torch.full((*image.shape[:2], image.shape[2] * scale, image.shape[3] * scale), torch.nan)

    def emit(top, left, part):
        area = out[..., top : top + part.shape[2], left : left + part.shape[3]]
        assert area.shape == part.shape and area.isnan().all()  # inside, and never twice
        area.copy_(part)

    with torch.no_grad():
        tiles.tiled(network, image, emit, scale=scale, margin=margin, tile=tile, multiple=multiple)
        return network(image), out


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width", "tile"), [(37, 53, 16), (64, 17, (9, 40)), (33, 33, 32), (5, 90, 11)])
def test_tiles_equal_the_whole_image(scale, height, width, tile):
    network = convolutions(scale, 3, 5, 3)
    image = torch.rand(1, 3, height, width)
    whole, out = whole_and_tiled(network, image, scale, tiles.margin_of(network, 3, scale), tile)
    assert (whole - out).abs().max() <= 1e-5


def test_a_margin_too_small_is_seen():
    network = convolutions(2, 5, 5)
    whole, out = whole_and_tiled(network, torch.rand(1, 3, 40, 40), 2, 3, 16)
    assert (whole - out).abs().max() > 1e-5


@pytest.mark.parametrize(("height", "width"), [(48, 66), (34, 130)])
def test_tiles_of_a_network_that_goes_down_and_up(height, width):
    network = Down().eval()
    margin = tiles.margin_of(network, 3, 1, multiple=2)
    assert margin % 2 == 0 and margin <= 4
    whole, out = whole_and_tiled(network, torch.rand(1, 3, height, width), 1, margin, 15, multiple=2)
    assert (whole - out).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("network", "scale", "radius"),
    [
        (convolutions(1, 1), 1, 0),
        (convolutions(1, 3), 1, 1),
        (convolutions(4, 3, 3, 5), 4, 4),
        (convolutions(2, 5, 5, dilation=3), 2, 12),
        (convolutions(1, *[7] * 16), 1, 48),  # the first probe is too small for it
        (Nearest(3), 3, 0),
    ],
)
def test_margin_is_the_radius(network, scale, radius):
    assert tiles.margin_of(network, 3, scale) == radius


def test_margin_counts_weights_that_are_zero_now():
    network = nn.Sequential(nn.Conv2d(3, 3, 7, padding=3))
    nn.init.zeros_(network[0].weight)
    assert tiles.margin_of(network) == 3


def test_margin_sees_through_networks_that_hide_nan():
    network = convolutions(1, 5, 3)
    assert tiles.margin_of(nn.Sequential(network, Hide())) == 3


class Hide(nn.Module):
    def forward(self, values):
        return values.nan_to_num()


def test_margin_is_one_sided_too():
    class Shift(nn.Module):
        def forward(self, values):
            return functional.pad(values, (5, 0))[..., :-5]

    assert tiles.margin_of(Shift()) == 5


def test_global_networks_have_no_margin():
    assert tiles.margin_of(Global()) is None
    assert tiles.margin_of(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.InstanceNorm2d(3))) is None
    assert tiles.margin_of(convolutions(1, *[7] * 8), limit=20) is None


@pytest.fixture(scope="module")
def translated():
    """Photos through a random ResNet with instance norms: whole, by tiles' own statistics, and by shared ones.

    Its kernels are positive: it passes brightness on, as trained ones do. Without that a random network gives noise.
    """
    torch.manual_seed(0)
    network = ResNet(width=4, blocks=6).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.abs_()
    found = []
    for name in ("astronaut", "coffee"):
        image = torch.from_numpy(getattr(data, name)()[:288, :288].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with pytest.MonkeyPatch.context() as patch:
            whole, shared = whole_and_tiled(network, image, 1, network.margin, 96, multiple=4)
            patch.setattr(tiles, "frozen", lambda known: contextlib.nullcontext())
            found.append((whole, whole_and_tiled(network, image, 1, network.margin, 96, multiple=4)[1], shared))
    return found


def seam(image, tile=96):
    """How large the mean step across a tile's edge is against the steps across lines elsewhere."""
    at, elsewhere = [], []
    for turned in (image, image.transpose(2, 3)):
        steps = (turned[..., 1:] - turned[..., :-1])[0].unfold(1, tile, tile).mean(3)
        for line, step in enumerate(steps.square().mean((0, 1)), 1):
            (elsewhere if line % tile else at).append(float(step))
    return (np.mean(at) / np.mean(elsewhere)) ** 0.5


def test_shared_statistics_leave_no_seams(translated):
    for whole, own, shared in translated:
        assert seam(own) > 3 and seam(own - whole) > 5
        assert seam(shared) < 1.1 * max(seam(whole), 1) and seam(shared - whole) < 1.1


def test_shared_statistics_are_nearly_the_whole_images(translated):
    for whole, own, shared in translated:
        error, without = ((found - whole).abs().mean() / whole.std() for found in (shared, own))
        assert error < 0.1 and error < 1.05 * without


@pytest.mark.parametrize("network", [ResNet(width=4, blocks=2), UNet(width=2, depth=3, size=64, norm="instance")])
def test_tiles_of_given_statistics_equal_the_image_of_these(network, monkeypatch):
    """Whatever was gathered: all tiles are parts of one image."""
    network, known = network.eval().requires_grad_(False), Statistics()
    image = torch.rand(1, 3, 144, 96)
    with gathering(known, 1):
        whole = network(image)
    monkeypatch.setattr(tiles, "_statistics", lambda *given: known)
    once, out = whole_and_tiled(network, image, 1, network.margin, 32, multiple=network.multiple)
    assert (out - whole).abs().max() <= 1e-5 and (once - whole).abs().max() <= 1e-5


class Pointwise(nn.Module):
    """One norm over single pixels: gathered statistics are exact, where every pixel counts once."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv2d(channels, 8, 1), InstanceNorm(), nn.Conv2d(8, channels, 1)
        self.eval().requires_grad_(False)

    def forward(self, values):
        return torch.sigmoid(self.last(self.norm(self.first(values)).relu()))


@pytest.mark.parametrize("own", [1, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("tile", [32, (64, 32), 90])
def test_apply_shares_the_statistics_of_each_channel_and_of_alpha(channels, own, tile):
    pixels = photo(64, 96, channels)
    pixels[:32] //= 3  # so that tiles differ
    if channels == 4:
        pixels[..., 3] = np.maximum(pixels[..., 3], 100)
    once = tiles.apply(Pointwise(own), pixels, scale=1, margin=0, channels=own)
    cut = tiles.apply(Pointwise(own), pixels, scale=1, margin=0, channels=own, tile=tile)
    assert np.abs(once.astype(int) - cut).max() <= 1


def test_statistics_of_a_batch_of_images_stay_apart():
    image = torch.rand(2, 3, 64, 64) * torch.tensor([0.2, 1.0])[:, None, None, None]
    whole, out = whole_and_tiled(Pointwise(3), image, 1, 0, 32)
    assert (whole - out).abs().max() <= 1e-5


@pytest.mark.parametrize("most", [64 * 64, 40 * 40])
def test_out_of_memory_while_gathering_takes_fewer_patches(most):
    class Batch(Greedy):
        def __call__(self, values):
            if len(values) * values.shape[2] * values.shape[3] > self.most:
                self.failures += 1
                raise self.error
            return self.network(values)

    image = torch.rand(1, 3, 128, 128)
    image[..., :40] *= 0.3
    out = torch.full_like(image, torch.nan)

    def emit(top, left, part):
        out[..., top : top + part.shape[2], left : left + part.shape[3]] = part

    greedy = Batch(Pointwise(3), most, MemoryError())
    tiles.tiled(greedy, image, emit, scale=1, margin=0)
    assert (Pointwise(3)(image) - out).abs().max() <= 1e-5 and greedy.failures
    with pytest.raises(tiles.TooLittleMemory, match="does not fit"):
        tiles.tiled(Batch(Pointwise(3), 30 * 30, MemoryError()), image, emit, scale=1, margin=0, tile=8)


def test_networks_without_instance_norms_run_once_a_tile():
    calls = []

    def network(values):
        calls.append(values.shape)
        return values

    tiles.tiled(network, torch.rand(1, 3, 64, 64), lambda *_: None, scale=1, margin=0, tile=32)
    assert len(calls) == 4


def test_margin_within_a_tolerance():
    network = nn.Sequential(*[Residual() for _ in range(30)])
    margins = [tiles.margin_of(network, tolerance=tolerance) for tolerance in (1e-2, 1e-4, 1e-6)]
    assert tiles.margin_of(network) == 30 and 0 < margins[0] < margins[1] < margins[2] < 30
    whole, out = whole_and_tiled(network, torch.rand(1, 3, 90, 80), 1, margins[2], 20)
    assert (whole - out).abs().max() <= 1e-5 < whole.std()
    assert tiles.margin_of(Global(), tolerance=1e-5) is None
    assert tiles.margin_of(Nearest(2), 3, 2, tolerance=1e-5) == 0
    assert tiles.margin_of(Down(), multiple=2, tolerance=1e-7) == tiles.margin_of(Down(), multiple=2)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, values):
        return 0.8 * values + 0.2 * self.layer(values)


def test_margin_leaves_the_network_as_it_was():
    network = convolutions(1, 3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tiles.margin_of(network)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert next(network.parameters()).dtype == torch.float32


class Greedy:
    """Fails on more than so many pixels, as PyTorch does when memory runs out."""

    def __init__(self, network, most, error):
        self.network, self.most, self.error, self.failures = network, most, error, 0

    def __call__(self, values):
        if values.shape[2] * values.shape[3] > self.most:
            self.failures += 1
            raise self.error
        return self.network(values)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("tile", [None, 100])
def test_out_of_memory_halves_the_tile_and_goes_on(error, tile):
    network = convolutions(2, 3, 3)
    greedy = Greedy(network, 40 * 40, error)
    out = torch.full((1, 3, 400, 260), torch.nan)
    image = torch.rand(1, 3, 200, 130)

    def emit(top, left, part):
        out[..., top : top + part.shape[2], left : left + part.shape[3]] = part

    with torch.no_grad():
        tiles.tiled(greedy, image, emit, scale=2, margin=2, tile=tile)
        assert (network(image) - out).abs().max() <= 1e-5
    assert 1 <= greedy.failures <= 4


def test_out_of_memory_for_the_smallest_tile_is_one_clear_line():
    greedy = Greedy(Nearest(1), 100, MemoryError())
    with pytest.raises(tiles.TooLittleMemory, match="^out of memory: the smallest tile .* use a") as caught:
        tiles.tiled(greedy, torch.rand(1, 3, 200, 200), lambda *_: None, scale=1, margin=1, tile=64)
    assert "\n" not in str(caught.value)
    with pytest.raises(tiles.TooLittleMemory, match="whole image"):
        tiles.tiled(greedy, torch.rand(1, 3, 200, 200), lambda *_: None, scale=1, margin=None, tile=64)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="size mismatch"):
        tiles.tiled(
            Greedy(Nearest(1), 0, RuntimeError("size mismatch")), torch.rand(1, 3, 99, 99), print, scale=1, margin=1
        )


def test_a_wrong_scale_is_told():
    with pytest.raises(ValueError, match="instead of"):
        tiles.tiled(Nearest(2), torch.rand(1, 3, 9, 9), lambda *_: None, scale=3, margin=0)


def test_activation_bytes_counts_living_tensors():
    def network(values):
        first = values.repeat(1, 10, 1, 1)  # 30 channels
        second = first + 1  # 60 alive
        del first
        return second[:, :3] * 2  # 30 and 3

    # 3 of the input are not made by the network; slices share storage
    assert tiles.activation_bytes(network) == pytest.approx(60 * 4, rel=0.06)
    half = tiles.activation_bytes(network, dtype=torch.bfloat16)
    assert half == pytest.approx(60 * 2, rel=0.06)


@pytest.mark.parametrize("margin", [0, 10])
@pytest.mark.parametrize(("height", "width"), [(5000, 5000), (20, 30_000), (30_000, 20)])
def test_chosen_tiles_stay_within_the_budget(height, width, margin):
    budget, each = 200 * 2**20, 2000.0
    high, wide = tiles.choose_tile(height, width, margin=margin, bytes_per_pixel=each, budget=budget)
    used = (min(high + 2 * margin, height)) * (min(wide + 2 * margin, width)) * each
    assert 0.4 * budget < used <= budget
    assert high <= height and wide <= width


def test_a_margin_too_wide_for_the_usual_budget_takes_more_memory(monkeypatch):
    monkeypatch.setattr(tiles.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 24 * 2**30}))
    high, _ = tiles.choose_tile(5000, 5000, margin=349, bytes_per_pixel=8192)
    assert 200 < high < 400
    high, _ = tiles.choose_tile(5000, 5000, margin=20, bytes_per_pixel=8192)
    assert (high + 40) ** 2 * 8192 <= tiles.CPU_BUDGET


def test_chosen_tile_of_small_images_and_of_global_networks_is_the_whole():
    assert tiles.choose_tile(100, 100, margin=3, bytes_per_pixel=100, budget=10**9) is None
    assert tiles.choose_tile(10**5, 10**5, margin=None, bytes_per_pixel=100, budget=10**6) is None
    assert tiles.choose_tile(1000, 1000, margin=50, bytes_per_pixel=1e6, budget=10**6) == (32, 32)
    assert tiles.choose_tile(10**4, 10**4, margin=3, bytes_per_pixel=1000) is not None  # from this machine's memory
    high, wide = tiles.choose_tile(5000, 5000, margin=3, bytes_per_pixel=1000, budget=10**8, multiple=48)
    assert high % 48 == wide % 48 == 0


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("own", [1, 3])
def test_apply_keeps_depth_and_channels(kind, channels, own):
    pixels = photo(13, 21, channels, kind)
    if channels in (2, 4):
        pixels[:, :, -1] = np.iinfo(kind).max
    out = tiles.apply(Nearest(2), pixels, scale=2, margin=0, channels=own, tile=7)
    assert out.dtype == kind
    assert np.array_equal(out, pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_apply_with_alpha_gives_back_colour_and_alpha(kind, channels):
    pixels = photo(13, 21, channels, kind)
    top = np.iinfo(kind).max
    pixels[:, :, -1] = np.maximum(pixels[:, :, -1], top // 8)
    out = tiles.apply(Nearest(2), pixels, scale=2, margin=0, tile=8).astype(int)
    wanted = pixels.repeat(2, 0).repeat(2, 1).astype(int)
    assert np.array_equal(out[..., -1], wanted[..., -1])
    assert np.abs(out - wanted).max() <= (0 if kind == np.uint8 else 1)


class Smooth(nn.Module):
    """Bilinear enlargement: the simplest upscaler that mixes neighbours."""

    def forward(self, values):
        return functional.interpolate(values, scale_factor=4, mode="bilinear")


def test_invisible_colours_leave_no_fringes():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[..., 1] = 255  # invisible green around
    pixels[10:30, 10:30] = (255, 0, 0, 255)
    out = tiles.apply(Smooth(), pixels, scale=4, margin=1, tile=16).astype(int)
    seen = out[..., 3] > 0
    assert seen.sum() > 80 * 80 and (out[..., 3] == 255).sum() > 70 * 70
    assert (out[seen][:, 0] >= 254).all() and (out[seen][:, 1] == 0).all()
    plain = Smooth()(torch.from_numpy(pixels[..., :3]).permute(2, 0, 1)[None].float())
    assert (plain[0, 1].numpy()[seen] > 20).any()  # what happens without premultiplication


def test_alpha_stays_flat_where_it_was():
    class Wrong(nn.Module):
        def forward(self, values):
            return functional.interpolate(values * 0.9 + 0.03, scale_factor=2, mode="nearest")

    pixels = photo(20, 20, 4)
    pixels[..., 3] = 255
    pixels[:8, :8, 3] = 0
    out = tiles.apply(Wrong(), pixels, scale=2, margin=0, tile=10)
    assert (out[:14, :14, 3] == 0).all() and (out[20:, 20:, 3] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(37, 29), (64, 16)])
def test_apply_in_tiles_equals_apply_at_once(channels, height, width):
    network = convolutions(2, 3, 3, 3)
    pixels = photo(height, width, channels, np.uint16)
    if channels == 4:  # next to zero alpha the colour is noise, and is not looked at
        pixels[..., 3] = np.maximum(pixels[..., 3], 20_000)
    once = tiles.apply(network, pixels, scale=2, margin=3)
    cut = tiles.apply(network, pixels, scale=2, margin=3, tile=10)
    assert np.abs(once.astype(int) - cut).max() <= 2


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_apply_agrees_with_the_network_itself(kind):
    network = convolutions(2, 3, 5)
    pixels = photo(30, 40, 3, kind)
    top = np.iinfo(kind).max
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels.astype(np.float32) / top).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    out = tiles.apply(network, pixels, scale=2, margin=3, tile=16)
    assert np.abs(out - wanted.numpy().astype(np.float64) * top).max() < 0.6


def test_apply_in_the_networks_own_range():
    class Signed(nn.Module):
        def forward(self, values):
            assert values.min() < -0.9 and values.max() > 0.9
            return -values

    pixels = photo(20, 20)
    assert np.array_equal(tiles.apply(Signed(), pixels, scale=1, margin=0, low=-1, high=1), 255 - pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (15, 2), (3, 30_000), (30_000, 1)])
def test_apply_to_dots_and_strips(height, width):
    pixels = photo(height, width)
    tile = tiles.choose_tile(height, width, margin=3, bytes_per_pixel=500, budget=2 * 10**7)
    out = tiles.apply(convolutions(4, 3, 5), pixels, scale=4, margin=3, tile=tile)
    assert out.shape == (height * 4, width * 4, 3)
    same = tiles.apply(Nearest(4), pixels, scale=4, margin=0, tile=tile)
    assert np.array_equal(same, pixels.repeat(4, 0).repeat(4, 1))


def test_apply_pads_to_what_the_network_needs():
    pixels = photo(21, 35)
    out = tiles.apply(Down().eval(), pixels, scale=1, margin=4, tile=12, multiple=2)
    assert out.shape == pixels.shape
    with torch.no_grad():
        padded = np.pad(pixels, ((0, 1), (0, 1), (0, 0)), mode="reflect")
        whole = Down()(torch.from_numpy(padded.astype(np.float32) / 255).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert np.abs(out - whole.numpy()[:21, :35] * 255).max() < 0.6


def test_apply_runs_in_bf16_and_counts_pixels():
    done = []
    kinds = set()

    def network(values):
        kinds.add(values.dtype)
        return functional.interpolate(values, scale_factor=2)

    pixels = photo(50, 40)
    out = tiles.apply(network, pixels, scale=2, margin=0, tile=20, dtype=torch.bfloat16, advance=done.append)
    assert kinds == {torch.bfloat16} and sum(done) == 100 * 80 and len(done) == 6
    assert np.abs(out.astype(int) - pixels.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_apply_takes_arrays_that_cannot_be_written():
    pixels = photo(20, 20)[::-1]
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = tiles.apply(Nearest(1), pixels, scale=1, margin=0)
    assert np.array_equal(out, pixels)


def test_output_that_is_not_finite_is_told():
    with pytest.raises(ValueError, match="not finite"):
        tiles.apply(lambda values: values * torch.nan, photo(20, 20), scale=1, margin=0)
