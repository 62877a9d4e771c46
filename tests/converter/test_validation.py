"""`arrowembed validate`: passes what is right, fails what is wrong, says which."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from commands import HF, Command
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from arrowembed.errors import InvalidArgumentError, MissingDependencyError, ModelFileError
from arrowembed_converter import peers
from arrowembed_converter.conversion import convert_model
from arrowembed_converter.reference import Reference
from arrowembed_converter.validation import (
    ARITHMETIC_TOLERANCES,
    TOLERANCES,
    agreement,
    read_texts,
    tolerance_of,
    validate_model,
)
from arrowembed_converter.validation_texts import TEXTS


def test_the_texts_are_many_and_different() -> None:
    assert len(TEXTS) >= 60
    assert len(set(TEXTS)) == len(TEXTS)
    assert {"", " "} <= set(TEXTS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int16", "int8"])
def test_the_real_model(tmp_path: Path, dtype: Any) -> None:
    target = tmp_path / "all-MiniLM-L6-v2"
    convert_model("all-MiniLM-L6-v2", target, dtype=dtype)
    result = validate_model(str(target))
    assert result.different_tokens == []
    assert result.truncated >= 3
    assert result.reference.mean <= result.reference.worst <= TOLERANCES[dtype]
    assert result.passed
    # The tolerance is not so wide that it would pass another dtype's errors.
    assert dtype == "float32" or result.reference.worst > TOLERANCES["float32"]


def test_half_precision_has_a_tolerance_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "all-MiniLM-L6-v2"
    convert_model("all-MiniLM-L6-v2", target)
    result = validate_model(str(target), compute="float16")
    assert (result.dtype, result.compute) == ("float16", "float16")
    assert result.reference.worst <= result.tolerance == ARITHMETIC_TOLERANCES["float16"]
    assert TOLERANCES["int16"] < result.tolerance < TOLERANCES["bfloat16"]


def test_gguf_files_have_tolerances_of_their_own(command: Command, bert: Path) -> None:
    file = bert.parents[1] / "gguf" / "bert-F16.gguf"
    assert "(F16 weights" in command("validate", file, "--source", bert).stdout
    assert tolerance_of("F32") == TOLERANCES["float32"]
    assert tolerance_of("F16") == TOLERANCES["float16"]
    assert tolerance_of("Q4_K, Q6_K") > TOLERANCES["int8"]


def test_the_source_of_another_model_is_refused(bert: Path) -> None:
    file = bert.parents[1] / "gguf" / "bert-256-Q8_0.gguf"
    with pytest.raises(InvalidArgumentError, match="have 64 numbers, those of the model 256"):
        validate_model(str(file), source=str(bert))


def test_arithmetic_chosen_when_opened(bert: Path, command: Command, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target")
    arguments = ("validate", tmp_path / "target", "--source", bert, "--compute", "int8")
    assert "(float16 weights, computed in int8)" in command(*arguments).stdout
    report = json.loads(command(*arguments, "--json").stdout)
    assert (report["dtype"], report["compute"]) == ("float16", "int8")
    assert report["tolerance"] == TOLERANCES["int8"]
    assert TOLERANCES["float16"] < report["reference"]["worst"] <= TOLERANCES["int8"]


def test_command(bert: Path, command: Command, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target", dtype="float32")
    arguments = ("validate", tmp_path / "target", "--source", bert)
    result = command(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "token ids are the same in all texts" in result.stdout
    assert "passed" in result.stdout
    report = json.loads(command(*arguments, "--json").stdout)
    assert report["passed"] is True
    assert report["texts"] == len(TEXTS)
    assert report["reference"]["worst"] < 1e-9


def test_fails_beyond_the_tolerance(bert: Path, command: Command, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target", dtype="int8")
    arguments = ("validate", tmp_path / "target", "--source", bert)
    assert command(*arguments).returncode == 0
    result = command(*arguments, "--tolerance", "1e-12")
    assert result.returncode == 1
    assert "FAILED" in result.stdout


def test_other_tokens_fail(bert: Path, command: Command, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert_model(str(bert), target)
    path = target / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(metadata | {"max_seq_length": 10}), encoding="utf-8")
    result = command("validate", target, "--source", bert, "--tolerance", "2")
    assert result.returncode == 1
    assert "token ids DIFFER" in result.stdout


def test_another_source_is_refused(bert: Path, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target")
    source = Path(shutil.copytree(bert, tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] = tensors["embeddings.LayerNorm.bias"] + 1
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ModelFileError, match="not what the model was converted from"):
        validate_model(str(tmp_path / "target"), source=str(source))


def test_a_source_that_is_nowhere(bert: Path, command: Command, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target", name="my-own")
    result = command("validate", tmp_path / "target", "--local-files-only")
    assert result.returncode == 1
    assert result.stderr.startswith("error: the original of 'my-own' is not found")
    assert "--source" in result.stderr


def test_own_texts(bert: Path, command: Command, tmp_path: Path) -> None:
    convert_model(str(bert), tmp_path / "target")
    texts = tmp_path / "texts.txt"
    texts.write_text("eins\nzwei drei\n", encoding="utf-8")
    result = command(
        *("validate", tmp_path / "target", "--source", bert, "--texts", texts, "--json")
    )
    assert json.loads(result.stdout)["texts"] == 2


def test_reading_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text('["a\\nb", ""]', encoding="utf-8")
    assert read_texts(path) == ["a\nb", ""]
    for content in ("[1]", "{}", "["):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InvalidArgumentError, match=r"texts\.json"):
            read_texts(path)
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InvalidArgumentError, match=r"latin1\.txt"):
        read_texts(path)


def test_no_texts(bert: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no texts"):
        validate_model(str(bert), texts=[])


def test_agreement_keeps_small_angles() -> None:
    a = np.array([[1.0, 0.0], [1.0, 0.0]])
    b = np.array([[2.0, 0.0], [1.0, 1e-9]])
    result = agreement(a, b)
    assert result.worst_text == 1
    assert result.worst == pytest.approx(5e-19, rel=1e-6)
    assert result.max_abs_difference == 1


def test_agreement_of_texts_without_tokens() -> None:
    zero, other = np.zeros((1, 2)), np.array([[1.0, 0.0]])
    assert agreement(zero, zero).worst == 0
    assert agreement(zero, other).worst == 0.5


def test_against_a_package_that_is_not_there(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match="pip install sentence-transformers"):
        peers.load("sentence-transformers", str(bert))


def test_against_sentence_transformers(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interface, played by the reference."""

    class SentenceTransformer:
        def __init__(self, folder: str, device: str) -> None:
            self.reference = Reference(folder)
            assert device == "cpu"

        def encode(self, texts: list[str], **_: object) -> NDArray[np.float32]:
            return self.reference.encode(texts).astype(np.float32)

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    torch = ModuleType("torch")
    torch.set_num_threads = lambda count: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    monkeypatch.setitem(sys.modules, "torch", torch)
    convert_model(str(HF / "bert"), tmp_path / "target", dtype="float32")
    result = validate_model(
        str(tmp_path / "target"), source=str(bert), against="sentence-transformers"
    )
    assert result.peer["sentence-transformers, reference (float64)"].worst < 1e-12
    assert result.peer["engine, sentence-transformers"].worst < 1e-9
    assert "engine, sentence-transformers" in str(result)
