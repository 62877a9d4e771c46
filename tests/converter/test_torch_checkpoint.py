"""pytorch_model.bin is read exactly, and nothing in one can run or ask for too much."""

import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch_files import Checkpoint, Storage, Tensor, checkpoint_of, pickled, storage_of

from arrowembed.errors import ModelFileError
from arrowembed_converter.reference import Reference
from arrowembed_converter.torch_checkpoint import convert_folder, read_checkpoint
from arrowembed_converter.torch_pickle import read_pickle

PATH = Path("x.bin")
NUMBERS = np.arange(24, dtype=np.float32)


@pytest.fixture
def numbers() -> Storage:
    return storage_of("0", NUMBERS)


def test_every_dtype(tmp_path: Path) -> None:
    tensors = {
        dtype: np.array([[0, 1, 2], [3, 100, 7]], dtype)
        for dtype in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")
    }
    read = read_checkpoint(checkpoint_of(tensors).write(tmp_path / "x.bin"))
    assert list(read) == list(tensors)
    for name, expected in tensors.items():
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    storage = Storage("BFloat16Storage", "0", np.array([0x3FC0, 0xC000], "<u2").tobytes(), 2)
    path = Checkpoint({"x": Tensor(storage, (2,), (1,))}, [storage]).write(tmp_path / "x.bin")
    read = read_checkpoint(path)["x"]
    assert read.dtype == np.float32
    assert read.tolist() == [1.5, -2.0]


def test_views_of_a_shared_storage(tmp_path: Path, numbers: Storage) -> None:
    state = {
        "tied": Tensor(numbers, (4, 6), (6, 1)),
        "transposed": Tensor(numbers, (6, 3), (1, 6), offset=6),
        "scalar": Tensor(numbers, (), (), offset=23),
        "empty": Tensor(numbers, (0, 5), (5, 1), offset=24),
        "parameter": Tensor(numbers, (2,), (1,), parameter=True),
    }
    read = read_checkpoint(Checkpoint(state, [numbers]).write(tmp_path / "x.bin"))
    np.testing.assert_array_equal(read["tied"], NUMBERS.reshape(4, 6))
    np.testing.assert_array_equal(read["transposed"], NUMBERS[6:].reshape(3, 6).T)
    assert read["scalar"].shape == ()
    assert read["scalar"] == 23
    assert read["empty"].shape == (0, 5)
    assert read["parameter"].tolist() == [0, 1]


def test_long_state_dict(tmp_path: Path) -> None:
    """More than 256 memo entries and more than one batch of SETITEMS."""
    tensors = {f"layer.{i}": np.full(3, i, np.float32) for i in range(2500)}
    read = read_checkpoint(checkpoint_of(tensors).write(tmp_path / "x.bin"))
    assert {name: values[2] for name, values in read.items()} == {
        f"layer.{i}": i for i in range(2500)
    }


@pytest.mark.parametrize("sharded", [False, True])
def test_folder_gives_the_same_vectors(bert: Path, tmp_path: Path, sharded: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(bert, source)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    if sharded:
        names = sorted(tensors)
        shards = {"pytorch_model-1.bin": names[:9], "pytorch_model-2.bin": names[9:]}
        for shard, part in shards.items():
            checkpoint_of({name: tensors[name] for name in part}).write(source / shard)
        weight_map = {name: shard for shard, part in shards.items() for name in part}
        index = source / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    else:
        checkpoint_of(tensors).write(source / "pytorch_model.bin")
    convert_folder(source, target)
    assert not list(target.rglob("*.bin"))
    texts = ["Hello world", "a second text"]
    np.testing.assert_array_equal(Reference(target).encode(texts), Reference(bert).encode(texts))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"weight_map": {"x": "../secret.bin"}}', "not a plain file name"),
        ('{"weight_map": {"x": "/etc/passwd"}}', "not a plain file name"),
        ('{"weight_map": {"x": 3}}', "not a plain file name"),
        ('{"weight_map": {}}', "names no tensors"),
        ('{"weight_map": ["x"]}', "names no tensors"),
        ("[]", "not an index"),
        ("{}", "not an index"),
        ("{", "not an index"),
        ("[" * 100_000, "not an index"),
    ],
)
def test_spoiled_index(bert: Path, tmp_path: Path, content: str, reason: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(bert, source)
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelFileError, match=reason):
        convert_folder(source, tmp_path / "target")


