"""Bearer tokens: which are good, and how those of an issuer with a key set are checked."""

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from contextlib import contextmanager

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.errors import ServiceError
from arrowembed.server.security.jwks import KeySet, key_set, public_key, secret_key
from arrowembed.server.security.tokens import TokenVerifier

SECRET = "0123456789abcdef0123456789abcdef"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**changed):
    """Those of a good token; None takes one out."""
    all_of_them = {
        "iss": "https://issuer",
        "aud": "embeddings",
        "sub": "team",
        "exp": int(time.time()) + 60,
        "scope": "embed search",
        **changed,
    }
    return {name: value for name, value in all_of_them.items() if value is not None}


def verifier(keys, **options):
    return TokenVerifier(
        keys, **{"issuer": "https://issuer", "audience": ["embeddings", "all"], **options}
    )


def verify(checks, token):
    return asyncio.run(checks.verify(token))


def refusal(checks, token):
    with pytest.raises(ServiceError) as error:
        verify(checks, token)
    return error.value.code, str(error.value)


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key, kid, **more):
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


def unsigned(header, payload):
    """A token made by hand, without a signature."""
    parts = (json.dumps(part).encode() for part in (header, payload))
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts) + "."


@pytest.fixture
def shared():
    return verifier(secret_key(SECRET))


def test_a_token_with_a_shared_secret(shared):
    token = jwt.encode(claims(), SECRET, "HS256")
    principal = verify(shared, token)
    assert (principal.name, principal.kind) == ("team", "token")
    assert principal.scopes == {"embed", "search"}
    assert verify(shared, jwt.encode(claims(aud=["other", "all"]), SECRET)).name == "team"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scope": "embed admin openid"}, {"embed", "admin"}),
        ({"scope": None, "scp": "search"}, {"search"}),
        ({"scope": None, "scp": ["embed", "admin", 7]}, {"embed", "admin"}),
        ({"scope": "", "scp": []}, set()),
        ({"scope": None}, set()),
        ({"scope": {"embed": True}}, set()),
        ({"scope": "Embed embed.all"}, set()),
    ],
)
def test_scopes(shared, given, expected):
    assert verify(shared, jwt.encode(claims(**given), SECRET)).scopes == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exp": int(time.time()) - 60}, "the token has expired"),
        ({"exp": None}, "the token has no claim 'exp'"),
        ({"exp": "soon"}, "the token cannot be read"),
        ({"nbf": int(time.time()) + 600}, "the token is not valid yet"),
        ({"aud": "others"}, "the token is meant for another audience"),
        ({"aud": None}, "the token has no claim 'aud'"),
        ({"iss": "https://evil"}, "the token is from another issuer"),
        ({"iss": None}, "the token has no claim 'iss'"),
        ({"sub": None}, "the token has no claim 'sub'"),
    ],
)
def test_claims_that_do_not_hold(shared, changed, message):
    token = jwt.encode(claims(**changed), SECRET)
    assert refusal(shared, token) == ("unauthorized", message)


def test_clocks_may_differ_by_the_leeway():
    late = jwt.encode(claims(exp=int(time.time()) - 20), SECRET)
    assert verify(verifier(secret_key(SECRET), leeway=30), late).name == "team"
    code, message = refusal(verifier(secret_key(SECRET), leeway=10), late)
    assert (code, message) == ("unauthorized", "the token has expired")


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "....", "ä.ö.ü", "e30.e30.e30"])
def test_what_is_no_token(shared, token):
    assert refusal(shared, token)[0] == "unauthorized"


def test_a_token_without_a_signature_or_with_a_forged_one_is_refused(shared):
    good = jwt.encode(claims(), SECRET)
    for algorithm in ("none", "None", "NONE", "HS256"):
        assert refusal(shared, unsigned({"alg": algorithm}, claims()))[0] == "unauthorized"
    assert refusal(shared, good[:-4] + "AAAA") == (
        "unauthorized",
        "the token has a wrong signature",
    )
    other = jwt.encode(claims(), SECRET[::-1])
    assert refusal(shared, other) == ("unauthorized", "the token has a wrong signature")
    for algorithm in ("HS384", "HS512"):
        longer = jwt.encode(claims(), SECRET * 2, algorithm)
        assert refusal(shared, longer)[1].endswith("an algorithm that its key is not for")


def test_the_public_key_is_no_secret(tmp_path):
    """Algorithm confusion: a token signed with HMAC, and the public key as its secret."""
    for name, key in (("rsa", RSA), ("ec", EC)):
        path = tmp_path / name
        path.write_bytes(pem(key))
        signing_input = unsigned({"alg": "HS256", "typ": "JWT"}, claims()).removesuffix(".")
        signature = hmac.digest(pem(key), signing_input.encode(), hashlib.sha256)
        forged = f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        code, message = refusal(verifier(public_key(path)), forged)
        assert code == "unauthorized"
        assert message == "the token is signed with an algorithm that its key is not for"


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
def test_a_public_key_from_a_file(tmp_path, key, algorithm):
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    checks = verifier(public_key(path))
    assert verify(checks, jwt.encode(claims(), key, algorithm)).name == "team"
    other = rsa.generate_private_key(65537, 2048)
    assert refusal(checks, jwt.encode(claims(), other, "RS256"))[0] == "unauthorized"


