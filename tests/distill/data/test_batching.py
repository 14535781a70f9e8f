import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.batching import BucketBatches
from distill.errors import UserError


def some_lengths(n, seed=0):
    return np.random.default_rng(seed).geometric(0.1, n) + 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_every_row_once_in_steps_of_equal_size(n, batch_size, world, epoch, shuffle):
    if n < world:
        return
    lengths = some_lengths(n)
    ranks = [BucketBatches(lengths, batch_size, 1, shuffle, rank, world) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    steps = list(zip(*(batches.epoch(epoch) for batches in ranks), strict=True))
    assert len(steps) == len(ranks[0])
    assert np.array_equal(np.sort(np.concatenate([b for step in steps for b in step])), np.arange(n))
    assert all(1 <= len(b) <= max(batch_size, 2) for step in steps for b in step)
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in steps)
    sizes = [sum(map(len, step)) for step in steps]
    assert max(sizes) - min(sizes) <= 1
    if batch_size > 1 or n % world == 0:
        # One process with the joined batch sees the same rows in each step.
        assert len(steps) == -(-n // (batch_size * world))
        alone = BucketBatches(lengths, batch_size * world, 1, shuffle).epoch(epoch)
        assert [set(batch.tolist()) for batch in alone] == [set(np.concatenate(step).tolist()) for step in steps]


def test_deterministic_for_seed_and_epoch():
    lengths = some_lengths(1000)

    def rows(seed, epoch, shuffle=True):
        return np.concatenate(BucketBatches(lengths, 16, seed, shuffle).epoch(epoch))

    assert np.array_equal(rows(5, 2), rows(5, 2))
    assert not np.array_equal(rows(5, 2), rows(5, 3))
    assert not np.array_equal(rows(5, 2), rows(6, 2))
    assert np.array_equal(rows(5, 2, False), rows(6, 3, False))
    batches = BucketBatches(lengths, 16, 5)
    batches.epoch(1)
    assert np.array_equal(np.concatenate(batches.epoch(2)), rows(5, 2))


def test_order_is_shuffled_within_and_between_batches():
    lengths = some_lengths(4000)
    batches = BucketBatches(lengths, 32).epoch(0)
    longest = [lengths[batch].max() for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    mixed = [lengths[batch] for batch in batches if len(set(lengths[batch])) > 1]
    assert len(mixed) > 30
    assert not any((np.diff(batch) >= 0).all() or (np.diff(batch) <= 0).all() for batch in mixed)
    # Rows of one length meet other rows in the next epoch.
    companions = [next(set(b.tolist()) for b in BucketBatches(lengths, 32).epoch(e) if 7 in b) for e in (0, 1)]
    assert len(companions[0] & companions[1]) < 32


def test_unshuffled_is_longest_first():
    assert [b.tolist() for b in BucketBatches([3, 9, 5, 9, 1], 2, shuffle=False).epoch(4)] == [[1, 3], [2, 0], [4]]


def test_real_share_by_hand():
    batches = BucketBatches([3, 9, 5, 9, 1], 2, shuffle=False)
    assert batches.real_share(0) == 27 / (9 * 2 + 5 * 2 + 1)
    # A rank counts its own batches: rows [1], [2], [4] and [3], [0].
    assert BucketBatches([3, 9, 5, 9], 1, shuffle=False, rank=1, world_size=2).real_share(0) == 1.0


def test_refusals():
    with pytest.raises(UserError, match="0 rows cannot be shared among 1 devices"):
        BucketBatches([], 4)
    with pytest.raises(UserError, match="1 rows cannot be shared among 2 devices"):
        BucketBatches([5], 4, world_size=2)
    with pytest.raises(UserError, match="--batch_size 0: must be at least 1"):
        BucketBatches([5], 0)


def test_an_epoch_of_1_4_million_rows_is_planned_as_fast_as_they_are_sorted():
    """Within a second where nothing else runs; sorting beside it tells how fast this machine is now."""
    lengths = some_lengths(1_400_000)
    batches = BucketBatches(lengths, 32)
    shuffled = np.random.default_rng(0).permutation(len(lengths))

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    assert len(batches.epoch(0)) == 43750
    assert any(seconds(lambda: batches.epoch(1)) < 3 * seconds(lambda: np.argsort(shuffled)) for attempt in range(3))


@pytest.mark.skipif("DISTILL_DATA" not in os.environ, reason="DISTILL_DATA is not set: no real rows")
def test_sst2_batches_are_nearly_all_real_tokens():
    from distill.data.wordpiece import WordPiece

    folder = Path(os.environ["DISTILL_DATA"])
    lines = (folder / "glue_data/SST-2/train.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    wordpiece = WordPiece(folder / "vocab/bert-base-uncased-vocab.txt", True)
    lengths = wordpiece.encode([line.split("\t")[0] for line in lines], None, 128).lengths
    for batch_size in (32, 64):
        for rank in (0, 1):
            assert BucketBatches(lengths, batch_size, rank=rank, world_size=2).real_share(0) > 0.97
        assert BucketBatches(lengths, batch_size).real_share(0) > 0.97


@pytest.mark.parametrize(("batch_size", "world"), [(4, 1), (4, 2), (1, 3)])
def test_rows_of_the_first_batches(batch_size, world):
    lengths = some_lengths(50)
    ranks = [BucketBatches(lengths, batch_size, 3, True, rank, world) for rank in range(world)]
    for steps in (1, 5):
        seen = np.concatenate([batch for batches in ranks for batch in batches.epoch(0)[:steps]])
        assert all(batches.rows_of(steps).tolist() == sorted(seen.tolist()) for batches in ranks)
        assert len(seen) < 50
    for steps in (-1, 0, len(ranks[0]), 1000):
        assert ranks[0].rows_of(steps).tolist() == list(range(50))
