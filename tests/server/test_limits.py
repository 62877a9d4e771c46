"""What is refused, and how: each with a code, the place, and nothing of the server's insides."""

import json
import socket
from contextlib import contextmanager
from http.client import HTTPResponse

import httpx
import numpy as np
import pyarrow as pa
import pytest
from running import running
from schedulers import Failing, Waiting

from arrowembed.errors import QueueFullError

JSON = {"content-type": "application/json"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}


@pytest.fixture(scope="module")
def strict(bert_mean_folder):
    """A service with narrow limits."""
    with running(
        models=[str(bert_mean_folder)],
        max_texts=3,
        max_text_chars=50,
        max_body_bytes=2000,
        request_seconds=0.5,
    ) as service:
        yield service


def of(code, message, status=422, **more):
    return status, {"code": code, "message": message, **more}


DEEP = '{"texts": ' + "[" * 100_000 + "]" * 100_000 + "}"

BODIES = [
    ("", of("malformed_request", "Expecting value at line 1, column 1", 400)),
    ("{", of("malformed_request", "column 2", 400)),
    (b'{"texts": "\xff"}', of("malformed_request", "not UTF-8 at byte 11", 400)),
    (DEEP, of("malformed_request", "nested too deeply", 400)),
    ('{"texts": "a", "dimensions": NaN}', of("malformed_request", "NaN is no JSON", 400)),
    ('{"texts": "a", "dimensions": -Infinity}', of("malformed_request", "-Infinity", 400)),
    ('{"texts": "a", "dimensions": ' + "9" * 5000 + "}", of("malformed_request", "too long", 400)),
    ("[]", of("invalid_request", "expected an object")),
    ("{}", of("invalid_request", "texts: Field required")),
    ('{"texts": []}', of("invalid_request", "texts: ")),
    ('{"texts": null}', of("invalid_request", "texts: should be a valid list")),
    ('{"texts": {"a": 1}}', of("invalid_request", "texts: should be a valid list")),
    ('{"texts": ["a", 3]}', of("invalid_request", "texts[1]: should be a valid string", index=1)),
    ('{"texts": ["a", ["b"]]}', of("invalid_request", "texts[1]: ", index=1)),
    ('{"texts": "a", "texts": "b"}', of("invalid_request", "texts: is given more than once")),
    ('{"texts": "a", "tests": "b"}', of("invalid_request", "tests: no such field; known are ")),
    ('{"texts": "a", "inputs": "b"}', of("invalid_request", "texts, inputs: one of them")),
    ('{"texts": "a", "truncate": 1}', of("invalid_request", "truncate: should be a valid bool")),
    ('{"texts": "a", "normalize": "l2"}', of("invalid_request", "normalize: ")),
    ('{"texts": "a", "dimensions": 0}', of("invalid_request", "dimensions: should be greater")),
    ('{"texts": "a", "dimensions": 1000}', of("invalid_request", "dimensions: 1000; tiny has ")),
    ('{"texts": "a", "precision": "int4"}', of("invalid_request", "precision: should be 'float")),
    ('{"texts": "a", "precision": "int8"}', of("invalid_request", "ranges: int8 needs them")),
    (
        '{"texts": "a", "precision": "int8", "ranges": [[1e999], [1]]}',
        of("invalid_request", "ranges[0][0]: "),
    ),
    (
        '{"texts": "a", "precision": "int8", "ranges": [[0], [1]]}',
        of("invalid_request", "ranges: expected two lists of "),
    ),
    (
        '{"texts": "a", "prompt_name": "no"}',
        of("unknown_prompt", "prompt_name: tiny has no such", 404),
    ),
    ('{"texts": "a", "model": "no"}', of("unknown_model", "model: there is no 'no' here", 404)),
    ('{"texts": "a", "model": "\\ud800"}', of("invalid_text", "model: holds half")),
    (
        '{"texts": ["a", "\\ud83d"]}',
        of("invalid_text", "texts[1]: holds half of a surrogate pair at character 0", index=1),
    ),
    ('{"texts": "a", "prompt": "\\udc00"}', of("invalid_text", "prompt: holds half")),
    ('{"texts": ["a", "' + "word " * 500 + '"], "truncate": false}', of("text_too_long", "text 1")),
    (json.dumps({"texts": ["a"] * 101}), of("too_many_texts", "101 texts; send at most 100")),
    (
        json.dumps({"texts": ["a", "b" * 100_001]}),
        of("text_too_large", "text 1 has 100001 characters", index=1),
    ),
]