def test_keys_that_are_none(tmp_path):
    with pytest.raises(InvalidArgumentError, match="jwt_secret: has 5 bytes; HS256 needs 32"):
        secret_key("short")
    path = tmp_path / "key.pem"
    for content in (b"no key", pem(ed25519.Ed25519PrivateKey.generate()), SECRET.encode()):
        path.write_bytes(content)
        with pytest.raises(InvalidArgumentError, match=r"jwt_public_key_file: .*key\.pem: "):
            public_key(path)
    path.write_bytes(pem(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(InvalidArgumentError, match="RSA key of 2048 bits or more"):
        public_key(path)
    with pytest.raises(InvalidArgumentError, match=r"jwt_public_key_file: .*: .*No such file"):
        public_key(tmp_path / "nowhere")


def test_a_key_set_from_a_file_is_read_anew_when_a_key_is_unknown(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(RSA, "one")]}))
    checks = verifier(key_set(str(path)))
    path.write_text(json.dumps({"keys": [jwk(RSA, "one"), jwk(EC, "two", use="sig")]}))
    for key, algorithm, kid in ((RSA, "RS256", "one"), (EC, "ES256", "two")):
        token = jwt.encode(claims(), key, algorithm, {"kid": kid})
        assert verify(checks, token).name == "team"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": 7}',
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]}),
        json.dumps({"keys": [jwk(RSA, "one", use="enc")]}),
    ],
)
def test_a_file_without_a_key_for_signatures(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"jwt_jwks: "):
        key_set(str(path))


@pytest.mark.parametrize("place", ["http://issuer/keys", "ftp://issuer/keys", "file:///etc/keys"])
def test_a_key_set_must_not_come_over_a_line_that_others_can_change(place):
    with pytest.raises(InvalidArgumentError, match="expected an https address"):
        key_set(place)


@contextmanager
def issuer(keys):
    """A server of key sets: `keys` may be changed, `asked` counts, `status` is what it answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            server.loops_were_free.append(server.loop_is_free())
            body = json.dumps({"keys": server.keys}).encode()
            self.send_response(server.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.keys, server.asked, server.status = keys, 0, 200
    server.loops_were_free, server.loop_is_free = [], lambda: True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}/keys"
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_key_set_from_an_address_is_fetched_once_and_never_on_the_event_loop():
    with issuer([jwk(RSA, "one"), jwk(EC, "two")]) as server:
        checks = verifier(key_set(server.address))
        tokens = [
            jwt.encode(claims(sub="one"), RSA, "RS256", {"kid": "one"}),
            jwt.encode(claims(sub="two"), EC, "ES256", {"kid": "two"}),
        ] * 8

        async def all_at_once():
            loop = asyncio.get_running_loop()

            def loop_is_free():
                passed = threading.Event()
                loop.call_soon_threadsafe(passed.set)
                return passed.wait(10)

            server.loop_is_free = loop_is_free
            return await asyncio.gather(*map(checks.verify, tokens))

        principals = asyncio.run(all_at_once())
        assert [principal.name for principal in principals] == ["one", "two"] * 8
        assert server.asked == 1
        assert server.loops_were_free == [True]


def test_an_unknown_key_has_the_set_fetched_but_not_all_the_time():
    with issuer([jwk(RSA, "one")]) as server:
        client = jwt.PyJWKClient(server.address, cache_jwk_set=False)

        def keys(min_interval):
            return KeySet(lambda: client.get_jwk_set().keys, min_interval=min_interval)

        rotated = jwt.encode(claims(), EC, "ES256", {"kid": "two"})
        patient = verifier(keys(min_interval=3600))
        for _ in range(5):
            code, message = refusal(patient, rotated)
            assert code == "unauthorized"
            assert message == "the token is signed with a key that is not known"
        assert server.asked == 1
        server.keys = [jwk(EC, "two")]
        eager = verifier(keys(min_interval=0))
        assert verify(eager, rotated).name == "team"
        assert server.asked == 2
        # Refused the second time, too: the old key is gone.
        assert refusal(eager, jwt.encode(claims(), RSA, "RS256", {"kid": "one"}))[0] == (
            "unauthorized"
        )


def test_old_keys_are_used_while_new_ones_cannot_be_had():
    fetches = []
    token = jwt.encode(claims(), RSA, "RS256", {"kid": "one"})

    def fetch():
        fetches.append(None)
        raise OSError("the issuer is gone")

    keys = KeySet(fetch, [jwt.PyJWK(jwk(RSA, "one"))], lifespan=0, min_interval=0)
    checks = verifier(keys)

    async def twice():
        first = await checks.verify(token)
        while not fetches:
            await asyncio.sleep(0)
        return first, await checks.verify(token)

    assert [principal.name for principal in asyncio.run(twice())] == ["team", "team"]


def test_without_any_key_tokens_cannot_be_checked():
    with issuer([jwk(RSA, "one")]) as server:
        server.status = 500
        checks = verifier(key_set(server.address))
        token = jwt.encode(claims(), RSA, "RS256", {"kid": "one"})
        for _ in range(3):
            assert refusal(checks, token)[0] == "authentication_unavailable"
        # A broken issuer is not asked for every request, either.
        assert server.asked == 1


def test_a_token_that_names_no_key_is_checked_with_the_only_one(tmp_path):
    path = tmp_path / "keys.json"
    token = jwt.encode(claims(), RSA, "RS256")
    path.write_text(json.dumps({"keys": [jwk(RSA, "one")]}))
    assert verify(verifier(key_set(str(path))), token).name == "team"
    path.write_text(json.dumps({"keys": [jwk(RSA, "one"), jwk(EC, "two")]}))
    assert refusal(verifier(key_set(str(path))), token)[0] == "unauthorized"


def test_a_kid_that_is_no_text_is_refused(shared):
    header = {"alg": "HS256", "kid": ["one"]}
    assert refusal(shared, unsigned(header, claims()))[0] == "unauthorized"
