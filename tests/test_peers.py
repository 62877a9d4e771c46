"""The comparison with other engines under `benches/peers`, as far as it needs none of them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import texts as texts_module
from peers import environments, limit, lines, machine, measure, process, report
from peers.models import MADE, Models
from peers.process import Worker, WorkerError
from peers.results import Accuracy, Memory, Results, Sample

from arrowembed import Embedder


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return Embedder(minilm_folder, cache_size=0)


@pytest.mark.parametrize("kind", ["short", "mixed", "long"])
def test_texts_have_exactly_the_lengths_of_their_kind(minilm, kind):
    passages = texts_module.text_set(kind, 100, minilm)
    assert texts_module.token_counts(passages, minilm) == texts_module.lengths(kind, 100)
    assert len(set(passages)) == 100


def test_lengths_span_their_kind():
    assert set(texts_module.lengths("short", 100)) == set(range(8, 21))
    mixed = texts_module.lengths("mixed", 100)
    assert (min(mixed), max(mixed)) == (8, 256)
    assert sum(length < 45 for length in mixed) == 50
    with pytest.raises(ValueError, match="no text set 'tiny'"):
        texts_module.lengths("tiny", 1)


def test_lines_have_their_engines_models_and_environments():
    names = [line.name for line in lines.LINES]
    assert len(set(names)) == len(names)
    for line in lines.LINES:
        module = (
            environments.REQUIREMENTS.parent / "engines" / f"{line.engine.replace('-', '_')}.py"
        )
        assert module.is_file()
        assert line.model.split("/")[0] in {"arrow", "source", *MADE}
    wanted = {line.engine for line in lines.LINES} | {made.environment for made in MADE.values()}
    locks = {file.stem for file in environments.REQUIREMENTS.glob("*.lock")}
    assert locks == wanted - {lines.OWN}


def test_lines_are_chosen_by_engine_or_name():
    assert lines.chosen([]) == list(lines.LINES)
    assert [line.name for line in lines.chosen(["fastembed"])] == ["arrowembed", "fastembed"]
    assert [line.name for line in lines.chosen(["ONNX-Runtime-int8", "arrowembed-int16"])] == [
        "arrowembed",
        "arrowembed int16",
        "ONNX Runtime int8",
    ]
    with pytest.raises(ValueError, match="'torch'"):
        lines.chosen(["torch"])


def test_gguf_lines_have_ours_of_the_same_file_beside_them():
    chosen = lines.chosen(["llama.cpp-q8_0"])
    assert [line.name for line in chosen] == ["arrowembed", "arrowembed Q8_0", "llama.cpp Q8_0"]
    assert chosen[1].model == chosen[2].model
    files = {line.model for line in lines.chosen(["llama-cpp-python"])}
    assert len(files) == 1 + len(lines.GGUF)


def test_models_given_are_found_and_failures_remembered(tmp_path, monkeypatch):
    made = Models(tmp_path, {"source": tmp_path / "hf"})
    assert made.find("source") == tmp_path / "hf"
    calls = []

    def fails(home, name):
        calls.append(name)
        raise environments.SetupError("no network")

    monkeypatch.setattr(environments, "python", fails)
    for _ in range(2):
        with pytest.raises(environments.SetupError, match="no network"):
            made.find("gguf/some.gguf")
    assert calls == ["gguf"]


def test_a_failing_setup_says_its_last_line(tmp_path):
    program = "import sys; print('first'); sys.exit('no such package')"
    with pytest.raises(environments.SetupError, match=r"^no such package .see .*setup.log"):
        environments.run([sys.executable, "-c", program], tmp_path / "setup.log")


def test_cpu_fields():
    text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2\n\nmodel name\t: another\n"
    assert machine.field(text, "model name") == "A CPU"
    assert machine.field(text, "flags", "Features") == "fpu avx2"
    assert machine.field(text, "CPU part") == ""


def test_accuracy():
    expected = np.eye(3)
    answer = {"vectors": [[2.0, 0.0, 0.0], [0.6, 0.8, 0.0], None], "together": "an error"}
    ids = [[1], [2], [3]]
    found = measure.compare(answer, expected, ids)
    each = [pytest.approx(1.0), pytest.approx(0.8), None]
    assert found == Accuracy(pytest.approx(0.9), pytest.approx(0.8), 1, 1, "an error", each)
    found = measure.compare({**answer, "ids": [[1], [2, 2], [3]]}, expected, ids)
    assert found.right == [True, False, True]


def test_gguf_files_are_compared_over_the_texts_that_both_see_alike():
    found = results()
    found.accuracy["arrowembed F16"] = Accuracy(0, 0, 0, 0, None, [0.9, 1.0, 0.998])
    found.accuracy["llama.cpp F16"] = Accuracy(
        0, 0, 0, 0, None, [0.5, 0.999, 0.996], [False, True, True]
    )
    page = report.same_ids(found)
    assert "| arrowembed F16 | 2 | 1.0e-03 | 2.0e-03 |" in page
    assert "| llama.cpp F16 | 2 | 2.5e-03 | 4.0e-03 |" in page
    assert "Q8_0" not in page


def test_rounds_have_everybody_in_changing_order():
    items = dict.fromkeys("abcdefgh", 0)
    orders = [list(measure.shuffled(items, seed)) for seed in range(3)]
    assert all(sorted(order) == list(items) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def results():
    found = Results({"CPU": "a CPU"}, threads=2, rounds=3)
    found.lines = ["arrowembed", "CTranslate2", "fastembed", "OpenVINO"]
    for line, factor in (("arrowembed", 1), ("CTranslate2", 1.25), ("fastembed", 4)):
        for threads in (1, 2):
            seconds = [factor * s / threads for s in (1.0, 2.0, 30.0)]
            found.samples += [
                Sample(line, "short", threads, 8, 100, 1400, seconds),
                Sample(line, "12 tokens", threads, 1, 20, 240, [s / 1000 for s in seconds]),
            ]
        found.samples.append(Sample(line, "start", 2, 1, 1, 0, [factor / 10]))
    found.memory["arrowembed"] = Memory(50_000_000, 70_000_000, 20_000_000)
    found.accuracy["fastembed"] = Accuracy(0.999, 0.99, 0, 0, None)
    found.failures["OpenVINO"] = "opening: no | wheel"
    found.about["CTranslate2"] = {"ctranslate2": "1.2.3"}
    return found


def test_report():
    page = report.report(results())
    rows = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in page.splitlines()}
    # Medians are 1 and 1.25 seconds for 100 texts on two threads.
    assert ("arrowembed", "100", "1400", "1.00", "8") in rows
    assert ("CTranslate2", "80", "1120", "0.80", "8") in rows
    assert ("arrowembed", "1.00", "1.00", "-", "-") in rows  # milliseconds
    assert ("OpenVINO", "-", "-", "-", "-") in rows
    best = ("arrowembed / best float32 peer", "1.25 (CTranslate2)", "-", "-", "0.80 (CTranslate2)")
    assert (*best, "-", "0.80 (CTranslate2)") in rows
    assert ("arrowembed / fastembed", "4.00", "-", "-", "0.25", "-", "0.25") in rows
    assert ("arrowembed", "2.00", "-", "-", "2.00", "-") in rows  # from 1 to 2 threads
    assert ("arrowembed", "0.10", "50", "70", "20") in rows
    assert ("fastembed", "1.0e-03", "1.0e-02", "0", "0") in rows
    assert ("OpenVINO", "opening: no \\", "wheel") in rows


def test_report_without_our_line():
    found = results()
    found.lines.remove("arrowembed")
    assert "Ours against theirs" not in report.report(found)


def test_worker(minilm_folder, tmp_path, minilm):
    settings = {"engine": "arrowembed", "model": str(minilm_folder), "threads": 1, "one": False}
    python, log = process.Path(sys.executable), tmp_path / "log"
    with Worker(python, settings | {"options": {}}, log) as worker:
        assert worker.ready()["loaded"] > 1_000_000
        rows = worker.ask(vectors=["one", "two"], batch=8)["vectors"]
        np.testing.assert_array_equal(np.array(rows, np.float32), minilm.encode(["one", "two"]))
        assert len(worker.ask(texts=["one", "two"], each=True)["seconds"]) == 2
        assert len(worker.ask(texts=["one", "two"], batch=1)["seconds"]) == 1
        memory = worker.ask(memory=True)
        assert 0 < memory["private"] <= memory["resident"]
        assert worker.ask(about=True)["kernels"]
        with pytest.raises(WorkerError, match="KeyError"):
            worker.ask(nothing=True)
        worker.ask(about=True)  # goes on
    with Worker(python, settings | {"options": {"nonsense": 1}}, log) as worker:
        with pytest.raises(WorkerError, match=r"TypeError.*nonsense"):
            worker.ready()
        with pytest.raises(WorkerError, match="ended with status 0"):
            worker.ask(about=True)


def test_golden_texts_belong_together():
    from peers.__main__ import golden

    texts, vectors, ids = golden()
    assert len(ids) == len(texts)
    assert vectors.shape == (len(texts), 384)
    assert json.dumps(texts)


def test_engines_can_be_limited_to_avx2_or_it_is_said_why_not(tmp_path):
    (tmp_path / "logs").mkdir()
    flags = machine.field(Path("/proc/cpuinfo").read_text(), "flags").split()
    if "cpuid_fault" not in flags:
        # Of another architecture, it does not even compile.
        why = r"cannot be limited to AVX2 here" if flags else r"avx2\.log"
        with pytest.raises(environments.SetupError, match=why):
            limit.library(tmp_path)
        return
    library = limit.library(tmp_path)
    variables = limit.unlimited() | {"LD_PRELOAD": str(library)}
    # In a process of its own and in one that it starts.
    code = "from arrowembed import _core; print(_core.isa())"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    for program in (code, nested):
        output = subprocess.check_output([sys.executable, "-c", program], env=variables, text=True)
        assert output.strip() == ("avx2" if {"avx2", "fma", "f16c"} <= set(flags) else "scalar")
    fault = [sys.executable, "-c", "import ctypes; ctypes.string_at(0)"]
    ended = subprocess.run(fault, check=False, env=variables)
    assert ended.returncode == -signal.SIGSEGV


def test_a_library_that_the_loader_would_pass_over_is_refused(tmp_path):
    folder = tmp_path / "with a space"
    (folder / "logs").mkdir(parents=True)
    with pytest.raises(environments.SetupError, match="a space or a colon"):
        limit.library(folder)
