"""Which segments are merged: few are left, and no row is rewritten often."""

import itertools
import random

import pytest

from arrowembed.store.lightweight.merging import FAN_OUT, Limits, after_write, in_compaction


def written(batches, limit):
    """The sizes that are left after these writes, and how many rows were written for them."""
    sizes, total = [], 0
    for batch in batches:
        sizes.append(batch)
        neighbours = after_write(sizes, limit)
        merged = sum(sizes[neighbours])
        if len(sizes[neighbours]) > 1:
            sizes[neighbours] = [merged]
            # What is merged at once with the new rows is written only so.
            total += merged + (0 if neighbours.stop > len(sizes) - 1 else batch)
        else:
            total += batch
    assert max(sizes) <= max(limit, *batches)
    assert sum(sizes) == sum(batches)
    return sizes, total


@pytest.mark.parametrize("batch", [1, 3, 10, 100, 700, 4_000])
def test_many_equal_writes_leave_few_segments_and_few_are_rewritten(batch):
    rows, limit = 100_000, 10_000
    sizes, total = written([batch] * (rows // batch), limit)
    # 1, 8, 64, 512, 4096: five levels with at most seven each, and those that are half full.
    assert len(sizes) <= 5 * (FAN_OUT - 1) + 2 * rows / limit
    assert total <= 6 * rows


@pytest.mark.parametrize("seed", range(20))
def test_so_it_is_with_writes_of_all_sizes(seed):
    rng = random.Random(seed)
    batches = [int(2 ** rng.uniform(0, 12)) for _ in range(500)]
    limit = 5_000
    sizes, total = written(batches, limit)
    assert len(sizes) <= 5 * (FAN_OUT - 1) + 2 * sum(batches) / limit + 1
    assert total <= 6 * sum(batches)


def test_nothing_is_merged_without_need():
    assert after_write([], 100) == slice(0, 0)
    assert after_write([1] * (FAN_OUT - 1), 100) == slice(6, 7)
    assert after_write([100] * 50, 100) == slice(49, 50)
    assert after_write([1] * 50, 1) == slice(49, 50)


def test_eight_small_ones_become_one_with_those_before_that_are_as_large():
    assert after_write([500, 8, 1, 1, 1, 1, 1, 1, 1, 1], 10_000) == slice(2, 10)
    assert after_write([500, *[8] * 7, *[1] * 8], 10_000) == slice(1, 16)
    assert after_write([500, 8, 8, 1, 1, 100], 10_000) == slice(1, 6)
    assert after_write([8, 1, 100], 100) == slice(0, 2)


@pytest.mark.parametrize("seed", range(20))
def test_compaction_leaves_no_neighbours_that_fit_together(seed):
    rng = random.Random(seed)
    sizes = [rng.randint(1, 120) for _ in range(60)]
    fragmented = [rng.random() < 0.3 for _ in sizes]
    total, steps = sum(sizes), 0
    while (neighbours := in_compaction(sizes, fragmented, 100)) is not None:
        sizes[neighbours], fragmented[neighbours] = [sum(sizes[neighbours])], [False]
        steps += 1
    assert sum(sizes) == total
    assert steps <= 60
    assert not any(fragmented)
    assert all(a + b > 100 for a, b in itertools.pairwise(sizes))


def test_a_segment_is_as_large_as_its_rows_or_its_strings():
    limits = Limits.of(384)
    assert limits.rows == 43_690
    assert limits.weight(100, 0) == 100
    assert limits.weight(1, limits.payload) == limits.rows
    assert Limits.of(65_536).rows == 256