class Call:
    """Pickles as a call that `pickle.load` would make."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (lambda file: Call(os.system, f"touch {file}"), "system"),
        (lambda file: Call(eval, f"open({str(file)!r}, 'w')"), "eval"),
        (lambda _: Call(getattr, "", "join"), "getattr"),
        (lambda file: Call(Path, str(file)), "pathlib"),
        (lambda _: Call(pickle.loads, b""), "loads"),
    ],
)
def test_code_is_refused_by_name_and_does_not_run(
    tmp_path: Path, attack: Callable[[Path], Call], named: str
) -> None:
    file = tmp_path / "owned"
    path = Checkpoint({"x": attack(file)}).write(tmp_path / "x.bin")
    with pytest.raises(ModelFileError, match=named):
        read_checkpoint(path)
    assert not file.exists()


@pytest.mark.parametrize(
    "global_name",
    [
        b"torch._utils\n_rebuild_device_tensor",
        b"torch\nQInt8Storage",
        b"torch\nload",
        b"os\nsystem",
    ],
)
def test_other_globals_are_refused_by_name(global_name: bytes) -> None:
    name = global_name.decode().replace("\n", ".")
    with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
        read_pickle(PATH, b"\x80\x02c" + global_name + b"\n.")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "a call"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "a call"),
        (b"\x80\x02K\x01Q.", "persistent id"),
        (b"\x80\x02}K\x01K\x02s.", "key is no text"),
        (b"\x80\x02K\x01K\x02K\x03s.", "not a dict"),
        (b"\x80\x02K\x01K\x02a.", "not a list"),
        (b"\x80\x02h\x07.", "damaged pickle"),
        (b"\x80\x02t.", "damaged pickle"),
        (b"\x80\x02\x85.", "stack underflow"),
        (b"\x80\x02q\x01.", "damaged pickle"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "damaged pickle"),
        (b"\x80\x02}", "damaged pickle"),
        (b"\x80\x02.", "does not hold a state dict"),
        (b"\x80\x02K\x01.", "does not hold a state dict"),
        (b"", "damaged pickle"),
    ],
)
def test_spoiled_programs(program: bytes, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        read_pickle(PATH, program)


def test_huge_memo_index_costs_nothing() -> None:
    assert read_pickle(PATH, b"\x80\x02}r\xff\xff\xff\xff.") == {}


def test_nested_keys_cannot_hang_or_crash() -> None:
    """Hashing this tuple would take 2 to the power of 40 steps."""
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(40))
    with pytest.raises(ModelFileError, match="key is no text but tuple"):
        read_pickle(PATH, b"\x80\x02})" + doubled + b"K\x01s.")


def test_every_cut_and_many_flips_of_a_pickle_are_errors_or_tensors() -> None:
    content = pickled(checkpoint_of({"a": NUMBERS, "b": NUMBERS.reshape(4, 6)}).state)
    damaged = [content[:end] for end in range(len(content))]
    for i in range(len(content)):
        damaged += [
            content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for bit in (1, 16, 128)
        ]
    refused = 0
    for candidate in damaged:
        try:
            read_pickle(PATH, candidate)
        except ModelFileError:
            refused += 1
    assert refused > len(damaged) / 2


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((4, 6), (7, 1), 0),
        ((1 << 62, 1 << 62), (1 << 62, 1), 0),
        ((25, 1), (0, 0), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
        ((2, 2), (1,), 0),
        ((1,) * 9, (1,) * 9, 0),
        ((True,), (1,), 0),
        (("a",), (1,), 0),
        ((0,), (1,), 25),
    ],
)
def test_views_beyond_their_storage(
    numbers: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    with pytest.raises(ModelFileError, match=r"beyond its storage|damaged pickle"):
        read_pickle(PATH, pickled({"x": Tensor(numbers, shape, strides, offset)}))


def test_storage_of_another_size(tmp_path: Path, numbers: Storage) -> None:
    state = {"x": Tensor(numbers, (4,), (1,))}
    stored = Storage("FloatStorage", "0", numbers.content + b"more", 24)
    with pytest.raises(ModelFileError, match="has 100 bytes, 24 elements of FloatStorage"):
        read_checkpoint(Checkpoint(state, [stored]).write(tmp_path / "x.bin"))


def test_missing_storage(tmp_path: Path, numbers: Storage) -> None:
    path = Checkpoint({"x": Tensor(numbers, (4,), (1,))}).write(tmp_path / "x.bin")
    with pytest.raises(ModelFileError, match="storage '0' is missing"):
        read_checkpoint(path)


def test_tensors_that_would_take_more_memory_than_the_file(tmp_path: Path) -> None:
    storage = storage_of("0", np.zeros(10_000, np.float32))
    state = {f"x{i}": Tensor(storage, (10_000,), (1,)) for i in range(100)}
    with pytest.raises(ModelFileError, match="would take 4000000 bytes"):
        read_checkpoint(Checkpoint(state, [storage]).write(tmp_path / "x.bin"))


def test_compressed_archive(tmp_path: Path) -> None:
    checkpoint = checkpoint_of({"x": np.zeros(1_000_000, np.float32)})
    checkpoint.compression = zipfile.ZIP_DEFLATED
    with pytest.raises(ModelFileError, match="compressed"):
        read_checkpoint(checkpoint.write(tmp_path / "x.bin"))


def test_big_endian(tmp_path: Path) -> None:
    checkpoint = checkpoint_of({"x": NUMBERS})
    checkpoint.byteorder = b"big"
    with pytest.raises(ModelFileError, match="big-endian"):
        read_checkpoint(checkpoint.write(tmp_path / "x.bin"))


def test_damaged_bytes_fail_their_checksum(tmp_path: Path) -> None:
    path = checkpoint_of({"x": NUMBERS}).write(tmp_path / "x.bin")
    content = path.read_bytes()
    path.write_bytes(content.replace(NUMBERS.tobytes(), (NUMBERS + 1).tobytes()))
    with pytest.raises(ModelFileError, match="CRC"):
        read_checkpoint(path)


def test_every_flipped_byte_of_an_archive_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = checkpoint_of({"a": NUMBERS[:2], "b": NUMBERS[:4].reshape(2, 2)}).write(tmp_path / "x")
    content = path.read_bytes()
    refused = 0
    for i in range(len(content)):
        for bits in (1, 128):
            path.write_bytes(content[:i] + bytes([content[i] ^ bits]) + content[i + 1 :])
            try:
                read = read_checkpoint(path)
            except ModelFileError:
                refused += 1
            else:
                # A field was hit on which nothing depends; the content has its checksums.
                assert list(read) == ["a", "b"]
                assert read["a"].tolist() == [0, 1]
                assert read["b"].tolist() == [[0, 1], [2, 3]]
    assert refused > len(content)


def test_every_cut_archive_is_an_error(tmp_path: Path) -> None:
    path = checkpoint_of({"x": NUMBERS}).write(tmp_path / "x.bin")
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileError):
            read_checkpoint(path)


def test_twice_the_same_entry(tmp_path: Path) -> None:
    path = checkpoint_of({"x": NUMBERS}).write(tmp_path / "x.bin")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", b"other")
    with pytest.raises(ModelFileError, match="twice"):
        read_checkpoint(path)


def test_training_checkpoint(tmp_path: Path) -> None:
    state = OrderedDict(model=checkpoint_of({"x": NUMBERS}).state, epoch=3)
    with pytest.raises(ModelFileError, match="'model' is no tensor but dict"):
        read_checkpoint(Checkpoint(state).write(tmp_path / "x.bin"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), "before 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "damaged zip archive"),
        (b"", "not a zip archive"),
    ],
)
def test_other_formats(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason):
        read_checkpoint(path)
