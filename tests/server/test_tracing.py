"""Traces, as a collector gets them over a real socket."""

import gzip
import http.server
import re
import sys
import threading

import pytest
from calling import calling, numbered
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running import running

from arrowembed.errors import MissingDependencyError
from arrowembed.server import create_app, read_settings
from arrowembed.server.grpc import api

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(monkeypatch):
    """A collector; `spans` has those that it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                server.services.update(
                    a.value.string_value
                    for a in resource.resource.attributes
                    if a.key == "service.name"
                )
                for scope in resource.scope_spans:
                    server.spans += scope.spans
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.spans, server.services = [], set()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes_of(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_the_spans_of_a_request(collector, bert_mean_folder, texts):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}], tracing=True
    ) as service:
        headers = {"traceparent": PARENT}
        answer = service.post("/embed?model=tiny", {"texts": texts}, headers=headers)
        assert answer.status_code == 200
        usage = answer.json()["usage"]
        refused = service.post("/embed", {"texts": 7})
        assert refused.status_code == 422
    # What was not sent yet is sent when the service ends.
    assert collector.services == {"arrowembed"}
    own = [span for span in collector.spans if span.trace_id.hex() == PARENT.split("-")[1]]
    (request,) = (span for span in own if span.name == "POST /embed")
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    context = f"00-{request.trace_id.hex()}-{request.span_id.hex()}-01"
    assert answer.headers["traceresponse"] == context
    attributes = attributes_of(request)
    assert attributes["http.route"] == "/embed"
    assert attributes["http.response.status_code"] == 200
    assert attributes["embedding.model"] == "tiny"
    assert attributes["embedding.texts"] == len(texts)
    assert attributes["embedding.tokens"] == usage["tokens"]
    assert attributes["embedding.cache_hits"] == usage["cached"]
    # Behind the question mark may be anything.
    assert attributes["url.query"] == "REDACTED"
    children = {span.name: span for span in own if span is not request}
    assert children.keys() == {"queue", "forward", "serialise"}
    assert {span.parent_span_id for span in children.values()} == {request.span_id}
    queue, forward, serialise = (children[name] for name in ("queue", "forward", "serialise"))
    assert queue.start_time_unix_nano <= queue.end_time_unix_nano == forward.start_time_unix_nano
    assert forward.start_time_unix_nano < forward.end_time_unix_nano
    assert forward.end_time_unix_nano == serialise.start_time_unix_nano
    assert serialise.end_time_unix_nano <= request.end_time_unix_nano
    assert request.start_time_unix_nano <= forward.start_time_unix_nano
    # Another request is another trace, and one that failed has nothing computed.
    told = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-0[13]", refused.headers["traceresponse"])
    trace_id = told[1]
    (failed,) = (span for span in collector.spans if span.trace_id.hex() == trace_id)
    assert attributes_of(failed)["http.response.status_code"] == 422


def test_the_spans_of_calls_over_grpc(collector, bert_mean_folder):
    models = [{"name": "tiny", "source": str(bert_mean_folder)}]
    with running(models=models, grpc_port=0, tracing=True) as service, calling(service) as channel:
        request = api.EmbedRequest(texts=["mark-of-a-text"])
        metadata = [("traceparent", PARENT)]
        _, call = channel.stub.Embed.with_call(request, metadata=metadata)
        told = dict(call.trailing_metadata())["traceresponse"]
        streamed = numbered(request, api.EmbedRequest(texts=["mark-of-a-text"], model="no"))
        assert len(list(channel.stub.EmbedStream(streamed, metadata=metadata))) == 2
    own = [span for span in collector.spans if span.trace_id.hex() == PARENT.split("-")[1]]
    requests = [span for span in own if span.name.startswith(api.SERVICE)]
    assert {span.parent_span_id.hex() for span in requests} == {PARENT.split("-")[2]}
    one, *two = sorted(requests, key=lambda span: span.name)
    assert told == f"00-{one.trace_id.hex()}-{one.span_id.hex()}-01"
    assert attributes_of(one) == {
        "rpc.system": "grpc",
        "rpc.service": api.SERVICE,
        "rpc.method": "Embed",
        "embedding.model": "tiny",
        "embedding.texts": 1,
        "embedding.tokens": attributes_of(one)["embedding.tokens"],
        "embedding.cache_hits": 0,
    }
    children = {span.name for span in own if span.parent_span_id == one.span_id}
    assert children == {"queue", "forward", "serialise"}
    assert {span.name for span in two} == {f"{api.SERVICE}/EmbedStream"}
    errors = [attributes_of(span).get("error.type") for span in two]
    assert sorted(map(str, errors)) == ["None", "unknown_model"]
    assert "mark-of-a-text" not in str(collector.spans)


def test_no_text_is_in_a_trace(collector, bert_mean_folder):
    mark = "mark-of-a-text"
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}], tracing=True
    ) as service:

        @service.app.post("/broken")
        async def broken():
            raise RuntimeError(mark)

        for path in ("/embed", "/tokenize", "/broken", f"/embed?{mark}"):
            service.post(path, {"texts": mark}, headers={"x-api-key": mark, "baggage": f"a={mark}"})
            service.post(path, {"texts": [mark, 7]})
    assert len(collector.spans) > 8
    assert mark not in str(collector.spans)


def test_without_being_asked_for_there_are_no_traces(collector, service):
    answer = service.post("/embed", {"texts": "a"}, headers={"traceparent": PARENT})
    assert answer.status_code == 200
    assert "traceresponse" not in answer.headers
    assert collector.spans == []


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingDependencyError, match=r'tracing needs .*"arrowembed\[telemetry\]"'):
        create_app(read_settings(tracing=True))
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "arrowembed\[redis\]"'):
        create_app(read_settings(rate_limit=1, rate_limit_redis="redis://localhost"))
