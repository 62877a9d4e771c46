"""`arrowembed benchmark` measures every row, and a peer beside the engine."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import HF, Command
from numpy.typing import NDArray

from arrowembed.errors import InvalidArgumentError, ModelNotFoundError
from arrowembed_converter import benchmark, peers
from arrowembed_converter.benchmark import System, WorkerError, benchmark_model, measure, sentences
from arrowembed_converter.conversion import convert_model
from arrowembed_converter.reference import Reference


@pytest.fixture(autouse=True)
def _few_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "STARTS", 1)


@pytest.fixture
def target(bert: Path, tmp_path: Path) -> Path:
    convert_model(str(bert), tmp_path / "target")
    return tmp_path / "target"


def test_sentences_are_enough_and_deterministic() -> None:
    texts = sentences()
    assert len(texts) >= benchmark.BATCH * benchmark.BATCHES
    assert all(30 <= len(text) <= 200 for text in texts)
    assert texts == sentences()


def test_measures_everything(target: Path) -> None:
    result = benchmark_model(str(target), threads=1, rounds=1)
    [measurement] = result.measurements
    rows = asdict(measurement)
    assert rows.pop("system") == "arrowembed"
    assert rows.pop("model") == str(target)
    assert all(value > 0 for value in rows.values())
    assert measurement.size_mb == (target / "model.arrow").stat().st_size / 1e6
    assert measurement.latency_p50_ms <= measurement.latency_p99_ms
    assert measurement.open_ms < measurement.start_to_first_vector_ms
    assert "sentences per second" in str(result)


def test_two_systems_beside_each_other(target: Path) -> None:
    systems = [System("arrowembed", str(target)), System("arrowembed", str(target))]
    result = measure(systems, threads=1, rounds=1)
    assert len(result.measurements) == 2
    assert "ratio" in str(result)


def test_command(target: Path, command: Command) -> None:
    result = command("benchmark", target, "--rounds", "1", "--threads", "1", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["threads"], report["rounds"]) == (1, 1)
    assert report["measurements"][0]["texts_per_second"] > 0


def test_a_peer_that_cannot_open_its_model(target: Path, command: Command, tmp_path: Path) -> None:
    result = command(
        *(
            "benchmark",
            target,
            "--against",
            "onnxruntime",
            "--peer-model",
            tmp_path,
            "--rounds",
            "1",
        )
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: onnxruntime: ")


def test_a_worker_that_dies(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(WorkerError, match="ended with status 1"):
        measure([System("arrowembed", str(target))], threads=1, rounds=1)


def test_peer_models_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[System] = []
    monkeypatch.setattr(
        benchmark, "measure", lambda systems, threads, rounds: measured.extend(systems)
    )
    for peer in ("sentence-transformers", "fastembed"):
        benchmark_model("all-MiniLM-L6-v2", against=peer)
    folder = measured[0].model
    assert [system.name for system in measured] == [
        *("arrowembed", "sentence-transformers"),
        *("arrowembed", "fastembed"),
    ]
    assert measured[1].model == folder
    assert measured[3].model == "sentence-transformers/all-MiniLM-L6-v2"


class _OnnxRuntime(ModuleType):
    """ONNX Runtime's interface; the session computes with the reference."""

    SessionOptions = SimpleNamespace

    class InferenceSession:
        def __init__(self, model: str, options: Any, providers: list[str]) -> None:
            assert options.intra_op_num_threads == 1
            assert providers == ["CPUExecutionProvider"]
            self.reference = Reference(Path(model).parent)

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")]

        def run(self, outputs: None, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[Any]]:
            assert outputs is None
            assert set(inputs) == {"input_ids", "attention_mask"}
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            hidden = np.full((*ids.shape, 64), np.float32(7))
            for row, kept in enumerate(mask.sum(axis=1)):
                states = self.reference.hidden_states(ids[row, :kept].tolist(), [0] * int(kept))
                hidden[row, :kept] = states[-1]
            return [hidden]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_onnxruntime_is_fed_and_pooled_rightly(
    bert: Path, copy_of: Any, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    folder: Path = copy_of(bert)
    (folder / "model.onnx").touch()
    config = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    config["pooling_mode_cls_token"] = pooling == "cls"
    config["pooling_mode_mean_tokens"] = pooling == "mean"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "onnxruntime", _OnnxRuntime("onnxruntime"))
    texts = ["a text", "", *sentences()[:40], "a long text " * 50]
    vectors = peers.load("onnxruntime", str(folder), threads=1).encode(texts)
    expected = Reference(folder).encode(texts)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_onnxruntime_needs_a_model_and_a_known_pooling(
    bert: Path, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = copy_of(bert)
    monkeypatch.setitem(sys.modules, "onnxruntime", _OnnxRuntime("onnxruntime"))
    with pytest.raises(ModelNotFoundError, match=r"model\.onnx"):
        peers.load("onnxruntime", str(folder))
    (folder / "model.onnx").touch()
    config = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    config |= {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="max"):
        peers.load("onnxruntime", str(folder))


def test_onnxruntime_is_not_compared_behind_dense_modules(
    copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = copy_of(HF / "gemma3-embedding")
    (folder / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", _OnnxRuntime("onnxruntime"))
    with pytest.raises(InvalidArgumentError, match="Dense"):
        peers.load("onnxruntime", str(folder))


def test_fastembed_gives_its_vectors_one_by_one(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference(bert)

    class TextEmbedding:
        def __init__(self, name: str, threads: int) -> None:
            assert (name, threads) == ("organisation/model", 3)

        def embed(self, texts: list[str]) -> Iterator[NDArray[Any]]:
            return (reference.encode_one(text) for text in texts)

    package = ModuleType("fastembed")
    package.TextEmbedding = TextEmbedding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastembed", package)
    vectors = peers.load("fastembed", "organisation/model", threads=3).encode(["a", "b"])
    np.testing.assert_array_equal(vectors, reference.encode(["a", "b"]))
