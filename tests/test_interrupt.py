"""Ctrl-C during a long call."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import HF

ENCODE = """
import sys
import numpy as np
from arrowembed import Embedder

model = Embedder(sys.argv[1], cache_size=0)
before = model.encode("before")
texts = [f"number {i} of so many texts that they take far too long" for i in range(300_000)]
try:
    print("started", flush=True)
    model.encode(texts)
except KeyboardInterrupt:
    np.testing.assert_array_equal(model.encode("before"), before)
    print("interrupted and usable", model.info()["texts"] < len(texts))
"""


def interrupt(command, **options):
    """Runs a command, sends SIGINT once it has said "started", gives its output and status."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, out, err


def test_a_long_call_stops_and_the_process_goes_on(minilm_folder, tmp_path):
    status, out, err = interrupt(
        [sys.executable, "-c", ENCODE, str(minilm_folder)], cwd=tmp_path, env=os.environ
    )
    assert out == "interrupted and usable True\n"
    assert err == ""
    assert status == 0


CLI = """
import sys
from arrowembed import cli, Embedder

encode = Embedder.encode

def announced(self, *arguments, **options):
    print("started", flush=True)
    Embedder.encode = encode
    return encode(self, *arguments, **options)

Embedder.encode = announced
sys.argv = ["arrowembed", "embed", "--model", sys.argv[1], "--file", sys.argv[2]]
cli.main()
"""


def test_the_command_line_leaves_quietly(minilm_folder, tmp_path):
    (tmp_path / "texts.txt").write_text("a line of the file\n" * 200_000)
    status, _, err = interrupt(
        [sys.executable, "-c", CLI, str(minilm_folder), str(tmp_path / "texts.txt")], cwd=tmp_path
    )
    assert status == 130
    assert err.strip() == ""


ONE_LONG_TEXT = """
import sys
import numpy as np
from arrowembed import Embedder, set_num_threads

set_num_threads(int(sys.argv[2]))
model = Embedder(sys.argv[1], cache_size=0)
before = model.encode("before")
try:
    print("started", flush=True)
    model.encode("one text that takes far too long " * 6_000)
except KeyboardInterrupt:
    np.testing.assert_array_equal(model.encode("before"), before)
    print("interrupted and usable", model.info()["texts"])
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_single_long_text_stops(long_model, threads, tmp_path):
    status, out, err = interrupt(
        [sys.executable, "-c", ONE_LONG_TEXT, str(long_model), str(threads)], cwd=tmp_path
    )
    assert out == "interrupted and usable 2\n"
    assert err == ""
    assert status == 0


@pytest.fixture
def long_model(copy_of):
    """A small model that takes long texts."""
    folder = copy_of(HF / "qwen2")
    for name, setting in [
        ("config.json", "max_position_embeddings"),
        ("sentence_bert_config.json", "max_seq_length"),
    ]:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | {setting: 30_000}))
    return folder
