"""Who may ask what, over real sockets."""

import asyncio
import time

import httpx
import jwt
import pytest
from running import running

from arrowembed.errors import InvalidArgumentError
from arrowembed.server import create_app, read_settings
from arrowembed.server.errors import ServiceError
from arrowembed.server.security.access import Access, Credentials, is_loopback
from arrowembed.server.security.keys import new_key

SECRET = "0123456789abcdef0123456789abcdef"
PUBLIC = {
    ("GET", path) for path in ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json")
}
ONE = {"texts": "one"}


def token(**changed):
    claims = {"iss": "me", "aud": "us", "sub": "team", "exp": time.time() + 60, **changed}
    return jwt.encode(claims, SECRET)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys by name, and the file of their hashes."""
    made = {
        "embedder": new_key("embedder", ["embed"]),
        "searcher": new_key("searcher", ["search"]),
        "operator": new_key("operator", ["embed", "search", "admin"]),
    }
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("\n".join(kept.entry() for _, kept in made.values()))
    return {name: key for name, (key, _) in made.items()}, path


@pytest.fixture(scope="module")
def guarded(keys, bert_mean_folder):
    """A service that asks for keys or tokens."""
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}],
        api_keys_file=keys[1],
        jwt_secret=SECRET,
        jwt_issuer="me",
        jwt_audience="us",
    ) as service:
        yield service


def as_bearer(credential):
    return {"authorization": f"Bearer {credential}"}


def test_keys_and_tokens_are_accepted(guarded, keys):
    key = keys[0]["embedder"]
    for headers in (
        as_bearer(key),
        {"x-api-key": key},
        {"authorization": f"bEARER  {key}"},
        {"authorization": "Basic cHJveHk6c2VjcmV0", "x-api-key": key},
        as_bearer(token(scope="embed")),
        as_bearer(token(scp=["embed"])),
    ):
        assert guarded.post("/embed", ONE, headers=headers).status_code == 200, headers


@pytest.mark.parametrize(
    ("headers", "message", "challenge"),
    [
        ({}, "this needs credentials; send an API key", ""),
        ({"authorization": "Basic a"}, "this needs credentials", ""),
        ({"authorization": "Bearer"}, "this needs credentials", ""),
        ({"x-api-key": ""}, "this needs credentials", ""),
        ({"x-api-key": "ae_wrong"}, "the API key is not known here", ', error="invalid_token"'),
        (as_bearer("ae_wrong"), "the API key is not known here", ', error="invalid_token"'),
        ({"x-api-key": b"\xff\xfe"}, "the API key is not known", ', error="invalid_token"'),
        (as_bearer("a.b.c"), "the token cannot be read", ', error="invalid_token"'),
        (as_bearer(token(exp=1)), "the token has expired", ', error="invalid_token"'),
    ],
)
def test_who_is_not_known_is_told_so(guarded, headers, message, challenge):
    answer = guarded.post("/embed", ONE, headers=headers)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["code"] == "unauthorized"
    assert error["message"].startswith(message)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["www-authenticate"] == f'Bearer realm="arrowembed"{challenge}'


def test_what_a_client_may_not_do_is_named(guarded, keys):
    for path, headers, scope in (
        ("/embed", {"x-api-key": keys[0]["searcher"]}, "embed"),
        ("/models/tiny/reload", {"x-api-key": keys[0]["embedder"]}, "admin"),
        ("/embed", as_bearer(token(scope="openid")), "embed"),
    ):
        answer = guarded.post(path, ONE, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"
        assert answer.json()["error"]["message"] == f"this needs the scope '{scope}'"
        assert answer.headers["www-authenticate"] == (
            f'Bearer realm="arrowembed", error="insufficient_scope", scope="{scope}"'
        )
    allowed = guarded.post("/models/tiny/reload", {}, headers={"x-api-key": keys[0]["operator"]})
    assert allowed.status_code == 200


def test_every_route_is_closed_but_those_for_everybody(guarded):
    known = guarded.app.openapi()["paths"]
    paths = {(method.upper(), path) for path, methods in known.items() for method in methods}
    assert ("POST", "/embed") in paths
    assert ("POST", "/models/{name}/unload") in paths
    assert ("POST", "/") in paths
    paths |= PUBLIC
    elsewhere = {
        "/no/such/path",
        "//health",
        "/health/",
        "/Health",
        "/docs/oauth2-redirect",
    }
    for method, path in paths | {("GET", path) for path in elsewhere}:
        answer = guarded.client.request(method, guarded.url + path)
        if (method, path) not in PUBLIC:
            assert (answer.status_code, method, path) == (401, method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer ")
        else:
            assert (answer.status_code, path) == (200, path)


def test_every_route_says_which_scope_it_needs(guarded):
    paths = guarded.app.openapi()["paths"]
    schemes = guarded.app.openapi()["components"]["securitySchemes"]
    assert {(s["type"], s.get("scheme"), s.get("in")) for s in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "header"),
    }
    for path, methods in paths.items():
        for method, operation in methods.items():
            named = {name for scheme in operation.get("security", []) for name in scheme}
            public = (method.upper(), path) in PUBLIC
            assert named == (set() if public else set(schemes)), path


def test_the_body_of_a_stranger_is_not_read(guarded):
    """Nor judged: what is wrong with it is not said, and a large one is not waited for."""
    host, port = guarded.client.base_url.host, guarded.client.base_url.port

    async def ask():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n{"
        )
        status = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        return status

    assert asyncio.run(ask()).startswith(b"HTTP/1.1 401 ")


def test_without_keys_everybody_may_embed_and_only_this_machine_administer(service):
    assert service.post("/embed", ONE).status_code == 200
    url = "/models/tiny/reload"
    assert service.post(url, {}).status_code == 200
    port = service.client.base_url.port
    own_page = {"origin": f"http://127.0.0.1:{port}"}
    assert service.post(url, {}, headers=own_page).status_code == 200
    for headers in (
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "evil.example"},
        {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"},
        {"host": "["},
    ):
        answer = service.post(url, {}, headers=headers)
        assert answer.status_code == 403, headers
        assert answer.json()["error"]["message"] == "this needs the scope 'admin'"


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("example.org", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_addresses(address, is_one):
    assert is_loopback(address) is is_one


@pytest.mark.parametrize(
    ("setting", "address", "may"),
    [
        ("loopback", "10.0.0.1", False),
        ("loopback", None, False),
        ("nobody", "127.0.0.1", False),
        ("everybody", "10.0.0.1", True),
    ],
)
def test_who_administers_without_keys_can_be_set(setting, address, may):
    access = Access(anonymous_admin=setting)
    credentials = Credentials(address=address, host="localhost")
    principal = asyncio.run(access.authenticate(credentials))
    assert ("admin" in principal.scopes) is may
    assert principal.scopes >= {"embed", "search"}


def test_with_keys_this_machine_needs_one_too(keys):
    access = Access(anonymous_admin="everybody", keys=None, tokens=None)
    assert not access.required
    settings = read_settings(api_keys_file=keys[1], anonymous_admin="everybody")
    from arrowembed.server.guards import make_access

    access = make_access(settings)
    assert access.required
    with pytest.raises(ServiceError):
        asyncio.run(access.authenticate(Credentials(address="127.0.0.1", host="localhost")))


@pytest.mark.parametrize(
    ("content", "message"), [(b"# none yet\n", "holds no key"), (b"\xff", "'utf-8' codec can't")]
)
def test_a_file_without_keys_opens_nothing(tmp_path, content, message):
    path = tmp_path / "keys.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=rf"api_keys_file: .*keys\.txt: {message}"):
        create_app(read_settings(api_keys_file=path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jwt_secret": SECRET}, "jwt_issuer, jwt_audience: must be given with tokens"),
        ({"jwt_secret": SECRET, "jwt_issuer": "me"}, "jwt_issuer, jwt_audience: must be given"),
        ({"jwt_issuer": "me"}, "give jwt_secret, jwt_public_key_file or jwt_jwks, too"),
        (
            {
                "jwt_secret": SECRET,
                "jwt_jwks": "https://me",
                "jwt_issuer": "a",
                "jwt_audience": "b",
            },
            "jwt_secret, jwt_public_key_file, jwt_jwks: give one of them",
        ),
        ({"trusted_proxies": "proxy.internal"}, "trusted_proxies: 'proxy.internal' does not"),
        ({"trusted_proxies": "10.0.0.1/8"}, "trusted_proxies: 10.0.0.1/8 has host bits set"),
        ({"tls_key": __file__}, "tls_certificate, tls_key: give both"),
        ({"rate_limit_burst": 5}, "rate_limit: must be given with rate_limit_burst"),
    ],
)
def test_settings_that_do_not_fit_together(given, message):
    with pytest.raises(InvalidArgumentError, match=message) as error:
        read_settings(**given)
    assert SECRET not in str(error.value)


def test_secrets_are_not_shown(keys):
    settings = read_settings(jwt_secret=SECRET, jwt_issuer="me", jwt_audience="us")
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_hosts_can_be_limited(bert_mean_folder):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}],
        allowed_hosts="embed.example.org, localhost",
    ) as service:
        for host, status in (
            ("embed.example.org", 200),
            ("EMBED.example.org:8080", 200),
            ("evil.example", 403),
            ("embed.example.org.evil.example", 403),
            ("[", 403),
        ):
            answer = service.post("/embed", ONE, headers={"host": host})
            assert answer.status_code == status, host
        # Orchestrators ask by address.
        assert service.client.get("/health").status_code == 200


def test_routes_that_forget_their_scope_are_closed_all_the_same(keys, bert_mean_folder):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}], api_keys_file=keys[1]
    ) as service:

        @service.app.get("/forgotten")
        async def forgotten():
            return {}

        assert service.client.get("/forgotten").status_code == 401
        key = {"x-api-key": keys[0]["searcher"]}
        assert httpx.get(f"{service.url}/forgotten", headers=key).status_code == 200
