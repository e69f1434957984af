"""Batches as a pure function of the seed and a counter, so that a resumed run sees exactly what it would have seen."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class Source(Protocol):
    """What a data set offers: a length, and an item drawn with an explicit random generator."""

    def __len__(self) -> int: ...

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]: ...  # noqa: D102


class _Seeded(Dataset):
    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        number, index = key
        return self.source.item(index, np.random.default_rng((self.seed, number)))


class _SeededWhole(_Seeded):
    """Of a source with a method ``items``, which draws a whole batch at once: an item by itself would cost more."""

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        numbers, indices = zip(*keys, strict=True)
        return self.source.items(np.array(indices), np.random.default_rng((self.seed, numbers[0])))


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


class _Order(Sampler):
    """Shuffled epochs without end, from image number ``start`` on; every epoch's order follows from seed and epoch."""

    def __init__(self, length: int, batch: int, seed: int, numbers: Iterator[int]) -> None:
        self.length, self.batch, self.seed, self.numbers = length, batch, seed, numbers

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, epoch = np.arange(0), -1
        for first in self.numbers:
            keys = []
            for number in range(first, first + self.batch):
                if number // self.length != epoch:
                    epoch = number // self.length
                    order = np.random.default_rng((self.seed, epoch, 0x0DE5)).permutation(self.length)
                keys.append((number, int(order[number % self.length])))
            yield keys


def stream(
    source: Source, batch: int, seed: int, start: int, step: int = 1, workers: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Yield batches without end.

    Args:
        source: where items come from.
        batch: items a batch.
        seed: with it the whole stream is fixed, whatever the number of workers.
        start: the first batch's place in the stream.
        step: go on by so many batches (several processes each take every n-th).
        workers: processes that prepare batches.

    Raises:
        ValueError: the source is empty.
    """
    if not len(source):
        raise ValueError("no images to train on; give a folder with images in it")

    def numbers() -> Iterator[int]:
        place = start
        while True:
            yield place * batch
            place += step

    whole = hasattr(source, "items")
    loader = DataLoader(
        (_SeededWhole if whole else _Seeded)(source, seed),
        collate_fn=_as_it_is if whole else None,
        batch_sampler=_Order(len(source), batch, seed, numbers()),
        num_workers=workers,
        # Its own: an iterator draws a number when it starts, and a resumed run starts it at another step.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
        # Python forks by default on Linux, which deadlocks beside OpenMP's threads.
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader


LARGEST = 2**20
"""Numbers in the tensors of one validation batch, beyond which it is cut."""


def together(source: Source, seed: int, images: int = 0) -> Iterator[dict[str, Tensor]]:
    """Yield the items of a source in an order that is the same every time, stacked as long as their shapes agree.

    The order is mixed, since folders are sorted: what is shown of the first batch should be of all kinds.

    Args:
        source: where items come from.
        seed: with the item's place it fixes what is random in it.
        images: how many items, evenly spread over the source; 0 for all.
    """
    count = min(images or len(source), len(source))
    waiting: list[dict[str, Tensor]] = []
    for place in np.random.default_rng(0).permutation(count).tolist():
        index = place * len(source) // count
        item = source.item(index, np.random.default_rng((seed, index)))
        size = sum(value.numel() for value in item.values())
        fits = waiting and all(item[name].shape == value.shape for name, value in waiting[0].items())
        if waiting and not (fits and size * (len(waiting) + 1) <= LARGEST):
            yield _stacked(waiting)
            waiting = []
        waiting.append(item)
    if waiting:
        yield _stacked(waiting)


def _stacked(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
