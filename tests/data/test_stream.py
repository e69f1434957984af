"""Batches as a function of seed and place."""

from itertools import islice

import numpy as np
import pytest
import torch

from img2img.data.stream import stream, together


class Numbers:
    """Items that tell their index and the first number of their generator."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def item(self, index, rng):
        return {"index": torch.tensor(index), "chance": torch.tensor(rng.random())}


def taken(count, *args, **options):
    return [(batch["index"].tolist(), batch["chance"].tolist()) for batch in islice(stream(*args, **options), count)]


def test_every_epoch_holds_every_item_once_in_another_order():
    batches = taken(12, Numbers(12), 4, 0, 0)
    epochs = [sum((batches[i + k][0] for k in range(3)), []) for i in (0, 3, 6, 9)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({chance for _, chances in batches for chance in chances}) == 48, "an item's chance repeats"


@pytest.mark.parametrize("length", [1, 3, 5, 12])
def test_a_stream_goes_on_from_any_place(length):
    whole = taken(9, Numbers(length), 4, 7, 0)
    assert taken(4, Numbers(length), 4, 7, 5) == whole[5:]
    assert taken(9, Numbers(length), 4, 8, 0) != whole


def test_processes_share_a_stream():
    whole = taken(9, Numbers(7), 2, 7, 0)
    for rank in range(3):
        assert taken(3, Numbers(7), 2, 7, rank, 3) == whole[rank::3]


def test_torch_generator_is_not_touched():
    """A resumed run opens its stream at another step; what it draws there must not move the other numbers."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    taken(3, Numbers(5), 2, 0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    state = np.random.get_state()[1].copy()
    taken(3, Numbers(5), 2, 0, 0)
    assert (np.random.get_state()[1] == state).all()


def test_an_empty_source():
    with pytest.raises(ValueError, match="no images to train on"):
        next(stream(Numbers(0), 2, 0, 0))


def test_validation_is_mixed_and_the_same_every_time():
    """Each item comes once; what is random in it follows from seed and place, whatever the order and the number."""

    def seen(seed, images=0):
        batches = list(together(Numbers(40), seed, images))
        index, chance = (torch.cat([batch[key] for batch in batches]).tolist() for key in ("index", "chance"))
        return index, dict(zip(index, chance, strict=True))

    (order, chances), (other, others) = seen(3), seen(4)
    assert order == other == seen(3)[0] and sorted(order) == list(range(40))
    assert order != sorted(order) and {place // 20 for place in order[:10]} == {0, 1}
    assert chances == seen(3)[1] and not set(chances.values()) & set(others.values())
    some, few = seen(3, 10)
    assert sorted(some) == list(range(0, 40, 4)) and few.items() <= chances.items()
    assert sorted(seen(3, 99)[0]) == list(range(40))
