"""Exact search: the same rows in the same order as brute force in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import arrowembed
from arrowembed import _core
from arrowembed._core import VectorFile, search_vectors
from arrowembed.errors import InvalidArgumentError, ModelIOError, StoreFileError

METRICS = ("cosine", "dot", "euclidean")
DTYPES = ("float32", "float16", "int8")


def written(path, vectors, dtype="float32"):
    VectorFile.write(str(path), np.asarray(vectors, dtype=np.float32), dtype)
    return VectorFile(str(path))


def stored(vectors, dtype):
    """What is searched: int8 has the vectors themselves beside their codes."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors.astype(np.float16 if dtype == "float16" else np.float32).astype(np.float64)


def brute_force(vectors, queries, k, metric, kept=None):
    """Rows and similarities by the definition, in float64."""
    queries = np.asarray(queries, dtype=np.float64)
    if metric == "euclidean":
        scores = -np.sqrt(np.square(queries[:, None] - vectors[None]).sum(axis=-1))
    else:
        scores = (queries[:, None] * vectors[None]).sum(axis=-1)
        if metric == "cosine":
            norms = np.sqrt(np.square(queries).sum(axis=1))[:, None]
            norms = norms * np.sqrt(np.square(vectors).sum(axis=1))
            scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
    rows = np.arange(len(vectors)) if kept is None else np.flatnonzero(kept)
    order = np.argsort(-scores[:, rows], axis=1, kind="stable")[:, :k]
    rows = rows[order]
    return rows, np.take_along_axis(scores, rows, axis=1)


def bitmap(kept):
    return np.packbits(kept, bitorder="little")


