"""Every method over gRPC, on a real socket, beside the embedder that it stands for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from calling import calling, numbered, refused
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from running import running
from schedulers import Gate

from arrowembed import Embedder, __version__, quantize_embeddings
from arrowembed.options import PRECISIONS
from arrowembed.server.errors import TABLE
from arrowembed.server.grpc import api

ROOT = Path(__file__).parents[2]
PACKED = api.VECTOR_FORMAT_PACKED
PAIR = ["The cat sleeps on the mat.", "Rain is expected tomorrow."]


@pytest.fixture(scope="module")
def service(bert_mean_folder, prompted_folder):
    models = [
        {"name": "tiny", "source": str(bert_mean_folder), "aliases": ["small"]},
        {"name": "prompted", "source": str(prompted_folder)},
    ]
    with running(models=models, grpc_port=0) as service:
        yield service


@pytest.fixture(scope="module")
def channel(service):
    with calling(service) as channel:
        yield channel


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


@pytest.fixture(scope="module")
def prompted(prompted_folder):
    return Embedder(prompted_folder)


def vectors_of(response):
    return np.array([vector.values for vector in response.vectors], np.float32)


def unpacked(response, dtype="<f4"):
    return np.frombuffer(response.packed, dtype).reshape(response.usage.texts, -1)


def test_vectors_are_those_of_the_embedder(channel, tiny, texts):
    response = channel.embed(*texts)
    np.testing.assert_array_equal(vectors_of(response), tiny.encode(texts))
    assert (response.model, response.dimensions) == ("tiny", tiny.dimension)
    assert response.precision == api.PRECISION_FLOAT32
    assert not response.packed
    assert not response.HasField("variant")
    usage = response.usage
    assert usage.tokens == sum(map(len, tiny.tokenize(texts)["input_ids"]))
    assert (usage.texts, usage.cached, usage.truncated > 0) == (len(texts), 0, True)
    again = channel.embed(*texts)
    assert again.usage.cached == len(texts)
    assert again.vectors == response.vectors


def test_packed_vectors(channel, tiny, texts):
    response = channel.embed(*texts, format=PACKED)
    np.testing.assert_array_equal(unpacked(response), tiny.encode(texts))
    assert not response.vectors


DTYPES = {"float32": "<f4", "float16": "<f2", "uint8": "u1", "ubinary": "u1"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(channel, tiny, precision):
    vectors = tiny.encode(PAIR)
    ranges = np.array([vectors.min(0) - 0.1, vectors.max(0) + 0.1], np.float32)
    response = channel.embed(
        *PAIR,
        format=PACKED,
        precision=api.Precision.Value(f"PRECISION_{precision.upper()}"),
        ranges=api.Ranges(lowest=ranges[0], highest=ranges[1]),
    )
    expected = quantize_embeddings(vectors, precision, ranges)
    np.testing.assert_array_equal(unpacked(response, DTYPES.get(precision, "i1")), expected)
    assert response.dimensions == tiny.dimension
    assert api.Precision.Name(response.precision) == f"PRECISION_{precision.upper()}"


def test_models_by_name_and_alias(channel, tiny, prompted):
    for name, model in (("", tiny), ("tiny", tiny), ("small", tiny), ("prompted", prompted)):
        response = channel.embed(*PAIR, model=name)
        np.testing.assert_array_equal(vectors_of(response), model.encode(PAIR))
        assert response.model == ("prompted" if model is prompted else "tiny")


@pytest.mark.parametrize("options", [{"prompt_name": "query"}, {"prompt": "x: "}, {"prompt": ""}])
def test_prompts(channel, prompted, options):
    response = channel.embed(*PAIR, model="prompted", **options)
    np.testing.assert_array_equal(vectors_of(response), prompted.encode(PAIR, **options))


def test_lengths_and_dimensions(channel, tiny):
    for normalize, as_embedder in ((True, "l2"), (False, "none")):
        response = channel.embed(*PAIR, normalize=normalize)
        expected = tiny.encode(PAIR, normalize=as_embedder)
        np.testing.assert_array_equal(vectors_of(response), expected)
    response = channel.embed(*PAIR, dimensions=7)
    np.testing.assert_array_equal(vectors_of(response), tiny.encode(PAIR, truncate_dim=7))
    assert response.dimensions == 7


def test_the_most_texts(channel, tiny):
    texts = [f"number {i} " * 20 for i in range(100)]
    response = channel.embed(*texts, format=PACKED)
    np.testing.assert_array_equal(unpacked(response), tiny.encode(texts))


def test_similarity(channel, tiny):
    a, b = tiny.encode(PAIR)
    response = channel.stub.Similarity(api.SimilarityRequest(source=PAIR[0], targets=PAIR))
    np.testing.assert_array_equal(response.similarities, tiny.similarity(a, [a, b])[0])
    assert (response.function, response.model) == ("cosine", "tiny")
    assert response.usage.texts == 3
    pairs = [api.TextPair(first=first, second=PAIR[0]) for first in PAIR]
    response = channel.stub.Similarity(api.SimilarityRequest(pairs=pairs, model="small"))
    expected = tiny.similarity_pairwise([a, b], [a, a])
    np.testing.assert_array_equal(response.similarities, expected)


def test_search_needs_a_store(channel):
    refusal = refused(channel.stub.Search, api.SearchRequest(query="a", limit=3))
    assert (refusal.status, refusal.code) == ("UNIMPLEMENTED", "no_store")
    assert refusal.message == "search: no store is attached to this service"


def test_info_is_that_of_http(service, channel):
    response = channel.stub.Info(api.InfoRequest())
    told = service.client.get("/info").json()
    info = {name: told[name] for name in api.InfoResponse.DESCRIPTOR.fields_by_name}
    assert 0 < response.uptime_seconds <= info.pop("uptime_seconds")
    response.ClearField("uptime_seconds")
    assert response == api.InfoResponse(**info)
    assert [model.name for model in response.models] == ["tiny", "prompted"]
    assert response.models[0].variants[0].dimensions > 0
    assert response.limits.max_texts == 100


def test_the_variant_that_answered_is_told(bert_folder, bert_mean_folder):
    variants = [
        {"name": "a", "source": str(bert_folder)},
        {"name": "b", "source": str(bert_mean_folder)},
    ]
    model = {"name": "both", "source": str(bert_folder), "variants": variants}
    with running(models=[model], grpc_port=0) as service, calling(service) as channel:
        expected = {v["name"]: Embedder(v["source"]).encode(PAIR) for v in variants}
        seen = set()
        while seen != {"a", "b"}:
            response = channel.embed(*PAIR)
            seen.add(response.variant)
            np.testing.assert_array_equal(vectors_of(response), expected[response.variant])
        request = api.SimilarityRequest(source="a", targets=["b"], model="both@b")
        assert channel.stub.Similarity(request).model == "both"


def test_a_stream_answers_all_it_is_asked(channel, tiny):
    texts = [[f"request {i}", f"text {j}"][: 1 + i % 2] for i in range(300) for j in (0,)]
    answers = {a.id: a for a in channel.stub.EmbedStream(numbered(*texts), timeout=60)}
    assert set(answers) == set(range(300))
    for number, asked in enumerate(texts):
        np.testing.assert_array_equal(vectors_of(answers[number].response), tiny.encode(asked))


def test_a_stream_without_requests_ends(channel):
    assert list(channel.stub.EmbedStream(iter(()), timeout=60)) == []


def test_a_refused_request_does_not_end_its_stream(channel):
    requests = numbered(["a"], [], ["b"] * 101, api.EmbedRequest(texts=["c"], model="no"), ["d"])
    metadata = [("x-request-id", "mine")]
    call = channel.stub.EmbedStream(requests, metadata=metadata, timeout=60)
    answers = {a.id: a for a in call}
    assert {n for n, a in answers.items() if a.WhichOneof("answer") == "response"} == {0, 4}
    errors = {n: a.error for n, a in answers.items() if a.WhichOneof("answer") == "error"}
    codes = {n: error.code for n, error in errors.items()}
    assert codes == {1: "invalid_request", 2: "too_many_texts", 3: "unknown_model"}
    assert {n: error.request_id for n, error in errors.items()} == {n: f"mine/{n}" for n in codes}
    assert call.code() is grpc.StatusCode.OK
    assert dict(call.trailing_metadata())["x-request-id"] == "mine"


def test_the_position_of_a_wrong_text_is_told(channel):
    long = "word " * 500
    request = api.EmbedRequest(texts=["a", "b" * 100_001, long])
    (answer,) = channel.stub.EmbedStream(numbered(request), timeout=60)
    assert (answer.error.code, answer.error.index) == ("text_too_large", 1)
    refusal = refused(channel.stub.Embed, request)
    assert (refusal.code, refusal.info) == ("text_too_large", {"index": "1"})


def test_a_stream_answers_each_request_when_it_is_done(service, channel, with_scheduler):
    gate = with_scheduler(service, Gate(service, held=lambda texts: texts == ["slow"]))
    answers = channel.stub.EmbedStream(numbered(["slow"], ["quick"], ["quick, too"]), timeout=60)
    assert {next(answers).id, next(answers).id} == {1, 2}
    gate.open()
    assert next(answers).id == 0
    assert list(answers) == []


def test_a_stream_does_not_take_more_than_it_can_answer(service, channel, with_scheduler):
    gate = with_scheduler(service, Gate(service))
    answers = channel.stub.EmbedStream(numbered(*([str(i)] for i in range(200))), timeout=60)
    gate.wait_for(64)
    gate.open()
    assert {answer.id for answer in answers} == set(range(200))
    assert gate.most_inside == 64


def test_many_calls_at_once(channel, tiny):
    requests = [api.EmbedRequest(texts=[f"call {i}"]) for i in range(200)]
    calls = [channel.stub.Embed.future(request, timeout=60) for request in requests]
    for request, call in zip(requests, calls, strict=True):
        np.testing.assert_array_equal(vectors_of(call.result()), tiny.encode(list(request.texts)))


def test_request_ids(channel):
    for given in ("mine", "0.1_2~3-4"):
        _, call = channel.stub.Info.with_call(api.InfoRequest(), metadata=[("x-request-id", given)])
        assert dict(call.trailing_metadata())["x-request-id"] == given
        wrong = refused(channel.embed, metadata=[("x-request-id", given)])
        assert wrong.metadata["x-request-id"] == given
    made = set()
    for metadata in ([], [("x-request-id", 'a "b"')], [("x-request-id", "x" * 129)]):
        _, call = channel.stub.Info.with_call(api.InfoRequest(), metadata=metadata)
        made.add(dict(call.trailing_metadata())["x-request-id"])
    assert len(made) == 3
    assert all(len(new) == 32 and new.isalnum() for new in made)


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel.channel)
    for name in ("", api.SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refused(stub.Check, health_pb2.HealthCheckRequest(service="no")).status == "NOT_FOUND"


def test_reflection_tells_the_whole_service(channel):
    known = ProtoReflectionDescriptorDatabase(channel.channel)
    assert set(known.get_services()) == {
        api.SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    file = known.FindFileContainingSymbol(api.SERVICE)
    assert file.name == "arrowembed/v1/embedding.proto"
    assert file.SerializeToString() == api.DESCRIPTOR.serialized_pb


def test_an_unknown_method(channel):
    assert refused(channel.raw("Nothing"), b"").status == "UNIMPLEMENTED"


def test_numbers_are_those_of_http(service, channel):
    embedded = vectors_of(channel.embed(*PAIR))
    answer = json.loads(service.post("/embed", {"texts": PAIR}).content)
    np.testing.assert_array_equal(embedded, np.array(answer["embeddings"], np.float32))


def run_python(*arguments):
    """What a program says."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_example(service):
    address = f"localhost:{service.app.state.grpc.port}"
    lines = run_python(ROOT / "examples/grpc_client.py", address)
    assert lines[0] == f"arrowembed {__version__} with tiny, prompted"
    assert lines[1].startswith("3 vectors of ")
    streamed = {f"request {number} of the stream: the same vector" for number in range(3)}
    assert streamed == set(lines[4:7])
    assert lines[7] == "refused: | INVALID_ARGUMENT | invalid_request | texts: Field required"


REFERENCE = (ROOT / "docs/api/grpc-api.md").read_text("utf-8")
HTTP_ONLY = {
    *("method_not_allowed", "not_found", "unsupported_media_type", "payload_too_large"),
    *("conflict", "loading", "missing_dependency"),
    # Nothing is written to a store here, and no result is shared.
    *("duplicate_id", "store_io", "store_locked", "handle_gone", "invalid_handle", "shared_memory"),
}


def test_the_example_of_the_reference(service, tiny):
    (code,) = re.findall(r"^```python\n(.*?)^```", REFERENCE, re.MULTILINE | re.DOTALL)
    port = service.app.state.grpc.port
    (line,) = run_python("-c", code.replace("localhost:50051", f"localhost:{port}"))
    assert line.startswith(f"(2, {tiny.dimension}) ")


def test_every_error_stands_in_the_reference_with_its_status():
    documented = {
        code: status
        for status, codes in re.findall(r"^\| `(\w+)` \| (.*?) \|$", REFERENCE, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
        if status in grpc.StatusCode.__members__
    }
    expected = {code: kind.grpc for code, kind in TABLE.items() if code not in HTTP_ONLY}
    assert documented == expected
