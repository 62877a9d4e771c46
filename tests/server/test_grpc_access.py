"""Who may call, how much, and what operators see of it."""

import json
import secrets
import threading

import grpc
import pytest
import trustme
from calling import address_of, calling, nothing, numbered, refused
from exposition import scrape
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from running import running

from arrowembed.server.grpc import api
from arrowembed.server.grpc.calls import _address
from arrowembed.server.grpc.guard import _SCOPES
from arrowembed.server.security.keys import new_key

EMBED = f"/{api.SERVICE}/Embed"
STREAM = f"/{api.SERVICE}/EmbedStream"


@pytest.fixture(scope="module")
def keys():
    """Keys by name, and what is kept of them."""
    made = {
        "embedder": new_key("embedder", ["embed"]),
        "searcher": new_key("searcher", ["search"]),
    }
    kept = " ".join(kept.entry() for _, kept in made.values())
    return {name: key for name, (key, _) in made.items()}, kept


@pytest.fixture(scope="module")
def guarded(bert_mean_folder, keys):
    """A service that asks for keys."""
    models = [f"tiny={bert_mean_folder}"]
    with running(models=models, grpc_port=0, api_keys=keys[1]) as service:
        yield service


@pytest.fixture(scope="module")
def channel(guarded):
    with calling(guarded) as channel:
        yield channel


def test_every_method_needs_a_scope():
    methods = api.DESCRIPTOR.services_by_name["EmbeddingService"].methods
    assert set(_SCOPES) == {f"/{api.SERVICE}/{method.name}" for method in methods}


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_keys_are_accepted(channel, keys, name):
    key = keys[0]["embedder"]
    metadata = [(name, f"Bearer {key}" if name == "authorization" else key)]
    assert channel.embed("one", metadata=metadata).usage.texts == 1
    (answer,) = channel.stub.EmbedStream(numbered(["one"]), metadata=metadata, timeout=60)
    assert answer.response.usage.texts == 1


def methods_of(channel):
    stub = channel.stub
    return {
        "embed": [
            lambda **o: stub.Embed(api.EmbedRequest(texts=["a"]), **o),
            lambda **o: next(stub.EmbedStream(numbered(["a"]), **o)),
            lambda **o: stub.Similarity(api.SimilarityRequest(source="a", targets=["b"]), **o),
            lambda **o: stub.Info(api.InfoRequest(), **o),
        ],
        "search": [lambda **o: stub.Search(api.SearchRequest(query="a"), **o)],
    }


@pytest.mark.parametrize(
    "metadata",
    [[], [("x-api-key", "ae_unknown")], [("authorization", "Bearer x")], [("x-api-key-bin", b"x")]],
)
def test_strangers_are_refused(channel, metadata):
    for call in [call for calls in methods_of(channel).values() for call in calls]:
        refusal = refused(call, metadata=metadata)
        assert (refusal.status, refusal.code) == ("UNAUTHENTICATED", "unauthorized")
        assert refusal.metadata["www-authenticate"].startswith("Bearer ")
    assert refused(channel.raw("Embed"), b"\xff").code == "unauthorized"


def test_a_stranger_is_refused_before_its_message_is_read(channel):
    never = threading.Event()
    call = channel.channel.stream_unary(EMBED, None, None)
    refusal = refused(call, nothing(never))
    assert (refusal.status, refusal.code) == ("UNAUTHENTICATED", "unauthorized")
    never.set()


def test_a_key_opens_what_it_is_for(channel, keys):
    calls = methods_of(channel)
    for name, other in (("embedder", "search"), ("searcher", "embed")):
        for call in calls[other]:
            refusal = refused(call, metadata=[("x-api-key", keys[0][name])])
            assert (refusal.status, refusal.code) == ("PERMISSION_DENIED", "forbidden")
            assert refusal.message == f"this needs the scope '{other}'"
    (search,) = calls["search"]
    assert refused(search, metadata=[("x-api-key", keys[0]["searcher"])]).code == "no_store"


