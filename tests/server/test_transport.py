"""What lies between clients and routes: TLS, proxies, browsers, a port for operators."""

import re
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import pytest
import trustme
from calling import address_of
from running import running, wait_for

from arrowembed.server import read_settings
from arrowembed.server.guards import warn_of_open_doors
from arrowembed.server.security.keys import new_key

ONE = {"texts": "one"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for this machine, its key, and what trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "certificate.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / "key.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return folder, trusting


def ready(url, trusting):
    try:
        return httpx.get(f"{url}/ready", verify=trusting).status_code == 200
    except httpx.ConnectError:
        return False


def test_tls_and_a_port_for_operators(process, certificates, bert_mean_folder):
    folder, trusting = certificates
    service = process(
        *("--tls-certificate", folder / "certificate.pem", "--tls-key", folder / "key.pem"),
        *("--management-port", 0, f"tiny={bert_mean_folder}"),
        ready=False,
    )
    url = service.url.replace("http:", "https:")
    wait_for(lambda: ready(url, trusting))
    ports = re.findall(r"running on \w+://127\.0\.0\.1:(\d+)", service.log.read_text())
    management = next(f"https://127.0.0.1:{port}" for port in ports if port not in url)
    with httpx.Client(verify=trusting) as client:
        assert client.post(f"{url}/embed", json=ONE).status_code == 200
        for path, method in (("/metrics", "GET"), ("/models/tiny/reload", "POST")):
            assert client.request(method, url + path).status_code == 404
            assert client.request(method, management + path).status_code == 200
            # The port is the socket's, whatever a client says.
            lie = {"host": management.removeprefix("https://")}
            assert client.request(method, url + path, headers=lie).status_code == 404
        assert client.get(f"{management}/health").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{service.url}/health")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", verify=old)


def issue(authority, folder):
    """A certificate of an authority, and its key, in the place of those that are there."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "certificate.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))


def test_sighup_takes_a_renewed_certificate(process, bert_mean_folder, tmp_path):
    old, new = trustme.CA(), trustme.CA()
    trusting = {}
    for authority in (old, new):
        trusting[authority] = ssl.create_default_context()
        authority.configure_trust(trusting[authority])
    issue(old, tmp_path)
    service = process(
        *("--tls-certificate", tmp_path / "certificate.pem", "--tls-key", tmp_path / "key.pem"),
        *("--workers", 2, "--grpc-port", 0, bert_mean_folder),
        ready=False,
    )
    url = service.url.replace("http:", "https:")
    wait_for(lambda: ready(url, trusting[old]))
    grpc_url = f"https://{address_of(service)}"

    def trusted(authority):
        """Whether connections to any worker show what an authority has issued."""
        urls = [url, grpc_url] * 10
        return all(handshake(each, trusting[authority]) for each in urls)

    assert trusted(old)
    # A worker that has yet to start could not with a key that does not fit.
    wait_for(lambda: service.log.read_text().count("Application startup complete") == 2)
    # It leaves those that run as they are.
    key = (tmp_path / "key.pem").read_bytes()
    new.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "key.pem")
    service.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: "the old ones stay" in service.log.read_text())
    assert trusted(old)
    (tmp_path / "key.pem").write_bytes(key)
    issue(new, tmp_path)
    service.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: trusted(new))
    assert not handshake(url, trusting[old])
    assert not handshake(grpc_url, trusting[old])


def handshake(url, trusting):
    """Whether a server shows a certificate that is trusted."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            trusting.wrap_socket(connection, server_hostname="localhost").close()
        except ssl.SSLCertVerificationError:
            return False
    return True


def test_sighup_takes_other_keys(process, bert_mean_folder, tmp_path):
    keys = {name: new_key(name, ["embed"]) for name in ("old", "kept", "new")}
    file = tmp_path / "keys"

    def write(*names):
        file.write_text("".join(f"{keys[name][1].entry()}\n" for name in names))

    write("old", "kept")
    service = process("--api-keys-file", file, "--workers", 2, bert_mean_folder)

    def status(key):
        # `verify` is only off because it takes httpx longer than all else to read certificates.
        headers = {"x-api-key": key}
        return httpx.get(f"{service.url}/models", headers=headers, verify=False).status_code

    def accepted():
        """The keys that every worker takes; connections go to any."""
        return {
            name for name, (key, _) in keys.items() if {status(key) for _ in range(10)} == {200}
        }

    assert accepted() == {"old", "kept"}
    for text in ("", "no key"):
        file.write_text(text)
        service.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old ones stay" in service.log.read_text())
        assert accepted() == {"old", "kept"}
    write("kept", "new")
    service.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: accepted() == {"kept", "new"})


