"""docker-compose.yml, as far as it can be tried without a container engine."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from ruamel.yaml import YAML

from bus.access.bundle import build_bundle
from bus.errors import SetupError
from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack.compose import write_opa_files
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.fetch import Downloads
from bus.infra.stack.kafka import MAX_MESSAGE_BYTES
from bus.settings import Settings
from tests.conftest import DOWNLOADS, ROOT, eventually, free_port

COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")
PASSWORD = "p" * 40


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, with anchors resolved."""
    document: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return document


def services(compose: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from compose["services"].items()


def one_shots(compose: dict[str, Any]) -> set[str]:
    """Services that others wait for to end."""
    return {
        name
        for _, service in services(compose)
        for name, wish in service.get("depends_on", {}).items()
        if wish["condition"] == "service_completed_successfully"
    }


def test_what_there_is(compose: dict[str, Any]) -> None:
    """Kafka, OPA, PostgreSQL and the processes of the bus are there, and every dependency exists."""
    assert {"kafka", "opa", "postgres", "worker", "streams", "serve"} <= set(compose["services"])
    for _, service in services(compose):
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        named = {mount.split(":")[0] for mount in service.get("volumes", [])}
        assert named <= set(compose["volumes"])
        assert {item["source"] for item in service.get("configs", [])} <= set(compose["configs"])


def test_settings_exist(compose: dict[str, Any]) -> None:
    """Every BUS_ variable of a container of the bus is a setting."""
    known = {f"BUS_{name.upper()}" for name in Settings.model_fields}
    for _, service in services(compose):
        if "build" in service:
            assert {name for name in service["environment"] if name.startswith("BUS_")} <= known


def test_settings_are_accepted(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings refuse nothing of what serve, worker and streams are given."""
    for name in ("serve", "worker", "streams"):
        with monkeypatch.context() as patch:
            for key, value in compose["services"][name]["environment"].items():
                patch.setenv(key, VARIABLE.sub(PASSWORD, value))
            assert Settings().kafka == "kafka:9092"


def test_serve_answers_opa(compose: dict[str, Any]) -> None:
    """OPA asks for its rules under a host name that serve takes for its own."""
    asked = urlsplit(compose["services"]["setup"]["entrypoint"][-1])
    serve = compose["services"]["serve"]["environment"]
    assert asked.hostname in serve["BUS_WEB_HOSTS"].split(",")
    assert str(asked.port) == serve["BUS_WEB_PORT"]


def test_opa_and_the_bus_share_secrets(compose: dict[str, Any], tmp_path: Path) -> None:
    """What the one-shot writes for OPA is what serve expects: bundle token, signing key, OPA's own token."""
    home, opa = tmp_path / "bus", tmp_path / "opa"
    write_opa_files(opa, "http://serve:8080", {"BUS_OPA_TOKEN": PASSWORD, "BUS_HOME": str(home)})
    secrets = Secrets(home)
    assert (opa / "bundle.token").read_text() == secrets.token("bundle")
    key = json.loads((opa / "config.json").read_text())["keys"]["bus"]["key"]
    bundle = build_bundle(ROOT / "policies", 1, secrets.ensure_key("bundle").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        member = archive.extractfile("/.signatures.json")
        assert member is not None
        (signature,) = json.load(member)["signatures"]
    assert jws.deserialize_compact(signature, ECKey.import_key(key), algorithms=["ES256"])
    for name in ("setup", "serve", "worker"):
        service = compose["services"][name]
        assert service["environment"]["BUS_HOME"] in {mount.split(":")[1] for mount in service["volumes"]}


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    """No published port can be reached from another machine."""
    published = [port for _, service in services(compose) for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    """Every image names a full version, in the Dockerfile too."""
    images = [service["image"] for _, service in services(compose)]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []


def test_every_service_has_a_healthcheck(compose: dict[str, Any]) -> None:
    """What keeps running says how it is, except what others wait for to end."""
    lacking = {name for name, service in services(compose) if "test" not in service.get("healthcheck", {})}
    assert lacking == one_shots(compose)


def test_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    """Every password and token comes from a variable without a default, and there is no other kind of variable."""
    text = COMPOSE.read_text()
    assert len(re.findall(r"(?<!\$)\$\{?\w", text)) == len(VARIABLE.findall(text))
    for _, service in services(compose):
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|DATABASE_URL", name):
                assert VARIABLE.search(value), name
    for value in re.findall(r'(?:password|user_controller)="([^"]*)"', compose["configs"]["kafka"]["content"]):
        assert VARIABLE.fullmatch(value)


def test_folders_of_the_dockerfile_exist() -> None:
    """Whatever the image is built from is in the repository."""
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    missing = [name for line in copied for name in line.split() if not (ROOT / name).exists()]
    assert missing == []


def test_opa_files_for_compose(tmp_path: Path, opa_binary: Path) -> None:
    """The one-shot writes what OPA can start with, and refuses a token that is none."""
    environment = {"BUS_OPA_TOKEN": PASSWORD, "BUS_HOME": str(tmp_path / "home")}
    folder = tmp_path / "opa"
    write_opa_files(folder, "http://serve:8080", environment)
    assert {path.name for path in folder.iterdir()} == {"authz.rego", "bundle.token", "config.json", "data.json"}
    assert PASSWORD not in "".join(path.read_text() for path in folder.iterdir())
    subprocess.run([str(opa_binary), "check", str(folder / "authz.rego"), str(folder / "data.json")], check=True)
    with pytest.raises(SetupError, match="32"):
        write_opa_files(folder, "http://serve:8080", environment | {"BUS_OPA_TOKEN": "opa"})


def test_health_question_of_opa(compose: dict[str, Any], opa_binary: Path) -> None:
    """OPA's health question fails where nobody answers and is right where somebody does."""
    question = compose["services"]["opa"]["healthcheck"]["test"][2:]
    port = free_port()
    asked = [part.replace("127.0.0.1:8282", f"127.0.0.1:{port}") for part in question]
    assert subprocess.run([str(opa_binary), *asked], capture_output=True, check=False).returncode != 0
    command = [str(opa_binary), "run", "--server", "--addr", f"127.0.0.1:{free_port()}"]
    command += ["--diagnostic-addr", f"127.0.0.1:{port}", "--disable-telemetry", "--log-level=error"]
    with subprocess.Popen(command) as server:
        try:
            eventually(
                lambda: subprocess.run([str(opa_binary), *asked], capture_output=True, check=False).returncode == 0
            )
        finally:
            server.terminate()


@pytest.mark.fault
def test_kafka_starts_with_this_configuration(compose: dict[str, Any], tmp_path: Path) -> None:
    """The broker's configuration is one that Kafka starts with, and that lets in only who has a password."""
    downloads = Downloads(DOWNLOADS, print)
    ports = [free_port() for _ in range(3)]
    text = VARIABLE.sub(PASSWORD, compose["configs"]["kafka"]["content"])
    assert f"message.max.bytes={MAX_MESSAGE_BYTES}" in text
    for inside, port in zip(("9092", "9093", "9094"), ports, strict=True):
        text = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1|kafka):{inside}", f"127.0.0.1:{port}", text)
    properties = tmp_path / "kafka.properties"
    properties.write_text(text.replace("/var/lib/kafka/data", str(tmp_path / "data")))
    java = [str(downloads.java()), "-Xmx256m", "-cp", f"{downloads.kafka_jars()}/*"]
    _, cluster = re.findall(r"--(cluster-id) (\S+)", compose["services"]["kafka"]["command"][0])[0]
    assert len(base64.urlsafe_b64decode(cluster + "==")) == 16
    credentials = f"SCRAM-SHA-512=[name=bus,password={PASSWORD}]"
    format_command = ["format", "--ignore-formatted", "--config", str(properties), "--cluster-id", cluster]
    subprocess.run([*java, "kafka.tools.StorageTool", *format_command, "--add-scram", credentials], check=True)
    with subprocess.Popen([*java, "kafka.Kafka", str(properties)], stderr=subprocess.DEVNULL) as broker:
        try:
            host = KafkaConnection(f"127.0.0.1:{ports[2]}", "bus", PASSWORD)
            with Admin(host, timeout_s=60) as admin:
                admin.ensure_topic("kept")
                assert admin.topics() == {"kept"}
        finally:
            broker.terminate()