def test_health_and_reflection_are_for_everybody(channel):
    stub = health_pb2_grpc.HealthStub(channel.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert api.SERVICE in ProtoReflectionDescriptorDatabase(channel.channel).get_services()


@pytest.fixture
def limited(bert_mean_folder):
    """A service that lets each client send 10 texts at once, and believes proxies here."""
    with running(
        models=[f"tiny={bert_mean_folder}"],
        grpc_port=0,
        rate_limit=6,
        rate_limit_burst=10,
        trusted_proxies="127.0.0.1,::1",
    ) as service:
        yield service


def test_the_rate_limit_is_that_of_http(limited):
    with calling(limited) as channel:
        request = api.EmbedRequest(texts=["a"] * 4)
        _, call = channel.stub.Embed.with_call(request)
        left = dict(call.trailing_metadata())
        assert left["ratelimit-policy"] == '"texts";q=10;w=100'
        assert left["ratelimit"].startswith('"texts";r=6;t=')
        assert limited.post("/embed", {"texts": ["a"] * 6}).status_code == 200
        refusal = refused(channel.stub.Embed, api.EmbedRequest(texts=["a"] * 3))
        assert (refusal.status, refusal.code) == ("RESOURCE_EXHAUSTED", "rate_limited")
        assert 20 <= int(refusal.metadata["retry-after"]) <= 30
        assert refusal.metadata["ratelimit"].startswith('"texts";r=0;t=')
        answers = channel.stub.EmbedStream(numbered(["a"] * 3, []), timeout=60)
        codes = {answer.id: answer.error.code for answer in answers}
        assert codes == {0: "rate_limited", 1: "invalid_request"}
    assert scrape(limited.client).total("embedding_rate_limited_total") == 2


def test_proxies_that_are_trusted_say_who_the_client_is(limited):
    texts = ["a"] * 10
    with calling(limited) as channel:

        def code(forwarded):
            metadata = [("x-forwarded-for", forwarded)]
            try:
                channel.embed(*texts, metadata=metadata)
            except grpc.RpcError as error:
                return dict(error.trailing_metadata())["error-code"]
            return None

        assert code("192.0.2.1") is None
        # The last address that is no proxy counts; what stands before it, anybody may have written.
        assert code("198.51.100.7, 192.0.2.1") == "rate_limited"
        assert code("192.0.2.2") is None
        assert channel.embed(*texts).usage.texts == 10


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[::1]:50000", "::1"),
        ("unix:/run/socket", None),
    ],
)
def test_addresses(peer, address):
    assert _address(peer) == address


def test_others_are_not_believed(bert_mean_folder):
    settings = {"grpc_port": 0, "rate_limit": 6, "rate_limit_burst": 1}
    models = [f"tiny={bert_mean_folder}"]
    with running(models=models, **settings) as service, calling(service) as channel:
        channel.embed("a", metadata=[("x-forwarded-for", "192.0.2.1")])
        refusal = refused(channel.embed, "a", metadata=[("x-forwarded-for", "192.0.2.2")])
        assert refusal.code == "rate_limited"


def test_requests_are_counted(bert_mean_folder):
    with running(models=[f"tiny={bert_mean_folder}"], grpc_port=0) as service:
        with calling(service) as channel:
            channel.embed("one", "two")
            channel.embed("one")
            refused(channel.embed)
            list(channel.stub.EmbedStream(numbered(["one"], ["three"], []), timeout=60))
            refused(channel.raw("Nothing"), b"")
        seen = scrape(service.client)
    count = "embedding_request_total"
    assert seen.total(count, route=EMBED, model="tiny", status="200") == 2
    assert seen.total(count, route=EMBED, status="422") == 1
    assert seen.total(count, route=STREAM, model="tiny", status="200") == 2
    assert seen.total(count, route=STREAM, status="422") == 1
    assert seen.total("embedding_request_duration_seconds_count", route=EMBED) == 3
    assert seen.total("embedding_errors_total", code="invalid_request") == 2
    assert seen.total("embedding_texts_total", model="tiny") == 5
    assert seen.total("embedding_cache_hits_total", model="tiny") == 2
    assert "Nothing" not in "".join(seen.values("route"))


