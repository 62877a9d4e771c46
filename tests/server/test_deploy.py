"""What deploy/ and its guide say of the service holds: settings, ports, probes, files, times."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme
import yaml
from running import free_port, wait_for

from arrowembed.errors import InvalidArgumentError
from arrowembed.server import ServerSettings, read_settings
from arrowembed.server.errors import TABLE
from arrowembed.server.grpc import api
from arrowembed.server.guards import make_access
from arrowembed.server.settings import flag_of, variable_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
FILES = [path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
GUIDE = ROOT / "docs/guides/deployment.md"
DOCUMENTS = [GUIDE, *(ROOT / "docs/operations").glob("*.md")]
# Of the engine, apart from the service.
OTHER_VARIABLES = {"ARROWEMBED_HOME", "ARROWEMBED_MODEL", "ARROWEMBED_ISA"}


def loaded(path):
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / path).read_text("utf-8")))


def found(pattern, text):
    """What a pattern's group stands for in a text that has it on one line."""
    (match,) = re.findall(pattern, text, re.MULTILINE)
    return match


DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
(COMPOSE,) = loaded("compose.yaml")
SERVICES = COMPOSE["services"]
MANIFESTS = {
    (document["kind"], document["metadata"]["name"]): document["spec"]
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in loaded(path)
}
LABELS = {"app.kubernetes.io/name": "arrowembed"}
POD = MANIFESTS["Deployment", "arrowembed"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
UNIT = (DEPLOY / "systemd/arrowembed.service").read_text("utf-8")


def of_image():
    """The environment that the Dockerfile's last stage gives."""
    variables = re.search(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE.rpartition("FROM ")[2], re.MULTILINE)
    return dict(re.findall(r"(ARROWEMBED_\w+)=(\S+)", variables[1]))


def of_compose():
    """The environment of compose.yaml's service while no variable of its own is set."""
    given = SERVICES["arrowembed"]["environment"]
    return {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value)) for name, value in given.items()}


def of_pods(*overlays):
    """The environment of pods, with what overlays add."""
    variables = {}
    for folder in ("base", *(f"overlays/{name}" for name in overlays)):
        (kustomization,) = loaded(KUBERNETES / folder / "kustomization.yaml")
        for generator in kustomization.get("configMapGenerator", []):
            variables |= dict(literal.split("=", 1) for literal in generator["literals"])
    return variables


@pytest.fixture
def settings_of(monkeypatch):
    """The settings that an environment makes of those of the image."""

    def read(variables):
        for name, value in (of_image() | variables).items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return read


@pytest.mark.parametrize("path", [*FILES, *DOCUMENTS], ids=lambda path: path.name)
def test_variables_and_options_are_settings(path):
    text = path.read_text("utf-8")
    variables = {variable_of(name) for name in ServerSettings.model_fields} | OTHER_VARIABLES
    assert set(re.findall(r"\bARROWEMBED_[A-Z_]+\b", text)) <= variables
    commands = " ".join(re.findall(r"arrowembed serve((?:.*\\\n)*.*)", text))
    options = {flag_of(name) for name in ServerSettings.model_fields} | {"--help"}
    assert set(re.findall(r"--[a-z][a-z-]+", commands)) <= options


def test_the_image_serves_its_model_to_others(settings_of):
    settings = settings_of({})
    assert settings.host == "0.0.0.0"
    assert f" {settings.models[0].source} " in found("arrowembed convert(.*)", DOCKERFILE)
    assert f"EXPOSE {settings.port}\n" in DOCKERFILE


def test_the_image_is_made_of_what_there_is():
    let_in = [rule[1:] for rule in (ROOT / ".dockerignore").read_text().split() if rule[0] == "!"]
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in map(Path, sources.split()):
            assert (ROOT / source).exists(), source
            assert any(path.match(rule) for rule in let_in for path in (source, *source.parents))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = found(r"^ARG EXTRAS=(\S+)", DOCKERFILE).split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    sha256 = found(r"^MODEL_SHA256 := (\w+)", (ROOT / "Makefile").read_text("utf-8"))
    assert found(r"^ARG MODEL_SHA256=(\w+)", DOCKERFILE) == sha256


def test_rust_in_the_image_is_new_enough():
    package = tomllib.loads((ROOT / "Cargo.toml").read_text("utf-8"))["workspace"]["package"]
    needed = package["rust-version"].split(".")[:2]
    given = found(r"^FROM rust:([\d.]+)-", DOCKERFILE).split(".")[:2]
    assert list(map(int, given)) >= list(map(int, needed))


def test_modules_whose_bytecode_is_in_the_image_exist():
    names = runpy.run_path(str(DEPLOY / "bytecode.py"))["_IMPORTED"]
    assert len(names) > 10
    for name in names:
        assert importlib.util.find_spec(name) is not None, name