def serve_once(*arguments):
    """What a service says that cannot start."""
    command = [sys.executable, "-m", "arrowembed", "serve", "--port", "0", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_certificate_that_does_not_fit_is_named(certificates, bert_mean_folder):
    folder, _ = certificates
    status, said = serve_once(
        *("--tls-certificate", folder / "key.pem", "--tls-key", folder / "key.pem"),
        f"tiny={bert_mean_folder}",
    )
    assert status == 1
    assert said.startswith("error: tls_certificate, tls_key: ")
    assert "expected a certificate and its key, both in PEM" in said


def test_what_is_wrong_is_said_once_and_before_workers_start(bert_mean_folder):
    status, said = serve_once("--workers", 2, "--api-keys", "nonsense", f"tiny={bert_mean_folder}")
    assert status == 1
    assert said.count("error: ") == 1
    assert "error: api_keys, line 1: expected name:scopes:hash" in said
    assert "nonsense" not in said


def test_only_trusted_proxies_may_say_who_the_client_is(process, bert_mean_folder):
    limit = ("--rate-limit", 6, "--rate-limit-burst", 2)
    listen = ("--host", "0.0.0.0", "--trusted-proxies", "127.0.0.0/8,10.0.0.0/8")
    service = process(*listen, *limit, f"tiny={bert_mean_folder}")
    assert "ANYBODY WHO REACHES 0.0.0.0 MAY USE THIS SERVICE" in service.log.read_text()

    def status(forwarded):
        headers = {"x-forwarded-for": forwarded}
        body = {"texts": ["a", "b"]}
        return httpx.post(f"{service.url}/embed", json=body, headers=headers).status_code

    # The last address that is no proxy counts; what stands before it, anybody may have written.
    assert status("192.0.2.1") == 200
    assert status("192.0.2.1, 10.1.2.3") == 429
    assert status("198.51.100.7, 192.0.2.1") == 429
    assert status("192.0.2.2") == 200
    # Whom a proxy speaks for is not on this machine.
    headers = {"x-forwarded-for": "192.0.2.1"}
    answer = httpx.post(f"{service.url}/models/tiny/reload", headers=headers)
    assert answer.status_code == 403


def test_others_are_not_believed(bert_mean_folder):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}], rate_limit=6, rate_limit_burst=2
    ) as service:
        body = {"texts": ["a", "b"]}
        statuses = [
            service.post("/embed", body, headers={"x-forwarded-for": f"192.0.2.{i}"}).status_code
            for i in range(3)
        ]
        assert statuses == [200, 429, 429]


@pytest.mark.parametrize(
    ("settings", "is_open"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.0.2.1"}, True),
        ({"host": "example.org"}, True),
        ({"host": "0.0.0.0", "api_keys": f"web:embed:{'a' * 64}"}, False),
        (
            {
                "host": "0.0.0.0",
                "jwt_secret": "s" * 32,
                "jwt_issuer": "me",
                "jwt_audience": "us",
            },
            False,
        ),
    ],
)
def test_an_open_door_is_warned_of(caplog, settings, is_open):
    warn_of_open_doors(read_settings(**settings))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == is_open
    for warning in said:
        assert warning.startswith(f"ANYBODY WHO REACHES {settings['host']} MAY USE THIS SERVICE")
        assert "arrowembed keys new" in warning


def test_browsers_are_told_to_be_careful(service):
    for path in ("/embed", "/nowhere", "/health", "/metrics"):
        headers = service.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"
    documentation = service.client.get("/docs")
    assert documentation.status_code == 200
    policy = documentation.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "https://" not in documentation.text


def preflight(client, origin):
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    return client.options("/embed", headers=headers)


def test_pages_of_other_origins_may_not_ask(service):
    assert preflight(service.client, "https://page.example").status_code == 405
    answer = service.post("/embed", ONE, headers={"origin": "https://page.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_origins_that_may(bert_mean_folder):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}],
        cors_origins="https://page.example, https://other.example",
        api_keys=f"web:embed:{'a' * 64}",
    ) as service:
        allowed = preflight(service.client, "https://page.example")
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        assert "access-control-allow-credentials" not in allowed.headers
        assert preflight(service.client, "https://evil.example").status_code == 400
        # Pages may read why they were refused, too.
        refused = service.post("/embed", ONE, headers={"origin": "https://other.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://other.example"
        assert "x-request-id" in refused.headers["access-control-expose-headers"]
