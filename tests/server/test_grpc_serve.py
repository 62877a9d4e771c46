"""The door for gRPC of a whole service: how it starts, is found ready, and stops."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading

import grpc
import pytest
from calling import address_of, calling, numbered, refused
from exposition import scrape
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running import running, wait_for
from schedulers import Gate

from arrowembed.server import variant
from arrowembed.server.grpc import api

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EVERYTHING = health_pb2.HealthCheckRequest()
ONE = api.EmbedRequest(texts=["one"])


def one_and_no_end(end):
    """A request of a stream, which then stays open until an event."""
    yield from numbered(["one"])
    end.wait(60)


def test_a_client_of_asyncio(process, bert_mean_folder):
    service = process("--grpc-port", 0, f"tiny={bert_mean_folder}")

    async def ask():
        async with grpc.aio.insecure_channel(address_of(service)) as channel:
            stub = api.EmbeddingServiceStub(channel)
            one = await stub.Embed(ONE)
            many = await asyncio.gather(*(stub.Embed(ONE) for _ in range(100)))
            assert all(answer.vectors == one.vectors for answer in many)
            call = stub.EmbedStream()
            for number in (3, 1, 2):
                await call.write(api.EmbedStreamRequest(id=number, request=ONE))
                answer = await call.read()
                assert (answer.id, answer.response.vectors) == (number, one.vectors)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            call = stub.EmbedStream(numbered(*(["one"] for _ in range(200))))
            assert {answer.id async for answer in call} == set(range(200))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Embed(api.EmbedRequest())
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.trailing_metadata()["error-code"] == "invalid_request"

    asyncio.run(ask())


def test_health_follows_readiness(monkeypatch, bert_mean_folder):
    load, real = threading.Event(), variant._open
    monkeypatch.setattr(variant, "_open", lambda *given: load.wait(60) and real(*given))
    with running(wait=False, models=[f"tiny={bert_mean_folder}"], grpc_port=0) as service:
        channel = grpc.insecure_channel(f"localhost:{service.app.state.grpc.port}")
        health = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(service=api.SERVICE))
        assert next(watching).status == NOT_SERVING
        assert health.Check(EVERYTHING).status == NOT_SERVING
        load.set()
        assert next(watching).status == SERVING
        assert health.Check(EVERYTHING).status == SERVING
    assert next(watching).status == NOT_SERVING
    with pytest.raises(grpc.RpcError):
        next(watching)
    channel.close()


@pytest.fixture
def held(bert_mean_folder, with_scheduler):
    """A service with a request that is being answered until the gate is opened."""
    settings = {"grpc_port": 0, "shutdown_seconds": 600}
    with running(models=[f"tiny={bert_mean_folder}"], **settings) as service:
        gate = with_scheduler(service, Gate(service))
        with calling(service) as channel:
            call = channel.stub.Embed.future(ONE)
            gate.wait_for(1)
            yield service, channel, gate, call


def stop(service, gate):
    """Tells the door to close; the result is there once it is closed."""
    return asyncio.run_coroutine_threadsafe(service.app.state.grpc.stop(), gate._loop)


def test_what_was_accepted_is_answered_before_it_stops(held):
    service, channel, gate, call = held
    streams = [channel.stub.EmbedStream(iter(numbered(["in a stream"])), timeout=60)]
    end = threading.Event()
    streams.append(channel.stub.EmbedStream(one_and_no_end(end), timeout=60))
    gate.wait_for(2)
    watching = health_pb2_grpc.HealthStub(channel.channel).Watch(EVERYTHING)
    assert next(watching).status == SERVING
    stopping = stop(service, gate)
    assert next(watching).status == NOT_SERVING
    wait_for(lambda: is_refused(service))
    assert not call.done()
    assert not stopping.done()
    gate.open()
    assert call.result().usage.texts == 1
    assert [answer.response.usage.texts for answer in streams[0]] == [1]
    assert next(streams[1]).response.usage.texts == 1
    ended = refused(next, streams[1])
    assert (ended.status, ended.code) == ("UNAVAILABLE", "closed")
    # Nobody waits for those who watch.
    stopping.result(60)
    end.set()


def is_refused(service):
    """Whether a new connection is."""
    try:
        with socket.create_connection(("127.0.0.1", service.app.state.grpc.port)):
            return False
    except ConnectionRefusedError:
        return True


def test_it_stops_at_its_deadline(held, monkeypatch):
    service, _, gate, call = held
    settings = service.app.state.grpc._settings.model_copy(update={"shutdown_seconds": 0})
    monkeypatch.setattr(service.app.state.grpc, "_settings", settings)
    stop(service, gate).result(60)
    assert call.code() is not grpc.StatusCode.OK
    assert scrape(service.client).total("embedding_errors_total", code="closed") == 1


def test_sigterm_ends_streams_and_the_process(process, bert_mean_folder):
    delay = ("--drain-delay-seconds", "0.5")
    service = process("--grpc-port", 0, *delay, f"tiny={bert_mean_folder}")
    end = threading.Event()
    with grpc.insecure_channel(address_of(service)) as channel:
        stub = api.EmbeddingServiceStub(channel)
        watching = health_pb2_grpc.HealthStub(channel).Watch(EVERYTHING)
        assert next(watching).status == SERVING
        answers = stub.EmbedStream(one_and_no_end(end))
        assert next(answers).id == 0
        service.popen.send_signal(signal.SIGTERM)
        assert next(watching).status == NOT_SERVING
        # It says that it will stop, and answers until then.
        assert stub.Embed(ONE).usage.texts == 1
        ended = refused(next, answers)
        assert (ended.status, ended.code) == ("UNAVAILABLE", "closed")
        assert service.exit_status() == 0
        end.set()
    assert "Traceback" not in service.log.read_text()


def test_several_workers_share_the_port(process, bert_mean_folder):
    service = process("--grpc-port", 0, "--workers", 2, f"tiny={bert_mean_folder}")

    def started():
        events = [json.loads(line)["event"] for line in service.log.read_text().splitlines()]
        return [event for event in events if event.startswith("gRPC on ")]

    wait_for(lambda: len(started()) == 2)
    assert len(set(started())) == 1
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    for _ in range(20):
        with grpc.insecure_channel(address_of(service), own_connection) as channel:
            assert api.EmbeddingServiceStub(channel).Embed(ONE).usage.texts == 1
    count = scrape(service).total("embedding_request_total", route=f"/{api.SERVICE}/Embed")
    assert count == 20
    end = threading.Event()
    with grpc.insecure_channel(address_of(service)) as channel:
        answers = api.EmbeddingServiceStub(channel).EmbedStream(one_and_no_end(end))
        assert next(answers).id == 0
        service.popen.send_signal(signal.SIGTERM)
        assert refused(next, answers).code == "closed"
        assert service.exit_status() == 0
        end.set()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_somebody_has_is_named(process, bert_mean_folder, workers):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        service = process(
            *("--grpc-port", port, "--workers", workers, f"tiny={bert_mean_folder}"), ready=False
        )
        assert service.exit_status() == 1
    expected = f"error: grpc_port: cannot listen on 127.0.0.1:{port}; is it in use?"
    assert expected in service.log.read_text()


def python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_extra_is_named(bert_mean_folder, workers):
    code = "import sys; sys.modules['grpc'] = None; from arrowembed.cli import main; main()"
    arguments = ("--port", 0, "--grpc-port", 0, "--workers", workers, f"tiny={bert_mean_folder}")
    done = python(code, "serve", *arguments)
    assert done.returncode == 1
    assert done.stderr.endswith('error: gRPC needs grpc: pip install "arrowembed[grpc]"\n')


def test_grpc_is_not_imported_where_it_is_not_wanted():
    done = python(
        "import sys; from arrowembed.server import create_app; create_app(); "
        "print([name for name in sys.modules if name.partition('.')[0] in ('grpc', 'google')])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