@pytest.mark.parametrize(("body", "expected"), BODIES, ids=[str(body)[:40] for body, _ in BODIES])
def test_bad_bodies(service, body, expected):
    answer = service.client.post("/embed", content=body, headers=JSON)
    error = answer.json()["error"]
    status, fields = expected
    assert answer.status_code == status, error
    assert error.pop("request_id") == answer.headers["x-request-id"]
    assert fields["message"] in error["message"]
    if "index" not in fields:
        error.pop("index", None)
    assert error == {**fields, "message": error["message"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "source: Field required"),
        ({"source": "a"}, "targets: Field required"),
        ({"source": "a", "targets": ["b"], "pairs": [["a", "b"]]}, "source: no such field"),
        ({"source": "a", "targets": []}, "targets: "),
        ({"pairs": [["a", "b"], ["c"]]}, "pairs[1]: "),
        ({"pairs": [["a", 1]]}, "pairs[0][1]: should be a valid string"),
    ],
)
def test_bad_comparisons(service, fields, message):
    status, error = service.error("/similarity", fields)
    assert (status, error["code"]) == (422, "invalid_request")
    assert message in error["message"]


def test_bad_tokenizations(service):
    assert service.error("/tokenize", {"texts": 1})[0] == 422
    status, error = service.error("/tokenize", {"texts": "a", "prompt_name": "no"})
    assert (status, error["code"]) == (404, "unknown_prompt")
    assert service.error("/tokenize", {"texts": ["a"] * 101})[1]["code"] == "too_many_texts"


@pytest.mark.parametrize("query", ["truncat=1", "dimensions=x", "dimensions=1&dimensions=2"])
def test_bad_queries(service, query):
    status, error = service.error(f"/embed?{query}", {"texts": "a"})
    assert (status, error["code"]) == (422, "invalid_request")
    assert error["message"].startswith(query.partition("=")[0] + ": ")


