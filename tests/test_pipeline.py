"""A trained system as a function on images: what goes in comes out, of the same kind."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import img2img
from img2img.data.photos import rgb
from img2img.evaluation import evaluate
from img2img.networks.fast import Fast
from img2img.networks.resnet import ResNet
from img2img.pipeline import FAITHFUL, Pipeline, converted, resample, wanted_size
from img2img.recipe import Recipe


@pytest.fixture(scope="module")
def pipe():
    """Return an upscaler x2 that changes colours and edges, so that a wrong channel or place shows."""
    torch.manual_seed(0)
    net = Fast(width=8, depth=2, scale=2)
    for parameter in net.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    found = Pipeline(net, "test", task="super_resolve", scale=2, channels=3, margin=net.margin)
    return found.to("cpu", "fp32")


@pytest.fixture
def image(smooth):
    return smooth(3, 23, 31)


def test_a_path_gives_a_pillow_image(pipe, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        found = pipe(path)
        assert isinstance(found, Image.Image) and found.mode == "RGB" and found.size == (62, 46)
    assert np.array_equal(np.asarray(found), pipe(image))
    with pytest.raises(ValueError, match=r"none\.png"):
        pipe(tmp_path / "none.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.png"):
        pipe(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("mode", "back"),
    [
        ("RGB", "RGB"),
        ("L", "L"),
        ("RGBA", "RGBA"),
        ("LA", "LA"),
        ("P", "RGB"),
        ("1", "L"),
        ("CMYK", "RGB"),
        ("I;16", "I;16"),
        ("YCbCr", "RGB"),
    ],
)
def test_pillow_modes(mode, back, pipe, image):
    given = Image.fromarray(image)
    if mode == "I;16":
        given = Image.fromarray(np.asarray(given.convert("L")).astype(np.uint16) * 257)
    else:
        given = given.convert(mode)
    before = given.copy()
    found = pipe(given)
    assert found.mode == back and found.size == (62, 46)
    assert given.tobytes() == before.tobytes(), "the image that was given changed"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(channels, kind, pipe, image):
    four = np.dstack([image, image[..., 0] // 2 + 100])
    given = (
        four[..., 0] if channels is None else four[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    )
    given = given.astype(kind) * (257 if kind is np.uint16 else 1)
    before = given.copy()
    found = pipe(given)
    assert found.dtype == kind and found.shape == (46, 62, *(() if channels is None else (channels,)))
    assert np.array_equal(given, before)
    half = pipe((given // 257 if kind is np.uint16 else given).astype(np.uint8)).astype(int)
    assert np.abs(found.astype(int) // (257 if kind is np.uint16 else 1) - half).max() <= 1
    assert np.array_equal(pipe(np.asfortranarray(given)), found)
    assert np.array_equal(pipe(given[::-1][::-1]), found)


@pytest.mark.parametrize("channels", [3, 4])
def test_bgr_is_rgb_with_swapped_channels(channels, pipe, image):
    given = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])[..., :channels]
    order = [2, 1, 0, 3][:channels]
    assert np.array_equal(pipe(given[..., order], channels="bgr")[..., order], pipe(given))
    assert not np.array_equal(pipe(given, channels="bgr"), pipe(given))
    assert np.array_equal(pipe(given[..., 0], channels="bgr"), pipe(given[..., 0]))


def test_tensors(pipe, image):
    given = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255
    found = pipe(given)
    assert found.shape == (3, 46, 62) and found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    assert torch.equal(pipe(given[None])[0], found)
    assert np.abs((found * 255).round().permute(1, 2, 0).numpy() - pipe(image)).max() <= 1
    assert pipe(given.double()).dtype == torch.float64 and pipe(given.half()).dtype == torch.float16
    assert pipe(torch.rand(2, 3, 4, 5)).shape == (2, 3, 8, 10)  # smaller than any tile
    assert pipe(given, scale=3).shape == (3, 69, 93) and pipe(given, size="10x").shape == (3, 7, 10)
    assert (pipe(given, scale=1) - given).abs().mean() < 0.2


def test_lists_give_lists(pipe, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    found = pipe([tmp_path / "a.png", image, [Image.fromarray(image)], torch.rand(3, 4, 4)])
    assert isinstance(found, list) and isinstance(found[0], Image.Image) and found[1].shape == (46, 62, 3)
    assert isinstance(found[2], list) and found[3].shape == (3, 8, 8)
    assert pipe([]) == []


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        b"bytes",
        {"a": 1},
        np.zeros((4, 4)),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int32),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(1, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(0, 3, 4, 4),
        Image.fromarray(np.zeros((4, 4), np.float32)),
        Image.fromarray(np.zeros((4, 4), np.int32)),
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'shape', '')} {getattr(given, 'dtype', '')}",
)
def test_wrong_kinds(given, pipe):
    with pytest.raises(ValueError, match="."):
        pipe(given)
    with pytest.raises(ValueError, match="."):
        pipe([given])


@pytest.mark.parametrize(
    ("low", "high", "match"),
    [
        (0, 255, r"this one is in \[0, 255\]; x / 255 brings it there$"),
        (-1, 1, r"this one is in \[-1, 1\]; \(x \+ 1\) / 2 brings it there$"),
        (-20, 300, r"this one is in \[-20, 300\]$"),
        (0, float("inf"), r"this one is in \[0, inf\]$"),
        (0, float("nan"), "this one holds NaN$"),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_tensors_outside_their_range_are_refused(low, high, match, kind, pipe):
    given = torch.full((3, 4, 4), 0.5, dtype=kind)
    given[0, 0, 0], given[2, 3, 3] = low, high
    with pytest.raises(ValueError, match=match):
        pipe(given)


def test_tensors_that_overshoot_a_little_are_clamped(pipe):
    given = torch.rand(3, 9, 9) * 1.18 - 0.09
    assert given.min() < 0 and given.max() > 1 and torch.equal(pipe(given), pipe(given.clamp(0, 1)))


def test_whole_numbers_are_told_the_mend(pipe):
    with pytest.raises(ValueError, match=r"torch\.uint8; x / 255 makes it so"):
        pipe(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_outputs_too_large_are_refused_before_anything_is_computed(pipe, image, tmp_path, monkeypatch, capsys):
    from img2img.imaging.tree import process

    monkeypatch.setattr("img2img.pipeline.LIMIT", 10_000)
    monkeypatch.setattr("img2img.imaging.tiles.apply", lambda *_, **__: pytest.fail("computed"))
    monkeypatch.setattr(pipe, "_run", lambda *_: pytest.fail("computed"))
    for options, match in (
        ({"size": "200x51"}, "--size 200x51 makes 200 x 51 pixels, more than the limit of 10000"),
        ({"size": "x100"}, "--size x100 makes 135 x 100 pixels, more than the limit"),
        ({"scale": 5}, "--scale 5 makes 155 x 115 pixels, more than the limit"),
    ):
        for given in (image, torch.rand(3, 23, 31)):
            with pytest.raises(ValueError, match=match):
                pipe(given, **options)
    Image.fromarray(image).save(tmp_path / "a.png")
    made = process(tmp_path / "a.png", tmp_path / "out", lambda x: pipe.picture(x, size="500x500"), settings="")
    assert made.failed == 1 and f"{tmp_path}/a.png: --size 500x500 makes 500 x 500 pixels" in capsys.readouterr().err


def test_the_networks_own_scale_has_no_limit(pipe, image, monkeypatch):
    monkeypatch.setattr("img2img.pipeline.LIMIT", 100)
    assert pipe(image).shape == pipe(image, scale=2).shape == (46, 62, 3)


def test_wrong_options(pipe, image):
    with pytest.raises(ValueError, match="neither 'rgb' nor 'bgr'"):
        pipe(image, channels="gbr")
    for scale in (-1, float("nan"), float("inf"), 1000):
        with pytest.raises(ValueError, match="scale"):
            pipe(image, scale=scale)
        with pytest.raises(ValueError, match="scale"):
            pipe(torch.rand(3, 4, 4), scale=scale)
    with pytest.raises(ValueError, match="makes images from images"):
        pipe.sample(2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("100x", (100, 74)), ("x100", (135, 100)), ("100x50", (100, 50)), ("1x", (1, 1)), ("62x46", (62, 46))],
)
def test_sizes(size, expected, pipe, image):
    assert wanted_size(31, 23, 2, size) == expected
    found = pipe(image, size=size)
    assert found.shape == (expected[1], expected[0], 3)
    assert pipe(Image.fromarray(image), size=size).size == expected


@pytest.mark.parametrize(
    "size", ["x", "100", "ax", "0x", "x0", "00x", "-5x", "1.5x", "10x10x", "1e3x", "٣x", "9999999x", " 5x"]
)
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="is none of WIDTHx"):
        wanted_size(10, 10, 2, size)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1, 1.5, 2, 3, 4.2])
def test_other_scales_are_resampled(scale, pipe, image):
    found = pipe(image, scale=scale)
    assert found.shape == (max(1, round(23 * scale)), max(1, round(31 * scale)), 3)
    own = Image.fromarray(pipe(image)).resize((31, 23), Image.Resampling.BOX)
    again = Image.fromarray(found).resize((31, 23), Image.Resampling.BOX)
    if scale >= 1:
        assert np.abs(np.asarray(own, int) - np.asarray(again, int)).mean() < 6


def test_resample_keeps_depth_and_weights_colour_by_alpha():
    pixels = np.zeros((8, 8, 4), np.uint16)
    pixels[:, :4] = [65535, 0, 0, 65535]  # opaque red beside invisible black
    found = resample(pixels, 12, 12)
    assert found.dtype == np.uint16 and found.shape == (12, 12, 4)
    seen = found[..., 3] > 2000
    assert found[seen][:, 0].min() > 65000, "a dark fringe"
    assert resample(pixels, 8, 8) is pixels
    assert resample(pixels[..., :1], 3, 5).shape == (5, 3, 1)


@pytest.mark.parametrize("tile", [0, 7, 8, 16, 1000, None])
def test_tiles_change_nothing(tile, pipe, smooth):
    image = smooth(5, 45, 38)
    whole = pipe(image, tile=0).astype(int)
    assert np.abs(pipe(image, tile=tile).astype(int) - whole).max() <= 1
    deep = image.astype(np.uint16) * 257
    exact = pipe(deep, tile=0).astype(int)
    assert np.abs(pipe(deep, tile=tile).astype(int) - exact).max() <= 2  # of 65535: 1e-5 and rounding


def test_advance_counts_every_output_pixel(pipe, image):
    from img2img.imaging.picture import Picture

    for tile in (0, 8):
        ticks = []
        pipe.picture(Picture(image), tile=tile, advance=ticks.append)
        assert sum(ticks) == 46 * 62


class Shaky(nn.Module):
    """Returns its input, rounded to what numbers near ``loud`` can hold."""

    def __init__(self, loud):
        super().__init__()
        self.loud = nn.Parameter(torch.tensor(float(loud)))

    def forward(self, x):
        return x + self.loud - self.loud


@pytest.mark.parametrize(("loud", "dtype"), [(0, torch.bfloat16), (300, torch.float32)])
def test_bf16_is_chosen_where_it_is_faithful(loud, dtype, monkeypatch):
    monkeypatch.setattr("img2img.engine.native_bf16", lambda device: True)
    found = Pipeline(Shaky(loud), "x", task="super_resolve", scale=1, channels=3, margin=1).to("cpu")
    assert FAITHFUL == 50 and found.dtype is dtype
    assert found.to("cpu", "bf16").dtype is torch.bfloat16  # as asked, faithful or not
    assert found.to("cpu", "fp32").dtype is torch.float32
    monkeypatch.setattr("img2img.engine.native_bf16", lambda device: False)
    assert found.to("cpu").dtype is torch.float32


def test_precision_and_device_that_cannot_be(pipe):
    with pytest.raises(ValueError, match="none of fp32, bf16, fp16"):
        pipe.to("cpu", "int8")
    with pytest.raises(ValueError, match="fp16 on a CPU"):
        pipe.to("cpu", "fp16")
    with pytest.raises(ValueError, match="not available"):
        pipe.to("cuda:77")


def test_settings_tell_weights_and_precision_apart(pipe):
    torch.manual_seed(9)
    other = Pipeline(Fast(8, 2, 2), "test", task="super_resolve", scale=2, channels=3, margin=4).to("cpu", "fp32")
    assert pipe.settings != other.settings
    assert other.settings != other.to("cpu", "bf16").settings


def test_synthesize(trained):
    run = trained["painter"]
    images = img2img.synthesize(run, count=7, seed=3, device="cpu", precision="fp32")
    assert len(images) == 7 and all(image.size == (8, 8) and image.mode == "RGB" for image in images)
    pipe = img2img.load(run, device="cpu", precision="fp32")
    for batch in (1, 2, 3, 64):
        again = pipe.sample(7, seed=3, batch=batch)
        assert all(
            np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1 for a, b in zip(images, again, strict=True)
        )
    first = pipe.sample(3, seed=3)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, pipe.sample(3, seed=3), strict=True))
    assert first[0].tobytes() != pipe.sample(1, seed=4)[0].tobytes()
    assert len({image.tobytes() for image in images}) == 7
    for count in (0, -1):
        with pytest.raises(ValueError, match="count"):
            pipe.sample(count)
    for given in (np.zeros((8, 8, 3), np.uint8), torch.rand(3, 8, 8), images[0], images):
        with pytest.raises(ValueError, match=r"\(task generate\) makes images of noise, .*; \.sample\(\) draws them"):
            pipe(given)


def test_load_and_the_verbs(trained, image):
    run = trained["upscaler"]
    options = {"device": "cpu", "precision": "fp32"}
    big = img2img.upscale(image, model=run, **options)
    assert np.array_equal(big, img2img.load(run, **options)(image)) and big.shape == (46, 62, 3)
    assert img2img.upscale(image, model=run, scale=3, **options).shape == (69, 93, 3)
    turned = img2img.translate(Image.fromarray(image), model=trained["translator"], **options)
    assert turned.size == (31, 23)
    tensor = img2img.load(trained["translator"], **options)(torch.rand(3, 23, 31))
    assert tensor.shape == (3, 23, 31)  # no multiple of the U-Net's 16: padded and cut back
    with pytest.raises(ValueError, match="is no upscaler"):
        img2img.upscale(image, model=trained["translator"], **options)
    with pytest.raises(ValueError, match="is no translator"):
        img2img.translate(image, model=run, **options)
    with pytest.raises(ValueError, match="makes images from images"):
        img2img.synthesize(run, **options)
    with pytest.raises(ValueError, match="did you mean 'wgan_gp'|no weight, file or run folder called 'wgan_gp'"):
        img2img.load("wgan_gp")


def test_evaluate(trained, photos, pairs):
    options = {"device": "cpu", "precision": "fp32", "progress": False}
    found = img2img.evaluate(trained["upscaler"], photos / "validation", metrics="psnr, ssim", **options)
    assert found.keys() == {"psnr", "ssim"} and 5 < found["psnr"] < 60 and -1 <= found["ssim"] <= 1
    assert (photos / "train").is_dir()  # beside it, so that the folder of both stands for what was held out
    assert img2img.evaluate(trained["upscaler"], photos, **options) == {"psnr": found["psnr"]}  # its page's metric
    found = img2img.evaluate(trained["translator"], pairs / "validation", metrics=["l1", "psnr"], **options)
    assert 0 < found["l1"] < 1
    with pytest.raises(ValueError, match="unknown metric 'pnsr'; did you mean 'psnr'"):
        img2img.evaluate(trained["upscaler"], photos / "validation", metrics=["pnsr"], **options)
    with pytest.raises(ValueError, match="no target to compare"):
        img2img.evaluate(trained["painter"], photos / "validation", metrics="psnr", **options)


def test_the_whole_system_is_judged_on_the_pipelines_device(trained, pairs, monkeypatch):
    pipe, seen = img2img.load(trained["translator"], device="cpu"), []
    pipe.device = torch.device("meta")

    def trial(self, batch):
        seen.extend([next(self.parameters()).device.type, batch["input"].device.type])
        raise InterruptedError

    monkeypatch.setattr(type(pipe.system), "trial", trial)
    with pytest.raises(InterruptedError):
        evaluate(pipe, [pairs / "validation"], metrics=["l1"], progress=False)
    assert seen == ["meta", "meta"] and next(pipe.system.parameters()).device.type == "cpu"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_transparent_lies_on_white_as_in_training(dtype, tmp_path):
    top = np.iinfo(dtype).max
    drawing = np.zeros((2, 3, 4), dtype)  # black, of which the first column shows
    drawing[:, 0, 3] = top
    colours, alpha = converted(drawing, 3)
    assert np.array_equal(alpha, drawing[..., 3:]) and colours.dtype == dtype
    assert (colours[:, 0] == 0).all() and (colours[:, 1:] == top).all()
    if dtype == np.uint8:
        Image.fromarray(drawing).save(tmp_path / "x.png")
        assert np.array_equal(colours, rgb(tmp_path / "x.png"))
    assert np.array_equal(converted(drawing, 4)[0], drawing)
    for count in (1, 2, 3):
        whole, alpha = converted(drawing[..., :count], 4)
        assert whole.shape == (2, 3, 4) and alpha is None
        assert (whole[..., 3] == (0 if count == 2 else top)).all()


def test_another_direction_has_other_channels(tmp_path, smooth):
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(smooth(0, 16, 16)).save(tmp_path / side / "x.png")
    shrunk = ["data.size=16", "data.input_channels=1", "networks.generator.width=2", "networks.generator.blocks=1"]
    shrunk += ["networks.discriminator.layers=1", "networks.discriminator.width=2", "train.images=1"]
    options = {"device": "cpu", "doctor": False, "progress": False}
    img2img.train("cyclegan", tmp_path, tmp_path / "run", set=shrunk, **options)
    pipe = img2img.load(tmp_path / "run", device="cpu")
    colours = smooth(1, 16, 16)
    assert pipe(colours).shape == (16, 16, 3)
    back = pipe.ask(direction="ba")(colours)
    assert np.array_equal(back, img2img.load(tmp_path / "run", direction="ba", device="cpu")(colours))


def test_evaluating_a_perfect_upscaler(tmp_path, monkeypatch):
    """On an image that is the same after reduction and repetition, repetition is perfect."""
    Image.fromarray(np.kron(np.full((8, 8, 1), 90, np.uint8), np.ones((2, 2, 3), np.uint8))).save(tmp_path / "a.png")
    page = {"name": "x", "task": "super_resolve", "networks": {"generator": {"type": "fast"}}, "data": {"scale": 2}}
    recipe = Recipe.parse(page | {"fidelity": [{"type": "l1"}]})
    perfect = Pipeline(
        nn.Upsample(scale_factor=2), "x", task="super_resolve", scale=2, channels=3, margin=1, recipe=recipe
    ).to("cpu", "fp32")
    from img2img.evaluation import evaluate

    found = evaluate(perfect, [tmp_path], metrics=["psnr", "ssim", "l1"], progress=False)
    assert found["psnr"] == 60 and found["ssim"] == pytest.approx(1) and found["l1"] == 0


@pytest.mark.parametrize("size", [(40, 50), (41, 51), (5, 7), (1, 1)])
def test_tensors_and_arrays_agree_where_the_network_wants_other_sides(size):
    """Both are made larger by reflection: a network with global statistics shows any difference."""
    torch.manual_seed(0)
    net = ResNet(width=4, blocks=1)
    found = Pipeline(net, "test", task="paired", scale=1, channels=3, span=(-1.0, 1.0), verb="translate")
    found.to("cpu", "fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    as_array = torch.from_numpy(found(pixels)).permute(2, 0, 1)
    assert ((found(tensor) * 255).round() - as_array).abs().max() <= 1


def test_sixteen_bits_are_computed_in_full_where_nobody_chose_a_precision(pipe, monkeypatch):
    """Bf16 has eight bits: a faint gradient would come out in bands."""
    net = Fast(width=8, depth=2, scale=2)
    given = np.linspace(40_000, 41_000, 64).round().astype(np.uint16)[None, :, None].repeat(16, 0)
    monkeypatch.setattr("img2img.engine.choose_precision", lambda *_: torch.bfloat16)
    chosen = Pipeline(net, "test", task="super_resolve", scale=2, channels=3, margin=net.margin)
    assert chosen.dtype is torch.bfloat16 and chosen.automatic
    exact = Pipeline(net, "test", task="super_resolve", scale=2, channels=3, margin=net.margin)
    exact.dtype, exact.network = torch.float32, exact._ready(torch.float32)
    truth, shallow = exact(given).astype(int), (given // 257).astype(np.uint8)
    assert np.array_equal(chosen(given), truth)
    assert np.abs(chosen(shallow).astype(int) - exact(shallow)).max() <= 2
    known = chosen.settings
    forced = chosen.to("cpu", "bf16")
    assert np.abs(forced(given) - truth).max() > 64 and forced.settings != known


@pytest.mark.parametrize("options", [{"scale": 0}, {"scale": 0.0}, {"tile": -1}])
def test_senseless_numbers_are_refused(pipe, image, options):
    with pytest.raises(ValueError, match="scale 0|tile = -1 must be 0"):
        pipe(image, **options)
    if "scale" in options:
        with pytest.raises(ValueError, match="scale 0"):
            pipe(torch.rand(3, 16, 16), **options)
