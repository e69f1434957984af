import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.special import j1

from img2img.data.degrade import STEPS, Realistic, bicubic, gaussian_kernel, sinc_kernel, unaligned
from img2img.registry import part


def crop(height=64, width=48, channels=3, kind=np.uint8, seed=0):
    """Smooth shapes with an edge: something that a degradation can harm."""
    rng = np.random.default_rng(seed)
    soft = cv2.resize(rng.random((6, 5, channels), np.float32).squeeze(), (width, height)).reshape(height, width, -1)
    soft[:, width // 2 :] = 1 - soft[:, width // 2 :]
    return np.rint(soft * np.iinfo(kind).max).astype(kind)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bicubic_is_pillows(channels, mode, scale):
    image = crop(36, 48, channels)
    wanted = Image.fromarray(image.squeeze(), mode).resize((48 // scale, 36 // scale), Image.Resampling.BICUBIC)
    found = bicubic(image, scale)
    assert found.shape == (36 // scale, 48 // scale, channels)
    assert (found == np.asarray(wanted).reshape(found.shape)).all()


def test_bicubic_in_16_bit():
    image = crop(36, 48, 3, np.uint16)
    found = bicubic(image, 4)
    assert found.dtype == np.uint16
    for channel in range(3):
        wanted = Image.fromarray(image[..., channel].copy()).resize((12, 9), Image.Resampling.BICUBIC)
        assert (found[..., channel] == np.asarray(wanted)).all()
    eight = bicubic(crop(36, 48, 3), 4)
    assert np.abs(found / 257 - eight).max() < 1.5


def test_bicubic_cuts_what_does_not_divide():
    image = crop(39, 50)
    whole = Image.fromarray(image).resize((12, 9), Image.Resampling.BICUBIC, box=(0, 0, 48, 36))
    assert (bicubic(image, 4) == np.asarray(whole)).all()
    assert (bicubic(image[:, ::-1], 4) == bicubic(image[:, ::-1].copy(), 4)).all()  # a view is taken too


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_realistic_shape_and_range(channels, scale):
    degrade = Realistic()
    for seed in range(8):
        found = degrade(crop(49, 62, channels), scale, np.random.default_rng(seed))
        assert found.shape == (49 // scale, 62 // scale, channels)
        assert found.dtype == np.uint8


def test_realistic_depends_on_the_seed_alone():
    image = crop()
    kept = image.copy()
    first = [Realistic()(image, 2, np.random.default_rng(seed)) for seed in range(12)]
    np.random.seed(3)  # the global generator plays no part
    degrade = Realistic()
    again = [degrade(image, 2, np.random.default_rng(seed)) for seed in reversed(range(12))][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len({found.tobytes() for found in first}) == 12
    assert (image == kept).all()


def test_realistic_order():
    degrade = Realistic()
    orders = [degrade.order(np.random.default_rng(seed)) for seed in range(200)]
    for order in orders:
        assert sorted(order[:4]) == ["blur", "jpeg", "noise", "resize"]
        assert sorted(order[4:7]) == ["blur_2", "noise_2", "resize_2"]
        assert sorted(order[7:]) == ["final", "jpeg_2"]
    assert len({order[:4] for order in orders}) == 24
    assert len({order[4:7] for order in orders}) == 6
    assert {order[-1] for order in orders} == {"final", "jpeg_2"}


def test_realistic_runs_the_steps_in_the_order_drawn(monkeypatch):
    for seed in range(5):
        ran = []
        with monkeypatch.context() as patch:
            for name, step in list(STEPS.items()):
                patch.setitem(STEPS, name, lambda *args, n=name, s=step, r=ran: (r.append(n + args[2]), s(*args))[1])
            Realistic()(crop(), 2, np.random.default_rng(seed))
        assert tuple(ran) == Realistic().order(np.random.default_rng(seed))


def test_realistic_with_everything_off_is_a_plain_reduction():
    off = {"blur": (0.0, 0.0), "blur_2": (0.0, 0.0), "sinc": 0.0, "final_sinc": 0.0, "gaussian": 1.0}
    off |= {"noise": (0.0, 0.0), "noise_2": (0.0, 0.0), "jpeg": (100.0, 100.0), "jpeg_2": (100.0, 100.0)}
    off |= {"resize_chances": (0.0, 0.0, 1.0), "resize_chances_2": (0.0, 0.0, 1.0)}
    # Grey, since JPEG coarsens colour at any quality, and so smooth that all filters agree.
    image = cv2.GaussianBlur(crop(channels=1), (0, 0), 3)[..., None]
    for seed in range(4):
        found = Realistic(**off)(image, 2, np.random.default_rng(seed)).astype(int)
        assert np.abs(found - bicubic(image, 2)).mean() < 2


@pytest.mark.parametrize(
    "what", [{"noise": (60.0, 60.0)}, {"blur": (3.0, 3.0)}, {"jpeg": (5.0, 5.0), "jpeg_2": (5.0, 5.0)}]
)
def test_stronger_options_harm_more(what):
    image = crop(96, 96)
    mild = {"noise": (0.0, 0.0), "noise_2": (0.0, 0.0), "gaussian": 1.0, "blur": (0.1, 0.1), "blur_2": (0.1, 0.1)}
    mild |= {"jpeg": (95.0, 95.0), "jpeg_2": (95.0, 95.0), "sinc": 0.0, "final_sinc": 0.0}
    mild |= {"resize_chances": (0.0, 0.0, 1.0), "resize_chances_2": (0.0, 0.0, 1.0)}
    clean = bicubic(image, 2).astype(int)
    harm = []
    for options in (mild, mild | what):
        found = [Realistic(**options)(image, 2, np.random.default_rng(seed)) for seed in range(6)]
        harm.append(np.mean([np.abs(degraded - clean).mean() for degraded in found]))
    assert harm[1] > 1.3 * harm[0]


def test_noise_can_be_grey():
    image = np.full((32, 32, 3), 128, np.uint8)
    for name, share in (("normal", 1.0), ("shot", 0.0)):
        options = Realistic(grey=1.0, gaussian=share).options
        noisy = STEPS["noise"](image / np.float32(255), options, "", (), (), np.random.default_rng(0))
        assert np.ptp(noisy - noisy.mean(axis=(0, 1)), axis=2).max() < 1e-5, name
        assert noisy.std() > 1e-3


def test_gaussian_kernel():
    kernel = gaussian_kernel(21, 2.0, 2.0)
    assert np.allclose(kernel, np.outer(cv2.getGaussianKernel(21, 2.0), cv2.getGaussianKernel(21, 2.0)), atol=1e-6)
    wide = gaussian_kernel(21, 3.0, 1.0)
    assert np.allclose(gaussian_kernel(21, 3.0, 1.0, np.pi / 2), wide.T, atol=1e-6)
    assert wide[10, 14] > wide[14, 10]
    assert gaussian_kernel(7, 0.0, 0.0)[3, 3] == 1


def test_sinc_kernel_is_the_papers():
    y, x = np.mgrid[:21, :21] - 10
    radius = np.hypot(x, y)
    with np.errstate(invalid="ignore"):
        wanted = np.where(radius > 0, 2.0 * j1(2.0 * radius) / (2 * np.pi * radius), 2.0**2 / (4 * np.pi))
    assert np.allclose(sinc_kernel(21, 2.0), wanted / wanted.sum(), atol=1e-7)
    assert sinc_kernel(21, 2.0).min() < 0  # it rings


@pytest.mark.parametrize(
    ("image", "scale"),
    [
        (np.zeros((8, 8), np.uint8), 2),
        (np.zeros((8, 8, 5), np.uint8), 2),
        (np.zeros((8, 8, 3), np.float32), 2),
        (np.zeros((3, 8, 3), np.uint8), 4),
        (np.zeros((8, 8, 3), np.uint8), 0),
        (np.zeros((8, 8, 3), np.uint8), 1.5),
        ([[1]], 2),
    ],
)
def test_wrong_input(image, scale):
    for degrade in (bicubic, Realistic(), unaligned):
        with pytest.raises(ValueError, match=r"a degradation takes|cannot reduce"):
            degrade(image, scale, np.random.default_rng(0))


@pytest.mark.parametrize(
    "options",
    [{"blur": (3.0, 1.0)}, {"sinc": 1.5}, {"jpeg": (0.0, 90.0)}, {"resize": (1.1, 1.5)}]
    + [{"resize_chances": (0.5, 0.2, 0.1)}, {"noise": (1.0,)}, {"noise": (float("nan"), 1.0)}],
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match=f"degradation realistic: {next(iter(options))} = .*; expected"):
        Realistic(**options)


def test_unaligned():
    """A turn by SciPy's means, a shift by the centre of mass, noise by its spread; nothing at all is bicubic."""
    y, x = np.mgrid[:64, :64] - 31.5
    blob = np.rint(200 * np.exp(-((x - 8) ** 2 + y**2) / 40)).astype(np.uint8)[..., None]
    still = {"turn": 0, "move": 0, "zoom": 0, "noise": 0}
    rng = np.random.default_rng
    assert np.array_equal(unaligned(blob, 4, rng(0), **still), bicubic(blob, 4))

    def centre(pixels):
        weights = pixels[..., 0].astype(float)
        return np.array(ndimage.center_of_mass(weights)) - (np.array(weights.shape) - 1) / 2

    seen = [centre(unaligned(blob, 1, rng(seed), **still | {"turn": 90})) for seed in range(20)]
    angles = [np.degrees(np.arctan2(*place)) for place in seen]
    assert np.allclose(np.hypot(*np.transpose(seen)), 8, atol=0.1) and min(angles) < -60 and max(angles) > 60
    moved = np.array([centre(unaligned(blob, 1, rng(seed), **still | {"move": 0.1})) for seed in range(20)]) - (0, 8)
    assert 5 < np.abs(moved).max() <= 6.5 and (moved < 0).any(0).all() and (moved > 0).any(0).all()
    far = [centre(unaligned(blob, 1, rng(seed), **still | {"zoom": 0.2}))[1] / 8 for seed in range(20)]
    assert 0.79 < min(far) < 0.9 and 1.1 < max(far) < 1.21
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert unaligned(grey, 2, rng(0), noise=10).std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(unaligned(blob, 8, rng(3)), unaligned(blob, 8, rng(3)))
    with pytest.raises(ValueError, match="degradation unaligned: turn 200"):
        unaligned(blob, 8, rng(0), turn=200)


def test_recipes_name_them():
    assert part("degradation", {"type": "bicubic"}) is bicubic
    built = part("degradation", {"type": "realistic", "blur": [0.2, 1.0], "sinc": 0})
    assert built.options["blur"] == (0.2, 1.0)
    with pytest.raises(ValueError, match="did you mean 'noise'"):
        part("degradation", {"type": "realistic", "nois": [1, 2]})
