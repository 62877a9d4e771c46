"""Vectors shared between processes: handles, who may open them, and how long they live."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from arrowembed.errors import (
    HandleError,
    HandleGoneError,
    InvalidArgumentError,
    SharedMemoryError,
)
from arrowembed.tools.sharing import clean_shared, open_shared, release, share, to_numpy

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files"),
    # Python warns that a fork of a process with threads is dangerous; that it is not, is tested.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

VECTORS = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


@pytest.fixture
def folder():
    """The folder of this test's own; see the isolation of all tests."""
    return Path(os.environ["ARROWEMBED_SHARED_DIR"])


def files(folder):
    return sorted(folder.iterdir()) if folder.exists() else []


def python(code, *arguments, **options):
    """Another process, which is given JSON and answers with JSON."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


SHARER = """
    import json, sys
    import numpy as np
    from arrowembed.tools.sharing import share
    print(json.dumps(share(np.arange(12, dtype=np.float32).reshape(4, 3))), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_what_is_shared_comes_back(dtype):
    vectors = (VECTORS * 10).astype(dtype)
    handle = share(vectors, ids=list("abcde"), texts=["one", "", None, "näin", "🦀"])
    assert json.loads(json.dumps(handle)) == handle
    assert (handle["rows"], handle["dimension"], handle["dtype"]) == (5, 3, dtype)
    table = open_shared(handle)
    np.testing.assert_array_equal(to_numpy(table["vector"]), vectors)
    assert table["id"].to_pylist() == list("abcde")
    assert table["text"].to_pylist() == ["one", "", None, "näin", "🦀"]


def test_vectors_of_a_model(model, texts):
    handle = share(model.encode(texts))
    np.testing.assert_array_equal(to_numpy(open_shared(handle)["vector"]), model.encode(texts))
    column = model.encode_arrow(pa.array(["a", None]))
    table = open_shared(share(column))
    assert table["vector"].to_pylist() == pa.array(column).to_pylist()


def test_nothing_is_shared_too():
    table = open_shared(share(VECTORS[:0], ids=[]))
    assert (table.num_rows, table["vector"].type.list_size) == (0, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_reader_sees_the_file_itself(folder):
    """Its buffers lie in the map, and a large result adds nothing to the reader's own memory."""
    vectors = np.ones((100_000, 100), np.float32)
    handle = share(vectors, ids=[str(i) for i in range(len(vectors))])
    code = """
        import json, re, sys
        from arrowembed.tools.sharing import open_shared, to_numpy

        def own_memory():
            status = open("/proc/self/status").read()
            return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1])

        small, handle = json.load(sys.stdin)
        to_numpy(open_shared(small)["vector"]).sum(dtype="float64")
        before = own_memory()
        table = open_shared(handle)
        vectors = to_numpy(table["vector"])
        total = float(vectors.sum(dtype="float64"))
        ids = table["id"].chunk(0).buffers()
        grown = own_memory() - before
        addresses = [vectors.ctypes.data, *(b.address for b in ids if b is not None)]
        maps = [
            tuple(int(x, 16) for x in line.split()[0].split("-"))
            for line in open("/proc/self/maps") if handle["path"] in line
        ]
        inside = all(any(low <= a < high for low, high in maps) for a in addresses)
        print(json.dumps([total, inside, grown]))
    """
    with python(code) as reader:
        answer, _ = reader.communicate(json.dumps([share(VECTORS), handle]))
    total, inside, grown = json.loads(answer)
    assert total == vectors.size
    assert inside
    assert grown * 1024 < vectors.nbytes / 8


def test_files_are_the_users_alone(folder):
    handle = share(VECTORS)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(handle["path"]).stat().st_mode & 0o777 == 0o600
    assert Path(handle["path"]).stat().st_size == handle["bytes"]


def test_release_removes_it_and_readers_go_on(folder):
    handle = share(VECTORS)
    table = open_shared(handle)
    assert release(handle)
    assert files(folder) == []
    np.testing.assert_array_equal(to_numpy(table["vector"]), VECTORS)
    assert not release(handle)
    with pytest.raises(HandleGoneError, match="there no longer"):
        open_shared(handle)


def test_it_ends_with_the_process_that_shared_it(folder):
    with python(SHARER) as sharer:
        handle = json.loads(sharer.stdout.readline())
        table = open_shared(handle)
        sharer.communicate("")
    assert sharer.returncode == 0
    assert files(folder) == []
    assert to_numpy(table["vector"]).sum() == 66


def test_what_a_killed_process_left_is_removed_by_the_next(folder):
    with python(SHARER) as sharer:
        handle = json.loads(sharer.stdout.readline())
        mine = share(VECTORS)
        assert len(files(folder)) == 2
        sharer.kill()
        assert sharer.wait() == -signal.SIGKILL
    table = open_shared(handle)
    assert clean_shared() == mine["bytes"]
    assert files(folder) == [Path(mine["path"])]
    assert to_numpy(table["vector"]).sum() == 66
    with pytest.raises(HandleGoneError):
        open_shared(handle)


def test_a_file_half_written_by_a_killed_process_is_removed(folder):
    code = """
        import os, signal
        import numpy as np
        from arrowembed.tools.sharing import share, shelf
        shelf._write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        share(np.ones((2, 3), np.float32))
    """
    with python(code) as sharer:
        assert sharer.wait() == -signal.SIGKILL
    (left,) = files(folder)
    assert left.name.startswith("new-")
    share(VECTORS)
    assert left not in files(folder)


def test_another_process_may_release_it(folder):
    with python(SHARER) as sharer:
        handle = json.loads(sharer.stdout.readline())
        assert release(handle)
        sharer.communicate("")
    assert sharer.returncode == 0


def test_the_memory_of_what_others_released_is_given_back(folder):
    handle = share(VECTORS)
    held = Path(handle["path"]).stat().st_ino
    Path(handle["path"]).unlink()
    assert held in inodes_of_this_process()
    clean_shared()
    assert held not in inodes_of_this_process()


def inodes_of_this_process():
    found = set()
    for descriptor in Path("/dev/fd").iterdir():
        try:
            found.add(os.fstat(int(descriptor.name)).st_ino)
        except OSError:
            continue
    return found


def test_a_forked_child_neither_keeps_nor_removes_it(folder):
    code = """
        import json, os, sys, time
        import numpy as np
        from arrowembed.tools.sharing import share
        handle = share(np.arange(12, dtype=np.float32).reshape(4, 3))
        ends, lives = os.fork(), os.getpid()
        if ends == 0:
            sys.exit(0)  # with all that Python does at the end
        os.waitpid(ends, 0)
        lives = os.fork()
        if lives == 0:
            os.close(1)
            sys.stdin.read()
            os._exit(0)
        print(json.dumps([handle, lives]), flush=True)
        time.sleep(60)
    """
    with python(code) as sharer:
        handle, child = json.loads(sharer.stdout.readline())
        # The first child's end has removed nothing.
        assert to_numpy(open_shared(handle)["vector"]).sum() == 66
        assert clean_shared() == handle["bytes"]
        sharer.kill()
        sharer.wait()
        # The second child lives on and does not keep it.
        os.kill(child, 0)
        assert clean_shared() == 0
        sharer.stdin.close()


def test_a_child_can_share_for_itself(folder):
    mine = share(VECTORS)
    code_reads, code_writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            handle = share(VECTORS * 2)
            same = np.array_equal(to_numpy(open_shared(handle)["vector"]), VECTORS * 2)
            os.write(code_writes, b"same" if same else b"different")
        finally:
            os._exit(0)
    os.close(code_writes)
    with os.fdopen(code_reads, "rb") as pipe:
        assert pipe.read() == b"same"
    os.waitpid(child, 0)
    # Ended without a word, as a worker of multiprocessing does.
    assert clean_shared() == mine["bytes"]


def test_it_expires(folder):
    handle = share(VECTORS, ttl=0.01)
    assert handle["expires"] >= time.time()
    open_shared(handle)
    while time.time() < handle["expires"]:
        time.sleep(0.01)
    with pytest.raises(HandleGoneError, match="expired"):
        open_shared(handle)
    assert clean_shared() == 0
    assert files(folder) == []


def test_the_limit_counts_what_all_processes_share(folder, monkeypatch):
    size = share(VECTORS)["bytes"]
    with python(SHARER) as sharer:
        other = json.loads(sharer.stdout.readline())
        with pytest.raises(SharedMemoryError, match=f"of at most {size + other['bytes']}"):
            share(VECTORS, max_bytes=size + other["bytes"])
        assert len(files(folder)) == 2
        last = share(VECTORS, max_bytes=2 * size + other["bytes"])
        assert release(last)
        monkeypatch.setenv("ARROWEMBED_SHARED_BYTES", str(2 * size))
        with pytest.raises(SharedMemoryError, match="ARROWEMBED_SHARED_BYTES"):
            share(VECTORS)
        sharer.communicate("")
    share(VECTORS)


def test_many_processes_at_once_keep_to_the_limit(folder):
    size = share(VECTORS)["bytes"]
    code = """
        import sys
        import numpy as np
        from arrowembed.errors import SharedMemoryError
        from arrowembed.tools.sharing import share
        sys.stdin.readline()
        done = 0
        for _ in range(20):
            try:
                share(np.ones((5, 3), np.float32), max_bytes=int(sys.argv[1]))
                done += 1
            except SharedMemoryError:
                pass
        print(done, flush=True)
        sys.stdin.read()
    """
    sharers = [python(code, 12 * size) for _ in range(2)]
    for sharer in sharers:
        sharer.stdin.write("\n")
        sharer.stdin.flush()
    counts = [int(sharer.stdout.readline()) for sharer in sharers]
    assert sum(counts) == 11
    assert clean_shared() == 12 * size
    for sharer in sharers:
        sharer.communicate("")
    assert clean_shared() == size


@pytest.mark.parametrize("step", ["ftruncate", "rename", "fdopen"])
def test_a_full_disk_is_told(folder, step, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(SharedMemoryError, match="No space left on device"):
            share(VECTORS)
    assert files(folder) == []


@pytest.mark.parametrize("limit", ["many", "-1", "1.5"])
def test_a_limit_that_is_no_number(limit, monkeypatch):
    monkeypatch.setenv("ARROWEMBED_SHARED_BYTES", limit)
    with pytest.raises(InvalidArgumentError, match="ARROWEMBED_SHARED_BYTES"):
        share(VECTORS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"vectors": VECTORS[0]}, r"shape \(3,\)"),
        ({"vectors": VECTORS[:, :0]}, r"shape \(5, 0\)"),
        ({"vectors": VECTORS.astype(np.float64)}, "float64 numbers"),
        ({"vectors": [["a"]]}, "numbers; expected float32"),
        ({"vectors": pa.array(["a"])}, "expected fixed_size_list"),
        ({"vectors": VECTORS, "ids": ["a"]}, "ids: 1 for 5 vectors"),
        ({"vectors": VECTORS, "ids": "abcde"}, "ids: expected a list"),
        ({"vectors": VECTORS, "ids": [1, 2, 3, 4, 5]}, "ids: expected strings"),
        ({"vectors": VECTORS, "texts": ["\ud800"] * 5}, "texts: expected strings"),
        ({"vectors": VECTORS, "ttl": 0}, "ttl: 0"),
        ({"vectors": VECTORS, "ttl": float("nan")}, "ttl: nan"),
    ],
)
def test_what_cannot_be_shared(arguments, said, folder):
    with pytest.raises(InvalidArgumentError, match=said):
        share(**arguments)
    assert files(folder) == []


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/etc/passwd"},
        {"path": "{folder}/../secret.arrow"},
        {"path": "{folder}/../shared/{name}"},
        {"path": "{folder}/{name}\0"},
        {"path": "{folder}/other.arrow"},
        {"path": "{name}"},
        {"path": 7},
        {"path": None},
        {"bytes": 1},
        {"bytes": True},
        {"rows": 6},
        {"rows": "5"},
        {"dimension": 5},
        {"dtype": "float16"},
        {"dtype": "object"},
        {"expires": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_handle_that_was_changed_opens_nothing(change, folder):
    handle = share(VECTORS)
    name = Path(handle["path"]).name
    change = {
        key: value.format(folder=folder, name=name) if isinstance(value, str) else value
        for key, value in change.items()
    }
    with pytest.raises(HandleError):
        open_shared({**handle, **change})


@pytest.mark.parametrize("handle", [None, "path", [], {}, {"path": "a"}])
def test_what_is_no_handle(handle):
    with pytest.raises(HandleError, match="handle: expected"):
        open_shared(handle)
    with pytest.raises(HandleError, match="handle: expected"):
        release(handle)


def put_link(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 1000)
    path.symlink_to(secret)


def put_pipe(path, tmp_path):
    os.mkfifo(path)


def put_folder(path, tmp_path):
    path.mkdir()


def put_socket(path, tmp_path):
    # Bound elsewhere: names of sockets are short.
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/socket")
        shutil.move(f"{short}/socket", path)


def put_noise(path, tmp_path):
    path.write_bytes(b"ARROW1\0\0" + b"\xff" * 992)


@pytest.mark.parametrize("put", [put_link, put_pipe, put_folder, put_socket, put_noise])
def test_what_lies_there_instead_of_a_result(put, folder, tmp_path):
    handle = {**share(VECTORS), "bytes": 1000}
    path = Path(handle["path"])
    path.unlink()
    put(path, tmp_path)
    with pytest.raises(HandleError, match=path.name):
        open_shared(handle)
    clean_shared()


def test_every_cut_of_a_file_is_refused(folder):
    handle = share(VECTORS, ids=list("abcde"))
    path = Path(handle["path"])
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.unlink()
        path.write_bytes(content[:size])
        with pytest.raises(HandleError):
            open_shared({**handle, "bytes": size})


def test_a_folder_that_others_can_read_is_refused(folder):
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(SharedMemoryError, match="open to other users, mode 755"):
        share(VECTORS)


def test_a_link_in_place_of_the_folder_is_refused(folder, tmp_path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    folder.symlink_to(real)
    with pytest.raises(SharedMemoryError, match="no folder that can be used"):
        share(VECTORS)
    assert files(real) == []


def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(SharedMemoryError, match=f"belongs to user {owner}"):
        share(VECTORS)


def test_a_folder_that_cannot_be_made_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ARROWEMBED_SHARED_DIR", str(tmp_path / "none" / "shared"))
    with pytest.raises(SharedMemoryError, match="cannot be made"):
        share(VECTORS)


def test_other_files_in_the_folder_are_left_alone(folder):
    share(VECTORS)
    other = folder / "notes.txt"
    other.write_text("mine")
    clean_shared()
    assert other.read_text() == "mine"


def test_the_folder_is_in_memory_where_there_is_such_a_place(monkeypatch):
    from arrowembed.tools.sharing.folder import shared_folder

    monkeypatch.delenv("ARROWEMBED_SHARED_DIR")
    folder = shared_folder()
    assert folder.name == f"arrowembed-{os.geteuid()}"
    if os.access("/dev/shm", os.W_OK):
        assert folder.parent == Path("/dev/shm")