def test_a_refused_stream_is_counted_once(guarded, channel):
    labels = {"route": STREAM, "status": "401"}
    before = scrape(guarded.client).total("embedding_request_total", **labels)
    assert refused(next, channel.stub.EmbedStream(numbered(["a"]))).code == "unauthorized"
    assert scrape(guarded.client).total("embedding_request_total", **labels) == before + 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for this machine, its key, and what trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    (folder / "certificate.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return folder, authority.cert_pem.bytes()


def test_tls(bert_mean_folder, certificates):
    folder, authority = certificates
    with running(
        wait=False,
        models=[f"tiny={bert_mean_folder}"],
        grpc_port=0,
        tls_certificate=folder / "certificate.pem",
        tls_key=folder / "key.pem",
    ) as service:
        with calling(service, grpc.ssl_channel_credentials(authority)) as channel:
            assert channel.embed("one").usage.texts == 1
        with calling(service) as channel:
            assert refused(channel.embed, "one").status == "UNAVAILABLE"
        with calling(service, grpc.ssl_channel_credentials()) as channel:
            assert refused(channel.embed, "one").status == "UNAVAILABLE"


def test_a_line_in_the_log_for_each_request_and_nothing_of_what_clients_send(
    process, bert_mean_folder, keys
):
    key, mark = keys[0]["embedder"], f"mark-{secrets.token_hex(8)}"
    service = process(
        *("--log-level", "debug", "--grpc-port", 0, f"tiny={bert_mean_folder}"),
        ARROWEMBED_API_KEYS=keys[1],
    )
    with grpc.insecure_channel(address_of(service)) as insecure:
        stub = api.EmbeddingServiceStub(insecure)
        embed = insecure.unary_unary(EMBED, None, None)
        known = [("x-api-key", key), ("x-request-id", "mine-7"), ("x-more", mark)]
        stub.Embed(api.EmbedRequest(texts=[mark, "b"], prompt=mark), metadata=known)
        for request in (
            api.EmbedRequest(texts=[mark] * 101),
            api.EmbedRequest(texts=[mark], model=mark),
            api.EmbedRequest(texts=[mark], prompt_name=mark),
            api.EmbedRequest(texts=[mark + " word" * 5000], truncate=False),
        ):
            refused(stub.Embed, request, metadata=known)
            list(stub.EmbedStream(numbered(request), metadata=known))
        refused(embed, mark.encode(), metadata=known)
        for name in ("authorization", "x-api-key"):
            value = f"Bearer {mark}" if name == "authorization" else f"ae_{mark}"
            refused(stub.Embed, api.EmbedRequest(texts=[mark]), metadata=[(name, value)])
        refused(insecure.unary_unary(f"/{mark}/{mark}", None, None), b"")
    service.popen.terminate()
    assert service.exit_status() == 0
    log = service.log.read_text()
    assert mark not in log
    assert key not in log
    lines = [line for line in map(json.loads, log.splitlines()) if line.get("method") == "gRPC"]
    assert len(lines) == 12
    first = lines[0]
    assert first.pop("timestamp")
    assert all(first.pop(name) >= 0 for name in ("duration_ms", "queue_ms", "compute_ms", "tokens"))
    assert first == {
        "event": "request",
        "level": "info",
        "logger": "arrowembed.server.request",
        "request_id": "mine-7",
        "method": "gRPC",
        "route": EMBED,
        "status": 200,
        "model": "tiny",
        "client": "key",
        "texts": 2,
        "truncated": 0,
        "cache_hits": 0,
    }
    assert {line["request_id"] for line in lines if line["route"] == STREAM} == {"mine-7/0"}
