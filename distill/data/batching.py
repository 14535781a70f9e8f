"""Batches of rows of similar length."""

from typing import Any

import numpy as np

from distill.errors import UserError

# Rows are shuffled, then sorted by length within so many steps: enough for little padding, few enough to mix rows anew
# in each epoch.
_POOL = 100


class BucketBatches:
    """Batches of row indices, bucketed by length, deterministic for (seed, epoch), the same number on every rank.

    A step takes at most batch_size * world_size rows of similar length and deals them out to the ranks in turn, so
    that world_size=2 with batch_size=B sees in each step exactly the rows of world_size=1 with batch_size=2B. Every
    row occurs once an epoch; the sizes of two steps, and of two ranks in a step, differ by at most one row. No rank's
    batch is ever empty: with batch_size=1, and rows that world_size does not divide, some steps hold a row more
    instead.

    Args:
        lengths: tokens of each row, [n].
        batch_size: rows per step and rank, at most.
        seed: of the shuffling.
        shuffle: False gives rows sorted by length, longest first, the same in every epoch (for evaluation).
        rank, world_size: this process among how many.

    Raises UserError when there are fewer rows than ranks, or the batch size is below 1.
    """

    def __init__(
        self, lengths: Any, batch_size: int, seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        rows = len(self.lengths)
        if batch_size < 1:
            raise UserError(f"--batch_size {batch_size}: must be at least 1")
        if rows < world_size:
            raise UserError(f"{rows} rows cannot be shared among {world_size} devices; give at least one row to each")
        self._steps = min(-(-rows // (batch_size * world_size)), rows // world_size)

    def __len__(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return self._steps

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """This rank's row indices (int64) for each step of the epoch, counted from 0."""
        order, sizes, turns = self._order(epoch)
        ends = np.cumsum(sizes)
        starts = ends - sizes
        return [
            order[a + self.rank : b : self.world_size]
            for a, b in zip(starts[turns].tolist(), ends[turns].tolist(), strict=True)
        ]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All rows int64 [n], those of a batch beside each other; the batches' sizes [steps]; and in which order the
        batches come [steps]."""
        rows, sizes = len(self.lengths), self._sizes()
        if not self.shuffle:
            order = np.argsort(-self.lengths, kind="stable")
            return order, sizes, np.arange(self._steps)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(rows)
        pool = np.repeat(np.arange(self._steps) // _POOL, sizes)
        order = order[np.argsort(pool * (self.lengths.max() + 1) + self.lengths[order], kind="stable")]
        _mix(order, sizes, rng)  # rows of a step stand in order of length
        return order, sizes, rng.permutation(self._steps)

    def _sizes(self) -> np.ndarray:
        """Rows of each batch, int64 [steps]: as np.array_split makes them, the larger first."""
        small, larger = divmod(len(self.lengths), self._steps)
        return np.repeat([small + 1, small], [larger, self._steps - larger])

    def rows_of(self, steps: int) -> np.ndarray:
        """The rows of all ranks' first `steps` batches, sorted; of all batches when it is below 1, as --max_steps is
        where nothing ends training early."""
        if not 0 < steps < self._steps:
            return np.arange(len(self.lengths))
        order, sizes, turns = self._order(0)
        ends = np.cumsum(sizes)
        return np.sort(np.concatenate([order[ends[turn] - sizes[turn] : ends[turn]] for turn in turns[:steps]]))

    def real_share(self, epoch: int) -> float:
        """Real tokens over all tokens, padding included, in this rank's batches of the epoch."""
        batches = [self.lengths[batch] for batch in self.epoch(epoch)]
        return sum(int(batch.sum()) for batch in batches) / sum(int(batch.max()) * len(batch) for batch in batches)


def _mix(order: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> None:
    """Shuffle the rows of each batch in place, all batches of one size at once; the larger sizes stand first."""
    small = int(sizes[-1])
    split = int(sizes[sizes > small].sum())
    for part, size in ((order[:split], small + 1), (order[split:], small)):
        if len(part):
            part[:] = rng.permuted(part.reshape(-1, size), axis=1).ravel()
