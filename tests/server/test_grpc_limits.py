"""What is refused over gRPC, and how; and calls that nobody waits for any more."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest
from calling import calling, nothing, numbered, refused
from exposition import scrape
from google.rpc.error_details_pb2 import RequestInfo, RetryInfo
from running import running, wait_for
from schedulers import Failing, Gate, Waiting

from arrowembed.errors import QueueFullError
from arrowembed.server.grpc import api
from arrowembed.server.grpc.calls import Calls

EMBED = f"/{api.SERVICE}/Embed"
STREAM = f"/{api.SERVICE}/EmbedStream"


@pytest.fixture(scope="module")
def service(bert_mean_folder):
    with running(models=[f"tiny={bert_mean_folder}"], grpc_port=0) as service:
        yield service


@pytest.fixture(scope="module")
def channel(service):
    with calling(service) as channel:
        yield channel


@pytest.fixture(scope="module")
def strict(bert_mean_folder):
    """A service with narrow limits."""
    with running(
        models=[str(bert_mean_folder)], grpc_port=0, max_body_bytes=2000, request_seconds=0.3
    ) as service:
        yield service


REQUESTS = [
    ({}, "invalid_request", "texts: "),
    ({"texts": ["a"] * 101}, "too_many_texts", "101 texts; send at most 100"),
    ({"texts": ["a", "b" * 100_001]}, "text_too_large", "text 1 has 100001 characters"),
    ({"texts": ["a", "word " * 500], "truncate": False}, "text_too_long", "text 1"),
    (
        {"texts": ["a"], "model": "ñ"},
        "unknown_model",
        "model: there is no 'ñ' here; known are tiny",
    ),
    ({"texts": ["a"], "dimensions": 0}, "invalid_request", "dimensions: should be greater"),
    ({"texts": ["a"], "dimensions": 1000}, "invalid_request", "dimensions: 1000; tiny has "),
    ({"texts": ["a"], "prompt_name": "no"}, "unknown_prompt", "prompt_name: tiny has no such"),
    ({"texts": ["a"], "format": 7}, "invalid_request", "format: 7 stands for nothing; known are "),
    ({"texts": ["a"], "precision": 9}, "invalid_request", "precision: 9 stands for nothing"),
    ({"texts": ["a"], "precision": 2}, "invalid_request", "format: float16 comes packed only"),
    ({"texts": ["a"], "precision": 3, "format": 2}, "invalid_request", "ranges: int8 needs them"),
    (
        {"texts": ["a"], "precision": 3, "format": 2, "ranges": {"lowest": [0], "highest": [1]}},
        "invalid_request",
        "ranges: expected two lists of ",
    ),
    (
        {"texts": ["a"], "ranges": {"lowest": [float("nan")], "highest": [1]}},
        "invalid_request",
        "ranges[0][0]: should be a finite number",
    ),
]


@pytest.mark.parametrize(("fields", "code", "message"), REQUESTS, ids=range(len(REQUESTS)))
def test_bad_requests(channel, fields, code, message):
    request = api.EmbedRequest(**fields)
    refusal = refused(channel.stub.Embed, request)
    assert (refusal.code, message in refusal.message) == (code, True)
    expected = "NOT_FOUND" if code.startswith("unknown_") else "INVALID_ARGUMENT"
    assert refusal.status == expected
    (answer,) = channel.stub.EmbedStream(numbered(request), timeout=60)
    assert (answer.error.code, answer.error.message) == (code, refusal.message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "source: Field required"),
        ({"source": "a"}, "targets: Field required"),
        ({"source": "a", "pairs": [{"first": "a"}]}, "source: no such field; known are "),
    ],
)
def test_bad_comparisons(channel, fields, message):
    refusal = refused(channel.stub.Similarity, api.SimilarityRequest(**fields))
    assert (refusal.status, refusal.code) == ("INVALID_ARGUMENT", "invalid_request")
    assert message in refusal.message


NO_MESSAGES = [b"\xff", b"\x0a\xff", b"\x0a\x01\xff"]
"""No field, a text that is cut off, and one that is no UTF-8."""


@pytest.mark.parametrize("body", NO_MESSAGES)
def test_bytes_that_are_no_message(channel, body):
    refusal = refused(channel.raw("Embed"), body)
    assert (refusal.status, refusal.code) == ("INVALID_ARGUMENT", "malformed_request")
    good = next(numbered(["a"])).SerializeToString()
    bad = b"\x12" + bytes((len(body),)) + body
    answers = channel.raw("EmbedStream", stream=True)(iter((good, bad)), timeout=60)
    assert api.EmbedStreamResponse.FromString(next(answers)).response.usage.texts == 1
    refusal = refused(next, answers)
    assert (refusal.status, refusal.code) == ("INVALID_ARGUMENT", "malformed_request")


def test_a_large_message_is_refused(strict):
    with calling(strict) as channel:
        assert channel.embed("a" * 1900).usage.texts == 1
        assert refused(channel.embed, "a" * 2100).status == "RESOURCE_EXHAUSTED"
        assert channel.embed("a" * 1900).usage.texts == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_nothing_is_unpacked(channel, compression):
    """A small message could become a very large one."""
    request = api.EmbedRequest(texts=["a" * 1000])
    refusal = refused(channel.stub.Embed, request, compression=compression)
    assert refusal.status == "UNIMPLEMENTED"


@pytest.mark.parametrize("letter", ["x", "ñ", "字", "\U0001f600"])
def test_a_long_message_is_cut_so_that_it_arrives(channel, letter):
    refusal = refused(channel.embed, "a", model=letter * 100_000)
    assert (refusal.status, refusal.code) == ("NOT_FOUND", "unknown_model")
    assert refusal.message.startswith(f"model: there is no '{letter * 200}")


def test_a_full_queue_says_when_to_come_again(service, channel, with_scheduler):
    with_scheduler(service, Failing(QueueFullError("4096 texts at /some/where")))
    refusal = refused(channel.embed, "a", metadata=[("x-request-id", "mine")])
    assert (refusal.status, refusal.code) == ("RESOURCE_EXHAUSTED", "queue_full")
    assert refusal.metadata["retry-after"] == "1"
    assert "where" not in refusal.message
    assert refusal.details[1].Unpack(known := RequestInfo())
    assert known.request_id == "mine"
    assert refusal.details[2].Unpack(retry := RetryInfo())
    assert retry.retry_delay.seconds == 1
    (answer,) = channel.stub.EmbedStream(numbered(["a"]), timeout=60)
    assert (answer.error.code, answer.error.retry_after_seconds) == ("queue_full", 1)


def test_nothing_of_an_unforeseen_error_is_told(service, channel, with_scheduler, caplog):
    with_scheduler(service, Failing(KeyError("/secret/path")))
    refusal = refused(channel.embed, "a")
    assert (refusal.status, refusal.code) == ("INTERNAL", "internal")
    assert "secret" not in repr(vars(refusal))
    assert "/secret/path" in caplog.text
    (answer,) = channel.stub.EmbedStream(numbered(["a"]), timeout=60)
    assert (answer.error.code, answer.error.message) == ("internal", refusal.message)


def test_time_runs_out(strict, with_scheduler):
    waiting = with_scheduler(strict, Waiting())
    with calling(strict) as channel:
        refusal = refused(channel.embed, "a")
        assert (refusal.status, refusal.code) == ("DEADLINE_EXCEEDED", "timeout")
        assert refusal.message.startswith("not done within 0.3 seconds")
        assert waiting.cancelled.wait(10)
        (answer,) = channel.stub.EmbedStream(numbered(["a"]), timeout=60)
        assert answer.error.code == "timeout"


def test_a_slow_message_is_given_up(strict):
    never = threading.Event()
    with calling(strict) as channel:
        call = channel.channel.stream_unary(EMBED, None, None)
        refusal = refused(call, nothing(never))
        assert (refusal.status, refusal.code) == ("DEADLINE_EXCEEDED", "slow_request")
        assert refused(call, iter(())).code == "malformed_request"
    never.set()


@contextmanager
def counted(service, route, status):
    """Waits until as many requests with that status were counted as there are inside."""
    labels = {"route": route, "status": status}

    def count():
        return scrape(service.client).total("embedding_request_total", **labels)

    before, requests = count(), []
    yield requests.append
    wait_for(lambda: count() == before + len(requests))


def test_the_deadline_of_a_client_is_honoured(service, channel, with_scheduler):
    waiting = with_scheduler(service, Waiting())
    with counted(service, EMBED, "504") as add:
        add(refused(channel.embed, "a", timeout=0.2).status == "DEADLINE_EXCEEDED")
        assert waiting.cancelled.wait(10)


@pytest.mark.parametrize(
    ("remaining", "stopping", "why"),
    [
        (0.0, False, "timeout"),
        # The client's clock for it has run out, the service's not quite.
        (0.05, False, "timeout"),
        (0.05, True, "timeout"),
        (0.5, False, "client_closed_request"),
        (None, False, "client_closed_request"),
        (0.5, True, "closed"),
        (None, True, "closed"),
    ],
)
def test_why_a_call_was_cancelled(remaining, stopping, why):
    calls = Calls()
    calls.stopping = stopping
    assert calls.why_cancelled(SimpleNamespace(time_remaining=lambda: remaining)) == why


def test_a_cancelled_call_is_given_up(service, channel, with_scheduler):
    waiting = with_scheduler(service, Waiting())
    with counted(service, EMBED, "499") as add:
        call = channel.stub.Embed.future(api.EmbedRequest(texts=["a"]))
        assert waiting.started.wait(10)
        assert not waiting.cancelled.is_set()
        call.cancel()
        assert waiting.cancelled.wait(10)
        add(call)


def test_work_for_a_client_that_is_gone_is_given_up(service, with_scheduler):
    waiting = with_scheduler(service, Waiting())
    with calling(service) as channel:
        call = channel.stub.Embed.future(api.EmbedRequest(texts=["a"]))
        assert waiting.started.wait(10)
        assert not call.done()
    assert waiting.cancelled.wait(10)


def test_all_requests_of_a_cancelled_stream_are_given_up(service, channel, with_scheduler):
    gate = with_scheduler(service, Gate(service))
    with counted(service, STREAM, "499") as add:
        call = channel.stub.EmbedStream(numbered(*([str(i)] for i in range(20))))
        gate.wait_for(20)
        call.cancel()
        wait_for(lambda: gate.inside == 0)
        for i in range(20):
            add(i)


def test_a_client_that_stops_reading_holds_nothing_up(service, channel):
    """The answers, 20 MB of them, do not fit into what lies between."""
    texts = [str(i) for i in range(100)]
    request = api.EmbedRequest(texts=texts, format=api.VECTOR_FORMAT_FLOATS)
    call = channel.stub.EmbedStream(numbered(*[request] * 1600))
    assert next(call).response.usage.texts == 100
    assert channel.embed("a").usage.texts == 1
    call.cancel()
    wait_for(lambda: not service.app.state.grpc._calls._tasks)


def test_what_a_cancelled_call_asked_for_is_not_computed(minilm_folder):
    """100 long texts take seconds; the call is cancelled as soon as the first were computed."""
    texts = [f"{i} " + "word " * 300 for i in range(100)]
    with running(models=[str(minilm_folder)], grpc_port=0) as service, calling(service) as channel:

        def computed():
            return scrape(service.client).total("embedding_batch_texts_sum")

        call = channel.stub.Embed.future(api.EmbedRequest(texts=texts))
        wait_for(lambda: computed() > 0)
        call.cancel()
        scheduler = next(iter(service.app.state.models)).variants[0].current.scheduler
        wait_for(lambda: scheduler.info()["queued_texts"] == 0)
        wait_for(lambda: scheduler.info()["running_batches"] == 0)
        # A later request is computed after what was there before.
        assert channel.embed("later").usage.cached == 0
        assert computed() < len(texts)