def assert_found(found, expected):
    rows, similarities = found
    assert rows.dtype == np.int64
    assert similarities.dtype == np.float32
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_allclose(similarities, expected[1], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_vectors_of_any_shape(tmp_path, metric, dtype):
    random = np.random.default_rng(0)
    for case, dim in enumerate((1, 2, 3, 7, 16, 33, 64, 100, 255, 257, 384, 1025)):
        n, count = int(random.integers(1, 300)), int(random.integers(1, 40))
        vectors = random.standard_normal((n, dim)) * random.choice([0.1, 1, 30])
        queries = random.standard_normal((count, dim)).astype(np.float32)
        file = written(tmp_path / f"{case}", vectors, dtype)
        for k in (1, 10, n + 5):
            for some in (queries, queries[:1], queries[:3]):
                found = search_vectors([file], some, k, metric=metric)
                expected = brute_force(stored(vectors, dtype), some, k, metric)
                assert found[0].shape == (len(some), min(k, n))
                if dim == 1 and metric == "cosine":
                    # Every cosine is 1 or -1, give or take what rounding makes of it.
                    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
                else:
                    assert_found(found, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_files_and_bitmaps(tmp_path, metric, dtype):
    random = np.random.default_rng(1)
    sizes, dim = (1, 2500, 64, 777), 48
    parts = [random.standard_normal((n, dim)) for n in sizes]
    files = [written(tmp_path / f"{i}", part, dtype) for i, part in enumerate(parts)]
    vectors = stored(np.concatenate(parts), dtype)
    for count in (1, 3, 20):
        queries = random.standard_normal((count, dim)).astype(np.float32)
        for share in (0.0, 0.001, 0.02, 0.3, 0.9, 1.0):
            masks = [random.random(n) < share for n in sizes]
            keep = [bitmap(mask) for mask in masks]
            # Bits behind the last row mean nothing.
            keep[0] |= 0b1111_1110
            found = search_vectors(files, queries, 7, metric=metric, keep=keep)
            assert_found(found, brute_force(vectors, queries, 7, metric, np.concatenate(masks)))
        mask = random.random(2500) < 0.5
        found = search_vectors(
            files, queries, 7, metric=metric, keep=[None, bitmap(mask), None, None]
        )
        kept = np.ones(sum(sizes), dtype=bool)
        kept[1:2501] = mask
        assert_found(found, brute_force(vectors, queries, 7, metric, kept))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equally_similar_rows_the_lower_comes_first(tmp_path, metric, dtype):
    """Small whole numbers, whose sums are exact, so that many similarities are equal."""
    random = np.random.default_rng(2)
    vectors = random.integers(-1, 2, (3000, 8)).astype(np.float32)
    file = written(tmp_path / "vectors", vectors, dtype)
    for count in (1, 2, 30):
        queries = random.integers(-2, 3, (count, 8)).astype(np.float32)
        found = search_vectors([file], queries, 50, metric=metric)
        assert_found(found, brute_force(stored(vectors, dtype), queries, 50, metric))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_that_are_all_equal(tmp_path, metric, dtype):
    vectors = np.full((5000, 20), 0.3)
    file = written(tmp_path / "vectors", vectors, dtype)
    for count in (1, 20):
        queries = np.random.default_rng(3).standard_normal((count, 20)).astype(np.float32)
        rows, similarities = search_vectors([file], queries, 100, metric=metric)
        np.testing.assert_array_equal(rows, np.tile(np.arange(100), (count, 1)))
        assert (similarities == similarities[:, :1]).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_that_differ_by_less_than_single_precision_tells(tmp_path, metric, dtype):
    """One unit in the last place of one element, in a random order."""
    random = np.random.default_rng(4)
    base = random.standard_normal(384).astype(np.float32)
    vectors = np.tile(base, (2000, 1))
    for row, column in enumerate(random.integers(0, 384, 2000)):
        vectors[row, column] = np.nextafter(base[column], np.float32(random.choice([-9, 9])))
    file = written(tmp_path / "vectors", vectors, dtype)
    for count in (1, 17):
        queries = base + 0.01 * random.standard_normal((count, 384)).astype(np.float32)
        rows, _ = search_vectors([file], queries, 20, metric=metric)
        expected = brute_force(stored(vectors, dtype), queries, 2000, metric)
        # Sums in another order are the same to 1e-15 only, so rows may change places within that.
        for q in range(count):
            by_row = dict(zip(expected[0][q], expected[1][q], strict=True))
            scores = np.array([by_row[row] for row in rows[q]])
            np.testing.assert_allclose(scores, expected[1][q, :20], rtol=1e-14)
            assert len(set(rows[q])) == 20


def test_a_zero_vector_is_similar_to_nothing(tmp_path):
    vectors = np.array([[0, 0], [-1, 0], [1, 0]])
    for dtype in DTYPES:
        file = written(tmp_path / dtype, vectors, dtype)
        rows, similarities = search_vectors(
            [file], np.array([[1, 0], [0, 0]], dtype=np.float32), 3, metric="cosine"
        )
        assert rows.tolist() == [[2, 0, 1], [0, 1, 2]]
        assert similarities.tolist() == [[1, 0, -1], [0, 0, 0]]


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_of_any_magnitude(tmp_path, metric):
    """Products beyond float32, and below its smallest."""
    random = np.random.default_rng(5)
    for scale in (1e-42, 1e-30, 1e-13, 1e13, 1e30, 1e37):
        vectors = (random.standard_normal((300, 40)) * scale).astype(np.float32)
        vectors[::3] /= np.float32(scale)
        file = written(tmp_path / f"{scale}", vectors)
        for query_scale in (1e-40, 1.0, 1e37):
            queries = (random.standard_normal((6, 40)) * query_scale).astype(np.float32)
            for some in (queries, queries[:1]):
                rows, _ = search_vectors([file], some, 10, metric=metric)
                expected = brute_force(stored(vectors, "float32"), some, 300, metric)
                for q in range(len(some)):
                    by_row = dict(zip(expected[0][q], expected[1][q], strict=True))
                    scores = np.array([by_row[row] for row in rows[q]])
                    np.testing.assert_allclose(scores, expected[1][q, :10], rtol=1e-13)


def test_threads_and_instruction_sets_make_no_difference(tmp_path):
    random = np.random.default_rng(6)
    written(tmp_path / "vectors", random.standard_normal((20_000, 96)))
    queries = random.standard_normal((9, 96)).astype(np.float32)
    np.save(tmp_path / "queries.npy", queries)
    program = (
        "import sys, numpy as np; from arrowembed import _core; folder = sys.argv[1];"
        "file = _core.VectorFile(folder + '/vectors'); queries = np.load(folder + '/queries.npy');"
        "found = [_core.search_vectors([file], q, 30, metric=m)"
        " for m in ('cosine', 'dot', 'euclidean') for q in (queries, queries[:1])];"
        "sys.stdout.buffer.write(b''.join(a.tobytes() for pair in found for a in pair))"
    )
    answers = {}
    for isa in ("scalar", _core.isa()):
        for threads in ("1", "2"):
            environment = {
                **os.environ,
                "ARROWEMBED_NUM_THREADS": threads,
                "ARROWEMBED_ISA": isa,
            }
            answers[isa, threads] = subprocess.run(
                [sys.executable, "-c", program, str(tmp_path)],
                env=environment,
                check=True,
                capture_output=True,
            ).stdout
    assert len(set(answers.values())) == 1
    assert len(next(iter(answers.values()))) == 3 * (9 + 1) * 30 * (8 + 4)


def test_no_rows_no_queries_no_files(tmp_path):
    file = written(tmp_path / "vectors", np.eye(3))
    queries = np.eye(3, dtype=np.float32)
    for files, some, keep in (
        ([], queries, None),
        ([file], queries, [np.zeros(1, np.uint8)]),
        ([file], queries[:0], None),
    ):
        rows, similarities = search_vectors(files, some, 2, metric="dot", keep=keep)
        per_query = 2 if len(some) == 0 else 0
        assert rows.shape == similarities.shape == (len(some), per_query)


def test_arguments_that_do_not_fit(tmp_path):
    file = written(tmp_path / "vectors", np.eye(9))
    query = np.ones((1, 9), dtype=np.float32)

    def fails(message, *, files=(file,), queries=query, k=1, metric="dot", keep=None):
        with pytest.raises(InvalidArgumentError, match=message):
            search_vectors(list(files), queries, k, metric=metric, keep=keep)

    fails("k: is 0", k=0)
    fails("k: is -1", k=-1)
    fails("allowed are cosine, dot, euclidean", metric="manhattan")
    fails("have 8 dimensions, the vectors in .*vectors have 9", queries=query[:, :8])
    fails("row 0, column 2", queries=np.where(np.arange(9) == 2, np.nan, query).astype(np.float32))
    fails("has 1 bitmaps, there are 2 files", files=(file, file), keep=[None])
    fails("has 1 bytes for .*vectors, expected are 2", keep=[np.ones(1, np.uint8)])


def test_what_is_not_contiguous_is_copied(tmp_path):
    random = np.random.default_rng(7)
    vectors = random.standard_normal((40, 30)).astype(np.float32)
    file = written(tmp_path / "vectors", vectors[::2, ::3])
    np.testing.assert_array_equal(file.take(np.arange(20)[::-1]), vectors[::2, ::3][::-1])
    queries = random.standard_normal((10, 4)).astype(np.float32).T
    keep = np.repeat(bitmap(np.arange(20) % 3 == 0), 2)[::2]
    found = search_vectors([file], queries, 3, metric="cosine", keep=[keep])
    expected = brute_force(
        stored(vectors[::2, ::3], "float32"), queries, 3, "cosine", np.arange(20) % 3 == 0
    )
    assert_found(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_readers_of_arrow_files_read_it(tmp_path, dtype):
    random = np.random.default_rng(8)
    vectors = random.standard_normal((70, 5)).astype(np.float32)
    file = written(tmp_path / "vectors.arrow", vectors, dtype)
    assert (len(file), file.dimension, file.dtype) == (70, 5, dtype)
    assert file.bytes == (tmp_path / "vectors.arrow").stat().st_size
    file.verify()
    table = pa.ipc.open_file(tmp_path / "vectors.arrow").read_all()
    expected = stored(vectors, dtype)
    read = np.array(table["vector"].to_pylist())
    np.testing.assert_array_equal(read, expected)
    norms = np.sqrt(np.square(expected).sum(axis=1))
    np.testing.assert_allclose(table["norm"].to_numpy(), norms, rtol=1e-15)
    if dtype == "int8":
        codes, scales = np.array(table["code"].to_pylist()), table["scale"].to_numpy()
        left = expected - codes * scales[:, None].astype(np.float64)
        residuals = np.sqrt(np.square(left).sum(axis=1))
        assert (residuals <= table["residual"].to_numpy()).all()
        np.testing.assert_allclose(table["residual"].to_numpy(), residuals, rtol=1e-6)
        assert np.abs(codes).max() == 127
    else:
        assert table.column_names == ["vector", "norm"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_as_an_arrow_array_and_by_row(tmp_path, dtype):
    vectors = np.random.default_rng(9).standard_normal((10, 3)).astype(np.float32)
    file = written(tmp_path / "vectors", vectors, dtype)
    array = pa.array(file)
    item = pa.float16() if dtype == "float16" else pa.float32()
    assert array.type == pa.list_(pa.field("item", item, nullable=False), 3)
    expected = stored(vectors, dtype)
    np.testing.assert_array_equal(np.array(array.to_pylist()), expected)
    np.testing.assert_array_equal(file.take(np.array([9, 0, 0])), expected[[9, 0, 0]])
    assert file.take(np.array([], dtype=np.int64)).shape == (0, 3)
    for row in (10, -1):
        with pytest.raises(InvalidArgumentError, match="the file has 10 vectors"):
            file.take(np.array([0, row]))
    del file
    np.testing.assert_array_equal(np.array(array.to_pylist()), expected)


def test_what_cannot_be_written(tmp_path):
    path = str(tmp_path / "vectors")
    for vectors, dtype, message in (
        (np.ones((0, 3)), "float32", "are 0, allowed in a file are 1 to"),
        (np.ones((2, 0)), "float32", "have 0 dimensions"),
        (np.ones((1, 65537)), "float32", "have 65537 dimensions"),
        (np.array([[1, 2], [3, np.inf]]), "float32", "inf in row 1, column 1"),
        (np.array([[1, 70000]]), "float16", "row 0, column 1.*beyond float16; use float32"),
        (np.ones((1, 1)), "bfloat16", "allowed are float32, float16, int8"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            VectorFile.write(path, vectors.astype(np.float32), dtype)
    with pytest.raises(ModelIOError, match=f"{tmp_path / 'no'}.*No such file"):
        VectorFile.write(str(tmp_path / "no" / "vectors"), np.ones((1, 1), np.float32))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelIOError):
        VectorFile(path)


def test_a_file_that_is_replaced_stays_readable(tmp_path):
    path = tmp_path / "vectors"
    old = written(path, np.eye(4))
    new = written(path, 2 * np.eye(4))
    np.testing.assert_array_equal(old.take(np.arange(4)), np.eye(4))
    np.testing.assert_array_equal(new.take(np.arange(4)), 2 * np.eye(4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["vectors"]
    assert path.stat().st_mode & 0o444


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be cut there")
@pytest.mark.parametrize("count", [1, 20])
def test_a_file_that_is_cut_while_it_is_mapped_is_an_error(tmp_path, count):
    vectors = np.random.default_rng(10).standard_normal((4000, 64)).astype(np.float32)
    whole = written(tmp_path / "whole", vectors)
    cut = written(tmp_path / "cut", vectors)
    os.truncate(tmp_path / "cut", 300_000)
    queries = vectors[:count]
    for _ in range(2):
        with pytest.raises(StoreFileError, match=r"cut is not .*cut short") as error:
            search_vectors([whole, cut], queries, 3, metric="dot")
        assert error.value.code == "invalid_store"
        with pytest.raises(StoreFileError, match="cut short"):
            cut.take(np.array([3999]))
    rows, _ = search_vectors([whole], queries, 1, metric="cosine")
    np.testing.assert_array_equal(rows[:, 0], np.arange(count))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_damaged_file_is_an_error_or_found_by_verify(tmp_path, dtype):
    """Every byte outside of the values, and some of these."""
    random = np.random.default_rng(11)
    path, damaged = tmp_path / "vectors", tmp_path / "damaged"
    file = written(path, random.standard_normal((5, 3)), dtype)
    queries = np.ones((1, 3), dtype=np.float32)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        damaged.write_bytes(
            whole[:at] + bytes([whole[at] ^ random.integers(1, 256)]) + whole[at + 1 :]
        )
        try:
            opened = VectorFile(str(damaged))
        except StoreFileError:
            refused += 1
            continue
        # What it says of itself may differ, but whatever is read is within it.
        for metric in METRICS:
            some = np.ones((1, opened.dimension), dtype=np.float32)
            rows, _ = search_vectors([opened], some, 5, metric=metric)
            assert rows.shape == (1, min(5, len(opened)))
        opened.take(np.arange(len(opened)))
        try:
            opened.verify()
        except StoreFileError:
            refused += 1
    assert refused > len(file.take(np.arange(5)).tobytes())
    for length in range(len(whole)):
        damaged.write_bytes(whole[:length])
        with pytest.raises(StoreFileError, match=str(damaged)):
            VectorFile(str(damaged))
    search_vectors([file], queries, 5, metric="dot")


def test_an_arrow_file_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "table.arrow"
    with pa.ipc.new_file(path, pa.schema([("x", pa.int64())])) as writer:
        writer.write(pa.record_batch([pa.array([1, 2])], names=["x"]))
    with pytest.raises(StoreFileError, match="no file of vectors"):
        VectorFile(str(path))
    path.write_bytes(b"")
    with pytest.raises(StoreFileError, match="empty"):
        VectorFile(str(path))
    with pytest.raises(StoreFileError, match="not a regular file"):
        VectorFile(str(tmp_path))


def test_many_threads_search_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    random = np.random.default_rng(12)
    vectors = random.standard_normal((5000, 64)).astype(np.float32)
    file = written(tmp_path / "vectors", vectors)
    queries = random.standard_normal((64, 64)).astype(np.float32)
    expected = search_vectors([file], queries, 5, metric="dot")[0]

    def search(i):
        return search_vectors([file], queries[i : i + 1], 5, metric="dot")[0]

    with ThreadPoolExecutor(8) as pool:
        found = np.concatenate(list(pool.map(search, range(64))))
    np.testing.assert_array_equal(found, expected)
    assert arrowembed.get_num_threads() >= 1
