"""Files that are damaged are told by name; none of them ends the process."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from arrowembed.errors import ArrowEmbedError, StoreFileError
from arrowembed.store import open_store


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with two segments, one of which has deleted rows."""
    folder = tmp_path_factory.mktemp("sound") / "store"
    rng = np.random.default_rng(5)
    with open_store(folder, dimension=4) as store:
        for name in "ab":
            ids = [f"{name}{i}" for i in range(20)]
            metadata = [{"n": i, "s": f"é{i}", "x": i / 2, "l": [i]} for i in range(20)]
            store.add(ids, ids, vectors=rng.normal(size=(20, 4)), metadata=metadata)
        store.delete(["a3"])
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "store")


def use(folder):
    """Everything that reads."""
    with open_store(folder) as store:
        store.search(np.ones(4), k=50, filter={"n": {"$gte": 0}}, include=["text", "vector"])
        store.get(filter={"s": "é3"})
        store.get(filter={"x": {"$lt": 3}, "l": {"$exists": True}}, include=["vector", "metadata"])
        store.get(["a1", "b19", "nowhere"])
        store.count()


def everything_in(folder):
    with open_store(folder) as store:
        records = store.get(include=["text", "metadata", "vector"])
        found = [(r.id, r.text, r.metadata, r.vector.tolist()) for r in records]
        return found, [(hit.id, hit.score) for hit in store.search(np.ones(4), k=50)]


FILES = ["*.vectors.arrow", "*.rows.arrow", "*.live"]


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1])
def test_a_file_that_was_cut_is_told(folder, pattern, share):
    path = min(folder.glob(f"segments/{pattern}"))
    content = path.read_bytes()
    path.write_bytes(content[: max(0, int(share * len(content)) - 1)])
    with pytest.raises(StoreFileError, match=path.name):
        use(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let a mapped file be cut")
def test_vectors_that_are_cut_while_they_are_mapped_are_told(tmp_path):
    store = open_store(tmp_path / "store", dimension=4)
    ids = [f"{i}" for i in range(5_000)]
    store.add(ids, vectors=np.ones((5_000, 4)))
    store.delete(["0"])
    (path,) = store.path.glob("segments/*.vectors.arrow")
    os.truncate(path, 10_000)
    for call in (
        lambda: store.search(np.ones(4)),
        lambda: store.get(["4999"], include=["vector"]),
        store.compact,
        store.verify,
    ):
        with pytest.raises(StoreFileError, match=rf"{path.name}.* was cut short"):
            call()
    assert len(store.get()) == 4_999


@pytest.mark.parametrize("pattern", FILES)
def test_a_file_that_is_missing_is_told(folder, pattern):
    path = min(folder.glob(f"segments/{pattern}"))
    path.unlink()
    with pytest.raises(StoreFileError, match=rf"{path.name} is missing; restore the store"):
        use(folder)


def test_a_missing_manifest_is_told(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreFileError, match=r"manifest\.json cannot be read"):
        use(folder)


def test_each_flipped_bit_of_the_manifest_is_told(folder):
    path = folder / "manifest.json"
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), 7):
        content[place] ^= 1 << place % 7
        path.write_bytes(content)
        try:
            use(folder)
        except StoreFileError as error:
            assert "manifest.json" in str(error)  # noqa: PT017 - or nothing is raised
        else:
            # White space, which has no meaning.
            assert not chr(content[place] ^ 1 << place % 7).strip()
        content[place] ^= 1 << place % 7


def test_a_manifest_of_a_later_version_is_told(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreFileError, match=r"manifest\.json has version 2.*update"):
        use(folder)


@pytest.mark.parametrize("pattern", FILES)
def test_verify_finds_each_flipped_bit_that_changes_anything(folder, pattern):
    path = min(folder.glob(f"segments/{pattern}"))
    expected = everything_in(folder)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for place in rng.integers(len(content), size=60).tolist():
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            open_store(folder, verify=True).close()
        except StoreFileError as error:
            assert path.name in str(error)  # noqa: PT017 - or nothing is raised
        else:
            assert everything_in(folder) == expected
        content[place] ^= 1 << place % 8
    path.write_bytes(content)
    open_store(folder, verify=True).close()


FLIP = """
import sys
import numpy as np
from pathlib import Path
from test_damage import ArrowEmbedError, use

folder, pattern, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
path = min(folder.glob(f"segments/{pattern}"))
sound = path.read_bytes()
rng = np.random.default_rng(seed)
told = 0
for _ in range(200):
    content = bytearray(sound)
    for place in rng.integers(len(content), size=rng.integers(1, 20)).tolist():
        content[place] = rng.choice([0, 255, content[place] ^ 1 << rng.integers(8)])
    path.unlink()
    path.write_bytes(content)
    try:
        use(folder)
    except ArrowEmbedError as error:
        told += 1
print(told)
"""


@pytest.mark.parametrize("pattern", FILES[:2])
def test_flipped_bits_end_in_errors_of_ours_or_wrong_values_only(folder, pattern):
    """In a process of its own, which a crash would end."""
    code = f"import sys; sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\n{FLIP}"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, folder, pattern, "3"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_offsets_beyond_the_strings_are_told(folder):
    """What Arrow itself looks at only when it is asked to read everything."""
    path = min(folder.glob("segments/*.rows.arrow"))
    with pa.memory_map(str(path)) as file:
        column = pa.ipc.open_file(file).get_batch(0).column("text")
        offsets = bytes(column.buffers()[1])[: 8 * 21]
    places = np.frombuffer(offsets, np.int64).copy()
    places[7] = 1 << 40
    content = path.read_bytes()
    where = content.rindex(offsets)
    path.write_bytes(content[:where] + places.tobytes() + content[where + len(offsets) :])
    store = open_store(folder)
    with pytest.raises(StoreFileError, match=rf"{path.name} is damaged: column .*ascend"):
        store.get()


def test_errors_of_damage_are_of_this_package():
    assert issubclass(StoreFileError, ArrowEmbedError)
    assert StoreFileError.code == "invalid_store"
