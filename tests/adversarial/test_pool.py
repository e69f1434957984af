"""Half of what leaves a full pool is new; what is in it is part of the state."""

import pytest
import torch

from img2img.adversarial.pool import Pool


def numbered(first, count):
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1)


def test_until_it_is_full_everything_goes_in_and_comes_out():
    pool = Pool(4, 1, 1)
    assert torch.equal(pool(numbered(1, 3)), numbered(1, 3)) and pool.count == 3
    assert pool.images.flatten().tolist() == [1, 2, 3, 0]


def test_then_half_are_exchanged_for_earlier_ones():
    torch.manual_seed(0)
    pool = Pool(50, 1, 1)
    pool(numbered(0, 50))
    new, old = 0, []
    for place in range(50, 4050, 4):
        given = numbered(place, 4)
        found = pool(given)
        new += int((found == given).sum())
        old += found[found != given].tolist()
    assert abs(new / 4000 - 0.5) < 0.03
    assert len(set(old)) == len(old), "an image that came out is gone from the pool"
    # An image waits for 50 exchanges on the average, which is 100 images; the mean of what came out tells.
    ages = [later - earlier for later, earlier in zip(range(50, 4050, 2), old, strict=False)]
    assert 60 < sum(ages) / len(ages) < 140


def test_its_state_is_saved():
    torch.manual_seed(0)
    pool, again = Pool(4, 1, 1), Pool(4, 1, 1)
    pool(numbered(0, 6))
    again.load_state_dict(pool.state_dict())
    results = []
    for each in (pool, again):
        torch.manual_seed(1)
        results.append(each(numbered(10, 8)))
    assert torch.equal(*results)


def test_nothing_is_lost_and_nothing_is_made_up():
    torch.manual_seed(0)
    pool, seen = Pool(10, 1, 1), []
    for first in range(0, 800, 8):
        seen += pool(numbered(first, 8)).flatten().tolist()
    # An image that is exchanged has left the pool; only the first ten were shown as they were kept.
    assert sorted(seen + pool.images.flatten().tolist()) == sorted([*range(800), *range(10)])
    assert set(pool.state_dict()) == {"images", "count"}


def test_gives_no_gradient_and_keeps_the_type():
    x = numbered(0, 3).clone().requires_grad_()
    pool = Pool(2, 1, 1)
    assert not pool(x).requires_grad and pool(x.to(torch.bfloat16)).dtype == torch.bfloat16
    kept = pool.images.clone()
    with torch.no_grad():
        x += 100
    assert torch.equal(pool.images, kept)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="built for"):
        Pool(3, 1, 4)(numbered(0, 3))
    with pytest.raises(ValueError, match="capacity = 0"):
        Pool(0)