@pytest.mark.parametrize("given", ["text/plain", "application/x-www-form-urlencoded", None])
def test_other_types_are_refused(service, given):
    headers = {} if given is None else {"content-type": given}
    for path in ("/embed", "/similarity", "/tokenize"):
        answer = service.client.post(path, content=b'{"texts": "a"}', headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "unsupported_media_type"
        assert (given or "is missing") in answer.json()["error"]["message"]
    answer = service.client.post(
        "/embed", content=b'{"texts": "a"}', headers={"content-type": "Application/JSON; charset=x"}
    )
    assert answer.status_code == 200


def test_unknown_paths_and_methods(service):
    answer = service.client.get("/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    answer = service.client.put("/embed")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"


def arrow(table, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def views_of_one_large_text():
    text = b"a" * 500_000
    views = b"".join(
        np.array([len(text), int.from_bytes(b"aaaa", "little"), 0, 0], "<i4").tobytes()
        for _ in range(100)
    )
    buffers = [None, pa.py_buffer(views), pa.py_buffer(text)]
    return pa.table({"a": pa.Array.from_buffers(pa.string_view(), 100, buffers)})


def broken_utf8():
    buffers = [None, pa.py_buffer(np.array([0, 1], "<i4").tobytes()), pa.py_buffer(b"\xff")]
    return pa.table({"a": pa.Array.from_buffers(pa.string(), 1, buffers)})


STREAMS = [
    (b"", "malformed_request", "no Arrow IPC stream"),
    (b"not an Arrow stream", "malformed_request", "no Arrow IPC stream"),
    (arrow(pa.table({"a": ["b"]}))[:-40], "malformed_request", "a damaged one"),
    (arrow(broken_utf8()), "malformed_request", "a damaged one"),
    (arrow(pa.table({"a": ["b" * 1000]}), compression="zstd"), "malformed_request", "compression"),
    (arrow(pa.table({"a": [1]})), "invalid_request", "a column of int64; cast it"),
    (arrow(pa.table({"a": ["b"], "c": ["d"]})), "invalid_request", "2 columns"),
    (arrow(pa.table({"a": pa.array([], pa.string())})), "invalid_request", "no rows"),
    (arrow(pa.table({"a": ["b", None]})), "invalid_request", "text 1 is null"),
    (arrow(pa.table({"a": pa.array(["b"]).dictionary_encode()})), "invalid_request", "dictionary"),
    (arrow(pa.table({"a": ["b"] * 101})), "too_many_texts", "more than 100"),
    (arrow(pa.table({"a": ["b", "c" * 100_001]})), "text_too_large", "text 1"),
    (arrow(views_of_one_large_text()), "text_too_large", "text 0"),
]


@pytest.mark.parametrize(("body", "code", "message"), STREAMS, ids=range(len(STREAMS)))
def test_bad_streams(service, body, code, message):
    answer = service.client.post("/embed", content=body, headers=ARROW)
    assert answer.status_code == (400 if code == "malformed_request" else 422)
    assert answer.json()["error"]["code"] == code
    assert message in answer.json()["error"]["message"]


def test_every_damage_to_a_stream_is_answered(service):
    body = arrow(pa.table({"a": ["one", "two"]}))
    random = np.random.default_rng(0)
    for position in random.integers(0, len(body), 300):
        damaged = bytearray(body)
        damaged[position] ^= 1 << random.integers(8)
        answer = service.client.post("/embed", content=bytes(damaged), headers=ARROW)
        assert answer.status_code in (200, 400, 422), (position, answer.text)


@contextmanager
def connected(service):
    """A bare connection, for requests that no library would send."""
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        yield connection


def send(connection, body, length):
    """Sends the head of a request with a body of a length, and so much of the body as there is."""
    head = "POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {length}\r\n\r\n".encode() + body)


def answer_on(connection):
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())["error"]["code"]


def test_a_large_body_is_refused_before_it_is_read(strict):
    with connected(strict) as connection:
        send(connection, b"", 2001)
        assert answer_on(connection) == (413, "payload_too_large")


def test_a_large_body_in_chunks_is_refused(strict):
    def chunks():
        for _ in range(100):
            yield b" " * 100

    answer = strict.client.post("/embed", content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    fitting = [b'{"texts": ', b'"a"', b"}"]
    assert strict.client.post("/embed", content=iter(fitting), headers=JSON).status_code == 200


def test_a_slow_body_is_given_up(strict):
    with connected(strict) as connection:
        send(connection, b"{", 100)
        assert answer_on(connection) == (408, "slow_request")


def test_limits_are_those_of_the_settings(strict):
    assert strict.error("/embed", {"texts": ["a"] * 4})[1]["code"] == "too_many_texts"
    assert strict.error("/embed", {"texts": "a" * 51})[1]["code"] == "text_too_large"
    assert strict.post("/embed", {"texts": ["a" * 50] * 3}).status_code == 200


def test_time_runs_out(strict, with_scheduler):
    waiting = with_scheduler(strict, Waiting())
    status, error = strict.error("/embed", {"texts": "a"})
    assert (status, error["code"]) == (504, "timeout")
    assert waiting.cancelled.wait(10)


def test_work_for_a_client_that_is_gone_is_given_up(service, with_scheduler):
    waiting = with_scheduler(service, Waiting())
    body = b'{"texts": "a"}'
    with connected(service) as connection:
        send(connection, body, len(body))
        assert waiting.started.wait(10)
        assert not waiting.cancelled.is_set()
    assert waiting.cancelled.wait(10)


def test_a_full_queue_says_when_to_come_again(service, with_scheduler):
    with_scheduler(service, Failing(QueueFullError("4096 texts at /some/where")))
    answer = service.post("/embed", {"texts": "a"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"]["code"] == "queue_full"
    assert "where" not in answer.text


def test_nothing_of_an_unforeseen_error_is_told(service, with_scheduler, caplog):
    with_scheduler(service, Failing(KeyError("/secret/path")))
    status, error = service.error("/embed", {"texts": "a"})
    assert (status, error["code"]) == (500, "internal")
    assert "secret" not in error["message"]
    assert "/secret/path" in caplog.text


def test_an_error_in_the_dialect_of_its_request(service, with_scheduler):
    with_scheduler(service, Failing(QueueFullError("full")))
    answer = service.post("/embed", {"inputs": "a"})
    assert answer.status_code == 429
    assert answer.json()["error_type"] == "overloaded"
