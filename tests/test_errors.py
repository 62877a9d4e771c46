"""Every error has its Python type, its built-in type and its code."""

import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from arrowembed import ArrowEmbedError, Embedder, _core, errors
from arrowembed.errors import (
    ModelFileError,
    ModelIOError,
    ModelNotFoundError,
    NonFiniteError,
    TextTooLongError,
    TokenizerError,
    UnsupportedModelError,
)

HF = Path(__file__).parent / "data" / "hf"

BUILTIN = {
    "ModelNotFoundError": FileNotFoundError,
    "ModelIOError": OSError,
    "ModelFileError": ValueError,
    "UnsupportedModelError": ValueError,
    "TokenizerError": ValueError,
    "InvalidArgumentError": ValueError,
    "InvalidTextError": ValueError,
    "TextTypeError": TypeError,
    "TextTooLongError": ValueError,
    "NonFiniteError": ArithmeticError,
    "OutOfMemoryError": MemoryError,
    "MemoryBudgetError": MemoryError,
    "DeviceError": RuntimeError,
    "QueueFullError": RuntimeError,
    "ClosedError": RuntimeError,
    "InternalError": RuntimeError,
    "MissingDependencyError": ImportError,
    "StoreNotFoundError": FileNotFoundError,
    "StoreFileError": ValueError,
    "StoreMismatchError": ValueError,
    "StoreIOError": OSError,
    "StoreLockedError": TimeoutError,
    "DuplicateIdError": ValueError,
    "HandleError": ValueError,
    "HandleGoneError": FileNotFoundError,
    "SharedMemoryError": OSError,
}


def test_every_error_is_also_the_builtin_one():
    assert set(errors.__all__) == {"ArrowEmbedError", *BUILTIN}
    for name, builtin in BUILTIN.items():
        kind = getattr(errors, name)
        assert issubclass(kind, ArrowEmbedError)
        assert issubclass(kind, builtin)
    codes = [getattr(errors, name).code for name in BUILTIN]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("name", BUILTIN)
def test_errors_pickle_and_keep_their_message(name):
    error = getattr(errors, name)("what went wrong")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "what went wrong"


def test_no_model_there(tmp_path):
    with pytest.raises(ModelNotFoundError) as caught:
        _core.Engine(_core.ModelConfig(str(tmp_path / "nothing")))
    assert caught.value.code == "model_not_found"


def test_a_damaged_file_names_itself(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    weights = folder / "model.arrow"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match=r"model\.arrow") as caught:
        Embedder(folder)
    assert caught.value.code == "invalid_file"


def test_a_changed_weight_is_found_by_its_checksum(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    weights = folder / "model.arrow"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        Embedder(folder, verify=True)
    assert caught.value.code == "checksum_mismatch"
    with pytest.raises(ModelFileError):
        _core.verify(str(folder))


def test_verify_counts_the_tensors(bert_folder):
    seen = []
    count = _core.verify(str(bert_folder), lambda done, total: seen.append((done, total)))
    assert count > 10
    assert seen[-1] == (count, count)


def test_a_missing_tokenizer(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="tokenizer"):
        Embedder(folder)


def test_a_damaged_tokenizer(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(TokenizerError):
        Embedder(folder)


def test_damaged_metadata(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    (folder / "metadata.json").write_text("[]")
    with pytest.raises(ModelFileError, match=r"metadata\.json"):
        Embedder(folder)


def test_an_unknown_architecture(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    metadata = folder / "metadata.json"
    metadata.write_text(
        metadata.read_text().replace('"architecture": "bert"', '"architecture": "perceiver"')
    )
    with pytest.raises(UnsupportedModelError, match="perceiver"):
        Embedder(folder)


def test_a_target_that_cannot_be_written(bert_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ModelIOError):
        _core.convert(str(bert_folder), str(blocked / "model"))


def test_a_text_that_is_too_long(model):
    with pytest.raises(TextTooLongError, match="text 1 has") as caught:
        model.encode(["short", "very long " * 100], truncate=False)
    assert caught.value.code == "text_too_long"


def test_an_overflow_is_an_error_and_not_a_vector(tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(HF / "bert", folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][5:] = 3e38
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(NonFiniteError, match="text 0") as caught:
        Embedder(folder).encode(["a"])
    assert caught.value.code == "non_finite"


def test_an_unknown_device(bert_folder):
    with pytest.raises(ArrowEmbedError) as caught:
        Embedder(bert_folder, device="abacus")
    assert caught.value.code in ("device", "invalid_argument")
