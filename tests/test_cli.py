"""The command line."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from arrowembed import Embedder, __version__, cli, models
from arrowembed.cli.app import app

COMMANDS = [
    "convert",
    "pull",
    "models",
    "info",
    "embed",
    "similarity",
    "search",
    "index",
    "serve",
    "keys",
    "validate",
    "benchmark",
    "verify",
    "completion",
]


@pytest.fixture
def run(bert_mean_folder, monkeypatch):
    """Runs a command on the tiny model."""
    monkeypatch.setenv("ARROWEMBED_MODEL", str(bert_mean_folder))

    def invoke(*arguments, stdin=None):
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)

    return invoke


def script(*arguments, **options):
    """Runs the installed command in a process of its own."""
    code = "from arrowembed.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        **options,
    )


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output
        page = run(command, "--help")
        assert page.exit_code == 0
        assert "\\b" not in page.output


def test_version(run):
    assert run("--version").output == f"arrowembed {__version__}\n"


def test_embed_as_a_table(run):
    result = run("embed", "a cat", "two\nlines")
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first.startswith("a cat ")
    assert first.endswith("… 48 in all]")
    assert second.startswith("two lines ")


def test_embed_as_json_lines_keeps_every_bit(run, model):
    result = run("embed", "--format", "jsonl", "a cat", "Häuschen")
    records = [json.loads(line) for line in result.output.splitlines()]
    assert [record["text"] for record in records] == ["a cat", "Häuschen"]
    vectors = np.array([record["embedding"] for record in records], dtype=np.float32)
    np.testing.assert_array_equal(vectors, model.encode(["a cat", "Häuschen"]))


def test_embed_a_file_as_npy(run, model, tmp_path):
    (tmp_path / "texts.txt").write_bytes("a cat\r\n\nHäuschen".encode())
    output = tmp_path / "vectors.npy"
    result = run("embed", "--file", tmp_path / "texts.txt", "--format", "npy", "-o", output)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(output), model.encode(["a cat", "", "Häuschen"]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.txt", "vectors.npy"]


def test_embed_as_parquet(run, model, tmp_path):
    output = tmp_path / "vectors.parquet"
    assert run("embed", "a cat", "a dog", "--format", "parquet", "-o", output).exit_code == 0
    table = pq.read_table(output)
    assert table["text"].to_pylist() == ["a cat", "a dog"]
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(vectors, model.encode(["a cat", "a dog"]))


def test_parquet_needs_pyarrow(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("embed", "a", "--format", "parquet", "-o", tmp_path / "vectors.parquet")
    assert result.exit_code == 1
    assert 'pip install "arrowembed[arrow]"' in result.stderr
    assert not list(tmp_path.glob("*vectors*"))


def test_embed_standard_input(run, model):
    for arguments in (["embed"], ["embed", "-"], ["embed", "--file", "-"]):
        result = run(*arguments, "--format", "jsonl", stdin="a cat\na dog\n")
        vectors = [json.loads(line)["embedding"] for line in result.output.splitlines()]
        np.testing.assert_array_equal(
            np.array(vectors, np.float32), model.encode(["a cat", "a dog"])
        )


def test_embed_nothing(run, tmp_path):
    output = tmp_path / "vectors.npy"
    assert run("embed", "--format", "npy", "-o", output, stdin="").exit_code == 0
    assert np.load(output).shape == (0, 48)


def test_embed_options(run, model, tmp_path):
    output = tmp_path / "vectors.npy"
    options = ["--prompt", "query: ", "--pooling", "max", "--normalize", "max_abs"]
    assert run("embed", "a", *options, "--format", "npy", "-o", output).exit_code == 0
    expected = model.encode(["a"], prompt="query: ", pooling="max", normalize="max_abs")
    np.testing.assert_array_equal(np.load(output), expected)
    options = ["--precision", "ubinary", "--truncate-dim", "16", "--threads", "1"]
    assert run("embed", "a", "b", *options, "--format", "npy", "-o", output).exit_code == 0
    expected = model.encode(["a", "b"], precision="ubinary", truncate_dim=16)
    np.testing.assert_array_equal(np.load(output), expected)
    result = run("embed", "many words " * 100, "--no-truncate")
    assert result.exit_code == 1
    assert "text 0 has" in result.stderr


def test_a_failure_leaves_the_old_file(run, tmp_path):
    output = tmp_path / "vectors.npy"
    output.write_text("old")
    (tmp_path / "texts.txt").write_bytes(b"fine\nbroken \xff\n")
    result = run("embed", "--file", tmp_path / "texts.txt", "--format", "npy", "-o", output)
    assert result.exit_code == 1
    assert "line 2: not UTF-8" in result.stderr
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt", "vectors.npy"]


def test_similarity(run, model):
    result = run("similarity", "a cat", "a dog", "--format", "json")
    document = json.loads(result.output)
    assert document["function"] == "cosine"
    expected = model.similarity(["a cat", "a dog"], ["a cat", "a dog"])
    np.testing.assert_allclose(document["similarity"], expected, atol=1e-6)
    table = run("similarity", "a cat", "a dog").output.splitlines()
    assert table[0] == "cosine similarity"
    assert table[2].startswith("  1  a cat")
    assert table[2].endswith(f"{1:8.3f}{expected[0, 1]:8.3f}")


def test_search(run, model, tmp_path):
    lines = ["the cat sleeps", "", "stocks fall", "a kitten naps", "rain tomorrow"]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    result = run("search", "cat", "--file", tmp_path / "lines.txt", "-k", 2, "--format", "jsonl")
    hits = [json.loads(line) for line in result.output.splitlines()]
    scores = model.similarity("cat", lines)[0]
    scores[1] = -np.inf
    best = np.argsort(-scores)[:2]
    assert [hit["line"] for hit in hits] == (best + 1).tolist()
    assert [hit["text"] for hit in hits] == [lines[i] for i in best]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[best], atol=1e-5)
    table = run("search", "cat", "-k", 1, stdin="\n".join(lines)).output
    assert table.strip().endswith(lines[best[0]])


def test_info(run):
    details = json.loads(run("info", "--json").output)
    assert details["dimension"] == 48
    assert "dimension             48" in run("info").output
    assert "compute               float32" in run("info").output


@pytest.mark.parametrize("command", ["info", "embed", "similarity", "search"])
def test_compute(run, command):
    assert "--compute [auto|float32|float16|bfloat16|int16|int8]" in run(command, "--help").output
    assert json.loads(run("info", "--compute", "int8", "--json").output)["compute"] == "int8"
    wrong = run("info", "--compute", "int4")
    assert wrong.exit_code == 2
    assert "'auto', 'float32', 'float16', 'bfloat16', 'int16', 'int8'" in wrong.stderr


def test_instructions_that_the_processor_has_not(run, monkeypatch):
    monkeypatch.setenv("ARROWEMBED_ISA", "fp16")
    wrong = run("similarity", "a", "b")
    assert wrong.exit_code == 1
    assert 'ARROWEMBED_ISA: is "fp16", this processor has scalar' in wrong.stderr
    monkeypatch.setenv("ARROWEMBED_ISA", "scalar")
    assert run("similarity", "a", "b").exit_code == 0


def test_pull_converts_and_keeps_a_model(run):
    result = run("pull", "all-MiniLM-L6-v2")
    assert result.exit_code == 0, result.output
    kept = models.home_path("all-MiniLM-L6-v2")
    assert (kept / "model.arrow").is_file()
    assert Embedder("all-MiniLM-L6-v2").path == kept
    assert "there already" in run("pull", "sentence-transformers/all-MiniLM-L6-v2").output
    assert run("pull", "all-MiniLM-L6-v2", "--force", "--dtype", "int8").exit_code == 0
    assert Embedder("all-MiniLM-L6-v2").info()["dtype"] == "int8"
    listed = json.loads(run("models", "--json").output)
    assert {"name": "all-MiniLM-L6-v2", "place": "home", "path": str(kept)} in listed
    assert "all-MiniLM-L6-v2  home" in run("models").output


def test_no_models(run, monkeypatch):
    monkeypatch.setattr(models, "in_packages", lambda: iter(()))
    result = run("models")
    assert result.exit_code == 0
    assert "bring one: arrowembed pull" in result.stderr
    assert result.stdout == ""


def test_verify(run, bert_mean_folder, copy_of):
    result = run("verify", bert_mean_folder)
    assert result.exit_code == 0
    assert "tensors, all as they were written" in result.output
    damaged = copy_of(bert_mean_folder)
    content = bytearray((damaged / "model.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "model.arrow").write_bytes(content)
    result = run("verify", damaged)
    assert result.exit_code == 1
    assert "checksum" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run, shell):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_ARROWEMBED_COMPLETE" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["embedd"],
        ["embed", "--unknown"],
        ["embed", "a", "--file", "-"],
        ["embed", "a", "--format", "xml"],
        ["embed", "a", "--precision", "int4"],
        ["embed", "--file", "no/such/file"],
        ["similarity", "alone"],
        ["search", "query", "--file", "-", "-k", "0"],
        ["completion", "cmd"],
    ],
)
def test_misuse_has_status_2(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failure_has_status_1_and_no_traceback(run):
    result = run("embed", "a", "--model", "organisation/nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no model named 'organisation/nothing'; looked at")
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(bert_mean_folder):
    result = script("--debug", "embed", "a", "--model", "organisation/nothing")
    assert result.returncode == 1
    assert b"Traceback" in result.stderr
    assert b"ModelNotFoundError" in result.stderr


def test_a_missing_output_folder_is_a_failure(run, tmp_path):
    result = run("embed", "a", "-o", tmp_path / "missing" / "vectors.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_commands_of_the_converter_say_what_to_install(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("arrowembed_converter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arrowembed_converter", None)
    result = run("convert", "a", "b")
    assert result.exit_code == 1
    assert 'pip install "arrowembed[convert]"' in result.stderr
    assert run("--help").exit_code == 0


def test_without_click_the_script_says_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("arrowembed.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert 'pip install "arrowembed[cli]"' in capsys.readouterr().err


def test_a_closed_pipe_is_quiet(bert_mean_folder, tmp_path):
    (tmp_path / "texts.txt").write_text("a line\n" * 5000)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from arrowembed.cli import main; main()",
            *("embed", "-m", bert_mean_folder, "-f", tmp_path / "texts.txt", "--format", "jsonl"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b'{"text": "a line"')
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_a_token_is_never_shown(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = run("pull", "organisation/nothing")
    assert result.exit_code == 1
    assert "hf_secret" not in result.output