def check_health(port, **variables):
    """The exit status and the message of the health check."""
    check = subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"],
        env={**os.environ, "ARROWEMBED_PORT": str(port), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return check.returncode, check.stderr


def test_the_health_check_says_whether_requests_are_taken(service):
    assert check_health(service.client.base_url.port) == (0, "")
    status, message = check_health(free_port())
    assert status == 1
    assert "no answer on port" in message

    class Loading(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Loading) as server:
        threading.Thread(target=server.handle_request).start()
        assert check_health(server.server_port) == (1, "/ready answers 503\n")


def test_the_health_check_knows_of_certificates(process, bert_mean_folder, tmp_path):
    certificate = trustme.CA().issue_cert("embed.example.org")
    files = {
        "ARROWEMBED_TLS_CERTIFICATE": tmp_path / "chain.pem",
        "ARROWEMBED_TLS_KEY": tmp_path / "key.pem",
    }
    for path, pem in zip(
        files.values(),
        (certificate.cert_chain_pems[0], certificate.private_key_pem),
        strict=True,
    ):
        pem.write_to_path(path)
    variables = {name: str(path) for name, path in files.items()}
    started = process(bert_mean_folder, ready=False, **variables)
    port = started.url.rpartition(":")[2]
    wait_for(lambda: check_health(port, **variables) == (0, ""))


@pytest.mark.parametrize(
    ("variables", "patience"),
    [
        (of_compose(), SERVICES["arrowembed"]["stop_grace_period"].removesuffix("s")),
        (of_pods("local"), POD["spec"]["terminationGracePeriodSeconds"]),
        (of_pods("production"), POD["spec"]["terminationGracePeriodSeconds"]),
    ],
)
def test_containers_have_the_time_to_stop(settings_of, variables, patience):
    settings = settings_of(variables)
    # What has not been sent to a collector of traces takes some more.
    assert int(patience) >= settings.drain_delay_seconds + settings.shutdown_seconds + 10
    assert settings.management_port not in (None, settings.port)
    assert settings.management_host == "0.0.0.0"


def test_compose_joins_what_belongs_together(settings_of):
    settings = settings_of(of_compose())
    assert settings.trusted_proxies == [
        network["subnet"] for network in COMPOSE["networks"]["clients"]["ipam"]["config"]
    ]
    upstreams = (DEPLOY / "nginx/upstreams.conf").read_text("utf-8")
    assert f"server arrowembed:{settings.port} " in upstreams
    assert f"server arrowembed:{settings.grpc_port} " in upstreams
    ((job,),) = (document["scrape_configs"] for document in loaded("prometheus/prometheus.yaml"))
    (discovery,) = job["dns_sd_configs"]
    assert (discovery["names"], discovery["port"]) == (["arrowembed"], settings.management_port)


def test_compose_opens_nothing_but_ports_of_this_machine():
    assert "monitoring" not in SERVICES["nginx"]["networks"]
    assert COMPOSE["networks"]["clients"]["internal"]
    assert "ports" not in SERVICES["arrowembed"]
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_what_compose_mounts_exists():
    (tls,) = loaded("compose.tls.yaml")
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    mounts += tls["services"]["nginx"]["volumes"]
    files = [mount.split(":") for mount in mounts if mount.startswith("./")]
    assert len(files) > 6
    for source, *_ in files:
        assert (DEPLOY / source).exists(), source
    targets = {Path(target) for _, target, _ in files}
    for server in ("http", "https"):
        text = (DEPLOY / f"nginx/{server}.conf").read_text("utf-8")
        assert Path(found(r"include (\S+);", text)) in targets
    (dashboards,) = loaded("grafana/provisioning/dashboards/arrowembed.yaml")
    (provider,) = dashboards["providers"]
    assert Path(provider["options"]["path"]) in {target.parent for target in targets}
    (sources,) = loaded("grafana/provisioning/datasources/prometheus.yaml")
    (source,) = sources["datasources"]
    assert found("http://(.*):", source["url"]) in SERVICES


def test_nginx_lets_the_service_say_what_is_wrong():
    settings = read_settings()
    proxy = (DEPLOY / "nginx/service.conf").read_text("utf-8")
    assert int(found(r"^client_max_body_size (\d+)m;", proxy)) << 20 > settings.max_body_bytes
    assert int(found(r"^proxy_read_timeout (\d+)s;", proxy)) > settings.request_seconds
    upstreams = (DEPLOY / "nginx/upstreams.conf").read_text("utf-8")
    for seconds in re.findall(r"keepalive_timeout (\d+)s;", upstreams):
        assert int(seconds) < settings.keep_alive_seconds
    assert f"location /{api.SERVICE}/ {{" in proxy
    notes = loaded(KUBERNETES / "overlays/production/ingress.yaml")[0]["metadata"]["annotations"]
    size = notes["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) << 20 > settings.max_body_bytes
    assert int(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > settings.request_seconds


def test_probes_ask_what_there_is(service):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["port"] == "http"
        assert service.client.get(asked["path"]).status_code == 200
    (endpoint,) = MANIFESTS["ServiceMonitor", "arrowembed"]["endpoints"]
    assert service.client.get(endpoint["path"]).status_code == 200


def test_a_pod_is_taken_out_before_it_refuses(settings_of):
    settings = settings_of(of_pods())
    probe = CONTAINER["readinessProbe"]
    assert settings.drain_delay_seconds >= probe["periodSeconds"] * probe["failureThreshold"]


def test_ports_of_kubernetes_are_those_of_the_settings(settings_of):
    settings = settings_of(of_pods())
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {
        "http": settings.port,
        "grpc": settings.grpc_port,
        "metrics": settings.management_port,
    }
    services = {name: spec for (kind, name), spec in MANIFESTS.items() if kind == "Service"}
    for spec in services.values():
        assert {port["targetPort"] for port in spec["ports"]} <= set(ports)
    (rule,) = MANIFESTS["Ingress", "arrowembed"]["rules"]
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        named = {port["name"] for port in services[backend["name"]]["ports"]}
        assert backend["port"]["name"] in named
    policy = MANIFESTS["NetworkPolicy", "arrowembed"]
    allowed = [port["port"] for entry in policy["ingress"] for port in entry["ports"]]
    assert sorted(allowed) == sorted(ports)


def test_everything_in_kubernetes_is_about_the_same_pods():
    assert POD["metadata"]["labels"] == LABELS
    deployment = MANIFESTS["Deployment", "arrowembed"]
    assert deployment["selector"]["matchLabels"] == LABELS
    assert MANIFESTS["PodDisruptionBudget", "arrowembed"]["selector"]["matchLabels"] == LABELS
    assert MANIFESTS["NetworkPolicy", "arrowembed"]["podSelector"]["matchLabels"] == LABELS
    (spread,) = POD["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABELS
    for (kind, name), spec in MANIFESTS.items():
        if kind == "Service":
            assert spec["selector"] == LABELS, name
    scaled = MANIFESTS["HorizontalPodAutoscaler", "arrowembed"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", "arrowembed")
    (management,) = (
        document["metadata"]["labels"]
        for document in loaded(KUBERNETES / "base/service.yaml")
        if document["metadata"]["name"] == "arrowembed-management"
    )
    assert MANIFESTS["ServiceMonitor", "arrowembed"]["selector"]["matchLabels"] == management


def test_pods_have_no_rights_and_no_variables_of_services():
    pod, container = POD["spec"], CONTAINER["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in DOCKERFILE
    assert container["readOnlyRootFilesystem"]
    assert not container["allowPrivilegeEscalation"]
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert not pod["automountServiceAccountToken"]
    # One of a service named arrowembed would be ARROWEMBED_PORT.
    assert not pod["enableServiceLinks"]


def test_keys_come_from_a_secret_without_which_nothing_starts():
    (volume,) = (volume for volume in POD["spec"]["volumes"] if volume["name"] == "keys")
    assert "optional" not in volume["secret"]
    (mount,) = (mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "keys")
    variables = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    folder, _, key = variables["ARROWEMBED_API_KEYS_FILE"].rpartition("/")
    assert folder == mount["mountPath"]
    creation = f"create secret generic {volume['secret']['secretName']} --from-file {key}"
    for text in (GUIDE, KUBERNETES / "overlays/production/kustomization.yaml"):
        assert creation in text.read_text("utf-8")


def test_the_example_of_keys_lets_nobody_in():
    example = KUBERNETES / "overlays/production/api-keys.example"
    with pytest.raises(InvalidArgumentError, match="holds no key"):
        make_access(read_settings(api_keys_file=example))


def test_the_unit_starts_what_there_is_and_has_the_time_to_stop():
    assert "ExecStart=/opt/arrowembed/bin/arrowembed serve --config /etc/arrowembed/" in UNIT
    settings = read_settings(config=DEPLOY / "systemd/arrowembed.toml")
    stopping = settings.drain_delay_seconds + settings.shutdown_seconds
    assert int(found(r"^TimeoutStopSec=(\d+)$", UNIT)) >= stopping + 10
    credential = found(r"^LoadCredential=(\S+?):", UNIT)
    assert f"ARROWEMBED_API_KEYS_FILE=%d/{credential}\n" in UNIT
    assert str(settings.models[0].source) in GUIDE.read_text("utf-8")


def test_every_error_is_among_the_troubles():
    troubles = (ROOT / "docs/operations/troubleshooting.md").read_text("utf-8")
    assert set(re.findall(r"`(\w+)`", troubles)) >= set(TABLE)
