"""What the discriminator sees: each change against another implementation or a property that it must have."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from img2img.adversarial import augment
from img2img.adversarial.augment import ADA, Augmentations, DiffAugment, InstanceNoise
from img2img.registry import TABLES, part


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", TABLES["augment_critic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_contract(name, channels):
    module = part("augment_critic", {"type": name} | ({"p": 1.0} if name == "ada" else {}))
    x = torch.rand(6, channels, 12, 12, requires_grad=True)
    found = [torch.manual_seed(seed) and module(x) for seed in (1, 1, 2)]
    assert found[0].shape == x.shape and found[0].dtype == x.dtype
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    (gradient,) = torch.autograd.grad(found[0].pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert gradient.abs().sum() > 0 and second.isfinite().all() and second.abs().sum() > 0
    half = module(x.detach().to(torch.bfloat16))
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


def test_instance_noise_fades():
    module, x = InstanceNoise(sigma=0.5, images=100), torch.zeros(1, 1, 200, 200)
    for images, expected in ((0, 0.5), (50, 0.25), (90, 0.05), (100, 0), (10**6, 0)):
        module.set_progress(images)
        assert module(x).std().item() == pytest.approx(expected, rel=0.02)
    module.set_progress(50)
    other = InstanceNoise(sigma=0.5, images=100)
    other.load_state_dict(module.state_dict())
    assert other.sigma == 0.25
    lasting = InstanceNoise(sigma=0.3, images=0)
    lasting.set_progress(10**9)
    assert lasting.sigma == pytest.approx(0.3)
    with pytest.raises(ValueError, match="sigma = -1"):
        InstanceNoise(-1.0)


def test_diffaugment_color_keeps_structure():
    """Brightness, saturation and contrast are affine: the image is a x + b grey + c, seen by least squares."""
    x = torch.rand(5, 3, 8, 8)
    found = DiffAugment(("color",))(x)
    for before, after in zip(x, found, strict=True):
        grey = before.mean(0, keepdim=True).expand(3, -1, -1)
        table = torch.stack([before.flatten(), grey.flatten(), torch.ones(192)], 1)
        solution = torch.linalg.lstsq(table, after.flatten()[:, None]).solution
        torch.testing.assert_close(table @ solution, after.flatten()[:, None], atol=1e-4, rtol=1e-4)
        contrast = solution[0] + solution[1]
        assert 0.5 <= contrast <= 1.5 and 0 <= solution[0] / contrast <= 2


def test_diffaugment_translation_is_a_shift_with_zeros():
    x = torch.rand(40, 2, 16, 16) + 1
    found, shifts = DiffAugment(("translation",))(x), set()
    for before, after in zip(x, found, strict=True):
        padded = functional.pad(before, (2, 2, 2, 2))
        hits = [(r, c) for r in range(5) for c in range(5) if torch.equal(padded[:, r : r + 16, c : c + 16], after)]
        assert len(hits) == 1
        shifts.add(hits[0])
    assert {r for r, _ in shifts} == {c for _, c in shifts} == set(range(5))


def test_diffaugment_cutout_hides_a_square_of_half_the_side():
    x = torch.ones(60, 2, 10, 10)
    found = DiffAugment(("cutout",))(x)
    assert set(found.unique().tolist()) == {0, 1} and torch.equal(found[:, 0], found[:, 1])
    rows, columns = (found[:, 0] == 0).any(2).sum(1), (found[:, 0] == 0).any(1).sum(1)
    assert torch.equal((found[:, 0] == 0).sum((1, 2)), rows * columns), "a rectangle"
    assert rows.max() == 5 and columns.max() == 5 and rows.min() >= 2


def test_sampling_is_torchs_grid_sampling():
    x = torch.randn(3, 2, 7, 9, dtype=torch.float64)
    rows, columns = (
        torch.rand(3, 5, 6, dtype=torch.float64) * 26 - 10,
        torch.rand(3, 5, 6, dtype=torch.float64) * 30 - 10,
    )
    grid = torch.stack([columns / 8 * 2 - 1, rows / 6 * 2 - 1], 3)
    expected = functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=True)
    torch.testing.assert_close(augment.sample(x, rows, columns), expected)


def test_sampling_one_pixel():
    x = torch.randn(2, 3, 1, 1)
    places = torch.rand(2, 1, 1) * 9 - 4
    torch.testing.assert_close(augment.sample(x, places, places), x)


def test_ada_without_probability_changes_nothing():
    x = torch.rand(4, 3, 8, 8)
    assert ADA(p=0.0)(x) is x


def test_ada_flips_exactly():
    x = torch.rand(64, 3, 8, 8)
    found = ADA(p=1.0, policy=("flip",))(x)
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(found, x, strict=True)]
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True)) and 16 < sum(mirrored) < 48


@pytest.mark.parametrize(("change", "expected"), [
    (lambda n: augment._rotate(torch.full((n,), np.pi / 2)), lambda x: [x.rot90(k, (2, 3)) for k in (1, 3)]),
    (lambda n: augment._shift(torch.full((n,), 1.0), torch.full((n,), 0.0)), lambda x: [x.roll(1, 2)]),
    (lambda n: augment._scale(torch.full((n,), 1.0), torch.full((n,), -1.0)), lambda x: [x.flip(3)]),
])  # fmt: skip
def test_matrices(change, expected):
    """The inverse of a change, in pixels from the centre; away from the border, which mirrors."""
    x = torch.rand(2, 1, 7, 7)
    matrix, place = change(2), torch.arange(7) - 3.0
    rows, columns = (
        (across[:, 0] * place[:, None] + across[:, 1] * place + across[:, 2] + 3)
        for across in matrix[:, :2, :, None, None].unbind(1)
    )
    found = augment.sample(x, rows, columns)[..., 1:-1, 1:-1]
    assert any(torch.allclose(found, each[..., 1:-1, 1:-1], atol=1e-5) for each in expected(x))


def test_ada_geometry_moves_constant_images_nowhere():
    x = torch.rand(8, 3, 1, 1).expand(8, 3, 9, 9)
    torch.testing.assert_close(ADA(p=1.0, policy=("geometry",))(x), x)


def test_ada_hue_and_saturation_keep_the_luma():
    """With contrast and brightness at rest, the mean of the channels stays or changes sign."""
    module, x = ADA(p=1.0, policy=("color",)), torch.rand(32, 3, 4, 4)
    found = module(x)
    before, after = x.mean(1).flatten(1), found.mean(1).flatten(1)
    for a, b in zip(before, after, strict=True):
        slope, offset = np.polyfit(a.numpy(), b.numpy(), 1)
        np.testing.assert_allclose(slope * a.numpy() + offset, b.numpy(), atol=1e-4)


def test_ada_probability_is_respected():
    x = torch.rand(4000, 1, 4, 4)
    found = ADA(p=0.3, policy=("color",))(x)
    changed = (found - x).abs().flatten(1).amax(1) > 1e-6
    assert changed.float().mean().item() == pytest.approx(1 - 0.7**2, abs=0.03), "brightness or contrast"


def test_ada_steers_p():
    """By 256 / images after every 256 images, however large the batches are."""
    module = ADA(target=0.6, images=2560)
    sure, torn = torch.ones(128, 1), torch.tensor([1.0, -1] * 128)[:, None]
    for expected in (0.0, 0.1, 0.1, 0.2):
        module.update(sure)
        assert module.p.item() == pytest.approx(expected)
    module.update(torn)
    assert module.p.item() == pytest.approx(0.1)
    for _ in range(40):
        module.update(sure)
    assert module.p == 1
    assert set(module.state_dict()) == {"p", "signs"}
    module.eval()
    for _ in range(2):
        module.update(torn)
    assert module.p == 1


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_ada_reaches_its_target_with_any_batch(batch):
    """A discriminator whose logits on real images are N(m, 1) with E sign = 1 - 1.2 p: r_t settles at the target."""
    torch.manual_seed(0)
    module, kept = ADA(target=0.6, images=20_000), []
    normal = torch.distributions.Normal(0, 1)
    for step in range(60_000 // batch):
        surely = 1 - 1.2 * module.p
        module.update(torch.randn(batch, 1) + normal.icdf((1 + surely) / 2))
        if step * batch > 30_000:
            kept.append(float(surely))
    assert sum(kept) / len(kept) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("name", ["ada", "diffaugment"])
def test_unknown_policy(name):
    with pytest.raises(ValueError, match="policy 'colour' is none of"):
        part("augment_critic", {"type": name, "policy": ["colour"]})


def test_images_of_any_range_are_changed_alike():
    """A task of images in [0, 1] sees the very changes, and black that comes in is still mid grey."""
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for change in (DiffAugment(), ADA(p=1.0, images=0)):
        torch.manual_seed(3)
        wanted = Augmentations(change)(images * 2 - 1)
        torch.manual_seed(3)
        found = Augmentations(change, span=(0.0, 1.0))(images)
        torch.testing.assert_close(found, wanted / 2 + 0.5, atol=1e-6, rtol=0)
    assert Augmentations(span=(0.0, 1.0))(images) is images
    assert list(Augmentations(ADA(), span=(0.0, 1.0)).state_dict())[0].startswith("0."), "checkpoints know their state"
