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

    loader = DataLoader(
        _Seeded(source, seed),
        batch_sampler=_Order(len(source), batch, seed, numbers()),
        num_workers=workers,
        # Its own: an iterator draws a number when it starts, and a resumed run starts it at another step.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
        # Python forks by default on Linux, which deadlocks beside OpenMP's threads.
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader
