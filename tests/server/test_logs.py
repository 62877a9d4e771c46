"""Logs tell what happened, and nothing of what clients sent."""

import io
import json
import logging
import secrets
import socket

import httpx
import pytest
from fastapi import Request
from running import running

from arrowembed.errors import ModelFileError
from arrowembed.server.observe.logs import formatter
from arrowembed.server.security.keys import new_key


@pytest.fixture(params=["json", "console"])
def lines(request):
    """What is logged meanwhile, in either form."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(console=request.param == "console"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def logged(path):
    """Lines of JSON in a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def verbose(process, tmp_path, bert_mean_folder):
    """A service that logs all it can, and a key for it."""
    key, kept = new_key("tester", ["embed", "search", "admin"])
    keys = tmp_path / "keys.txt"
    keys.write_text(kept.entry())
    arguments = ("--log-level", "debug", "--api-keys-file", keys, f"tiny={bert_mean_folder}")
    return process(*arguments), key


def test_a_line_for_each_request_with_all_there_is_to_know(verbose):
    service, key = verbose
    headers = {"x-api-key": key, "x-request-id": "mine-7"}
    fields = {"texts": ["some text", "some text", "other text"]}
    answer = httpx.post(f"{service.url}/embed", json=fields, headers=headers)
    usage = answer.json()["usage"]
    httpx.post(f"{service.url}/embed", json={"texts": 1}, headers=headers)
    service.popen.terminate()
    assert service.exit_status() == 0
    lines = logged(service.log)
    assert all({"event", "timestamp", "level", "logger"} <= line.keys() for line in lines)
    assert {"uvicorn.error", "arrowembed.server"} <= {line["logger"] for line in lines}
    good, bad = (line for line in lines if line.get("route") == "/embed")
    for measured in ("timestamp", "duration_ms", "queue_ms", "compute_ms"):
        assert good.pop(measured) or measured == "queue_ms"
    assert good == {
        "event": "request",
        "level": "info",
        "logger": "arrowembed.server.request",
        "request_id": "mine-7",
        "method": "POST",
        "route": "/embed",
        "status": 200,
        "model": "tiny",
        "client": "key",
        "texts": 3,
        "tokens": usage["tokens"],
        "truncated": 0,
        "cache_hits": usage["cached"],
    }
    assert (bad["status"], bad["code"], bad["client"]) == (422, "invalid_request", "key")
    assert "texts" not in bad
    probes = [line for line in lines if line.get("route") == "/ready"]
    assert probes
    assert {line["level"] for line in probes} == {"debug"}


def test_nothing_that_clients_send_is_logged(verbose):
    service, key = verbose
    mark = f"mark-{secrets.token_hex(8)}"
    known = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    asked = [(method, path) for path, methods in known.items() for method in methods]
    assert len(asked) > 8
    bodies = (
        {"json": {"texts": [mark, f"{mark} again"], "prompt": mark}},
        {"json": {"texts": mark, mark: mark}},
        {"json": {"texts": [{mark: mark}], "model": mark}},
        {"json": {"texts": mark, "model": mark, "prompt_name": mark}},
        {"json": {"inputs": mark, "prompt_name": mark}},
        {"json": {"texts": [mark + " word" * 5000], "truncate": False}},
        {"json": {"texts": [mark] * 101}},
        {"json": {"input": mark, "user": mark}},
        {"json": [mark]},
        {
            "content": f'{{"texts": "{mark}'.encode(),
            "headers": {"content-type": "application/json"},
        },
        {"content": mark.encode() + b"\xff", "headers": {"content-type": "application/json"}},
        {"content": mark.encode(), "headers": {"content-type": f"text/{mark}"}},
        {
            "content": mark.encode(),
            "headers": {"content-type": "application/vnd.apache.arrow.stream"},
        },
    )
    credentials = (
        {"x-api-key": key},
        {"authorization": f"Bearer {key}"},
        {"x-api-key": f"ae_{mark}"},
        {"authorization": f"Bearer {mark}.{mark}.{mark}"},
        {"authorization": f"Basic {mark}", "cookie": mark, "user-agent": mark, "referer": mark},
    )
    statuses = set()
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for method, template in asked:
            path = template.replace("{name}", mark)
            for sent in credentials:
                answer = client.request(method, f"{path}?text={mark}", headers=sent)
                statuses.add(answer.status_code)
            for body in bodies if method == "post" else ():
                headers = {"x-api-key": key, "x-request-id": f"{mark}!", **body.get("headers", {})}
                answer = client.request(method, path, **{**body, "headers": headers})
                statuses.add(answer.status_code)
        client.get(f"/{mark}/{mark}", headers=credentials[0])
        client.request(mark.upper(), "/embed", headers=credentials[0])
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(f"POST {mark} {mark}\r\n{mark}\r\n\r\n".encode())
        assert raw.recv(1000)
    service.popen.terminate()
    assert service.exit_status() == 0
    assert {200, 401, 404, 422} <= statuses
    log = service.log.read_text().lower()
    assert log.count('"event":"request"') > 50
    assert mark not in log
    assert key.lower() not in log
    assert "traceback" not in log
    # Libraries are heard from warnings on, whatever the level.
    lower = [line for line in logged(service.log) if line["level"] in ("debug", "info")]
    assert {line["logger"].partition(".")[0] for line in lower} == {"arrowembed", "uvicorn"}


def test_an_error_that_nobody_foresaw_is_logged_without_what_it_says(lines, bert_folder):
    secret = f"secret-{secrets.token_hex(8)}"
    with running(models=[{"name": "tiny", "source": str(bert_folder)}]) as service:

        @service.app.post("/broken")
        async def broken(request: Request):
            try:
                {}[secret]
            except KeyError as error:
                raise RuntimeError(f"failed on {secret}") from error

        answer = service.post("/broken", {"texts": secret})
        request_id = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert secret not in answer.text
    assert "RuntimeError" not in answer.text
    log = lines.getvalue()
    assert secret not in log
    assert request_id in log
    # Where it happened and of what kind it was helps whoever has to repair it.
    assert "builtins.RuntimeError" in log
    assert "builtins.KeyError" in log
    assert "test_logs.py" in log


def test_what_a_failure_of_the_engine_or_the_system_says_is_kept(lines):
    logger = logging.getLogger("arrowembed.server")
    for error in (ModelFileError("model.arrow: no footer"), OSError(28, "No space left on device")):
        logger.error("%s", "failed", exc_info=error)
    assert "arrowembed.errors.ModelFileError: model.arrow: no footer" in lines.getvalue()
    assert "builtins.OSError: No space left on device" in lines.getvalue()


def test_other_fields_and_further_lines_are_left_out(lines):
    logger = logging.getLogger("asyncio")
    logger.error("Task exception was never retrieved\nfuture: <Task %s>", "secret")
    logger.warning("with more", extra={"body": "secret", "status": 7})
    assert "never retrieved" in lines.getvalue()
    assert "with more" in lines.getvalue()
    assert "7" in lines.getvalue()
    assert "secret" not in lines.getvalue()


def test_only_what_is_asked_for_is_logged(process, bert_mean_folder):
    service = process("--log-level", "warning", f"tiny={bert_mean_folder}")
    service.post("/embed", {"texts": "a"})
    service.popen.terminate()
    assert service.exit_status() == 0
    assert service.log.read_text() == ""
