"""The command `arrowembed serve`: a process, its signals and its end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from running import replace_files, wait_for

from arrowembed import Embedder
from arrowembed.server.run import _bind

TEXT = "The cat sleeps on the mat."
BODY = b'{"texts": "a text that comes in two parts"}'


def vector(service):
    answer = service.post("/embed", {"texts": TEXT})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"][0], np.float32)


def half_a_request(service):
    """A connection on which a request was accepted of which half the body is missing."""
    url = httpx.URL(service.url)
    connection = socket.create_connection((url.host, url.port), timeout=60)
    connection.sendall(
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    )
    # Says that the service waits for the body.
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.sendall(BODY[:10])
    return connection


def workers_of(service):
    """The processes that answer, which are those that carry the command of multiprocessing."""
    children = Path(f"/proc/{service.popen.pid}/task/{service.popen.pid}/children")
    workers = set()
    for pid in map(int, children.read_text().split()):
        # One that has just been killed may be gone by now.
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.add(pid)
    return workers


def test_connections_of_sockets_that_are_handed_over_send_at_once():
    config = uvicorn.Config("", host="127.0.0.1", port=0, log_config=None)
    with _bind(config) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_stops_when_all_it_accepted_is_answered(process, workers, bert_mean_folder):
    service = process(bert_mean_folder, "--workers", workers)
    with half_a_request(service) as connection:
        service.popen.send_signal(signal.SIGTERM)
        service.wait_until(None)
        connection.sendall(BODY[10:])
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        assert b'"usage":{"texts":1,' in answer.read()
    assert service.exit_status() == 0
    assert "Traceback" not in service.log.read_text()


def test_it_says_that_it_will_stop_and_answers_until_then(process, bert_mean_folder):
    service = process(bert_mean_folder, "--drain-delay-seconds", 1)
    service.popen.send_signal(signal.SIGTERM)
    service.wait_until(503)
    answer = service.get("/ready")
    assert answer.json()["error"]["code"] == "closed"
    # Whoever has more to ask has to ask somebody else.
    assert answer.headers["connection"] == "close"
    assert vector(service).size
    assert service.exit_status() == 0


def test_it_stops_at_its_deadline(process, bert_mean_folder):
    service = process(bert_mean_folder, "--shutdown-seconds", 1)
    with half_a_request(service):
        service.popen.send_signal(signal.SIGTERM)
        assert service.exit_status() == 0


def test_ctrl_c_stops_it(process, bert_mean_folder):
    service = process(bert_mean_folder)
    service.popen.send_signal(signal.SIGINT)
    assert service.exit_status() == 130
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_loads_models_anew(process, workers, bert_folder, bert_mean_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "model")
    service = process(folder, "--workers", workers)
    np.testing.assert_array_equal(vector(service), Embedder(bert_folder).encode(TEXT))
    replace_files(folder, bert_mean_folder)
    service.popen.send_signal(signal.SIGHUP)
    expected = Embedder(bert_mean_folder).encode(TEXT)
    # Connections go to any worker: a row of equal answers comes from all.
    wait_for(lambda: all(np.array_equal(vector(service), expected) for _ in range(10 * workers)))
    service.popen.terminate()
    assert service.exit_status() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_worker_that_is_killed_is_replaced(process, bert_mean_folder):
    service = process(bert_mean_folder, "--workers", 2, "--num-threads", 1)
    answer = service.post("/models/bert-mean/reload", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    before = workers_of(service)
    assert len(before) == 2
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: vector(service).size and len(workers_of(service) - {killed}) == 2)
    for _ in range(20):
        assert vector(service).size
    assert service.get("/info").json()["num_threads"] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cannot_be_loaded_ends_it(process, workers, tmp_path):
    service = process(tmp_path / "absent", "--workers", workers, ready=False)
    assert service.exit_status() == 1
    log = service.log.read_text()
    assert "error: no model at " in log
    assert "absent: " in log


def test_a_port_that_is_taken_ends_it(process, bert_mean_folder):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        service = process(bert_mean_folder, "--port", port, ready=False)
        assert service.exit_status() != 0
        assert "address already in use" in service.log.read_text()


def test_settings_come_from_options_variables_and_a_file(process, bert_mean_folder, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        f"""
        max_texts = 1
        max_text_chars = 2
        max_body_bytes = 3000

        [[models]]
        name = "from-the-file"
        source = "{bert_mean_folder}"
        aliases = ["other"]
        """
    )
    service = process(
        "--config", file, "--max-texts", 7, ARROWEMBED_MAX_TEXTS="8", ARROWEMBED_MAX_TEXT_CHARS="9"
    )
    info = service.get("/info").json()
    limits = info["limits"]
    assert [limits[f"max_{name}"] for name in ("texts", "text_chars", "body_bytes")] == [7, 9, 3000]
    assert info["default_model"] == "from-the-file"
    assert info["models"][0]["aliases"] == ["other"]


def test_the_package_needs_none_of_the_service(bert_mean_folder):
    code = (
        "import sys, arrowembed; arrowembed.Embedder(sys.argv[1]).encode('a');"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'pydantic', 'orjson'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, bert_mean_folder], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_missing_package_is_named(monkeypatch):
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from arrowembed.errors import MissingDependencyError\n"
        "try:\n    import arrowembed.server\nexcept MissingDependencyError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'the service needs fastapi: pip install "arrowembed[server]"\n'
