"""The local Kafka: one KRaft node on loopback that lets nobody do anything without a grant."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bus.infra.stack.credentials import Secrets
from bus.infra.stack.files import private_folder, write_private
from bus.infra.stack.plan import Part
from bus.infra.stack.ports import LOOPBACK

ADMINISTRATOR = "bus"
"""The principal of the bus itself, a super user."""
_BROKER = "broker"
_CONTROLLER = "controller"
_HEAP = "-Xmx512m"
MAX_MESSAGE_BYTES = 1_048_588  # 1 MiB of records and the header of their batch


@dataclass(frozen=True, slots=True)
class KafkaNode:
    """Where the node keeps its files, what runs it, and its two ports."""

    home: Path
    java: Path
    jars: Path
    port: int
    controller_port: int

    @property
    def folder(self) -> Path:
        """Configuration and data."""
        return self.home / "kafka"

    @property
    def data(self) -> Path:
        """The log directory."""
        return self.folder / "data"

    @property
    def formatted(self) -> bool:
        """Whether the data directory was formatted, to its end."""
        return (self.data / "meta.properties").exists() and (self.folder / "formatted").exists()

    def configure(self, secrets: Secrets) -> str:
        """Write the configuration and return its digest."""
        private_folder(self.folder)
        content = _properties(_server(self, secrets))
        write_private(self.folder / "server.properties", content)
        write_private(self.folder / "log4j2.xml", _resource("log4j2.xml"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def format_argv(self, secrets: Secrets) -> list[str]:
        """The command that prepares the data directory with the two first principals.

        Passwords go through an argument file, since every user of the machine can read a command line.
        """
        arguments = ["-cp", f"{self.jars}/*", "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        arguments += ["--config", str(self.folder / "server.properties"), f"--cluster-id={self._cluster_id()}"]
        for principal in (ADMINISTRATOR, _BROKER):
            password = secrets.kafka_password(principal)
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={principal},password={password}]"]
        path = self.folder / "format.args"
        write_private(path, "\n".join(_quoted(argument) for argument in ["-Xmx128m", *_JVM_QUICK, *arguments]))
        return [str(self.java), f"@{path}"]

    def mark_formatted(self) -> None:
        """Remember that formatting went to its end, and remove the file with the passwords."""
        (self.folder / "format.args").unlink(missing_ok=True)
        write_private(self.folder / "formatted", self._cluster_id())

    def part(self, version: str) -> Part:
        """The process."""
        argv = [str(self.java), _HEAP, "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto"]
        argv += [f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}", "-Duser.timezone=UTC"]
        argv += ["-Djava.awt.headless=true", "-cp", f"{self.jars}/*", "kafka.Kafka"]
        argv.append(str(self.folder / "server.properties"))
        return Part("kafka", tuple(argv), port=self.port, version=version)

    def _cluster_id(self) -> str:
        path = self.folder / "cluster-id"
        if not path.exists():
            write_private(path, base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        return path.read_text()


_JVM_QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def _server(node: KafkaNode, secrets: Secrets) -> Mapping[str, str]:
    """The node's configuration. Everything that is not said here is Kafka's default."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{node.controller_port}",
        "listeners": f"CLIENT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{node.port}",
        "log.dirs": str(node.data),
        **_listeners(secrets),
        **_authorization(),
        **_topics(),
        **_SINGLE_NODE,
    }


def _listeners(secrets: Secrets) -> Mapping[str, str]:
    """Both listeners ask for a password; nothing on this machine gets in without one."""
    broker = _jaas("scram.ScramLoginModule", _BROKER, secrets.kafka_password(_BROKER))
    secret = secrets.kafka_password(_CONTROLLER)
    controller = _jaas("plain.PlainLoginModule", _CONTROLLER, secret, accepted=True)
    return {
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        # the controller cannot keep SCRAM credentials for its own listener: it is what stores them
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": broker,
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": controller,
    }


def _authorization() -> Mapping[str, str]:
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in (ADMINISTRATOR, _BROKER, _CONTROLLER)),
        "allow.everyone.if.no.acl.found": "false",
    }


def _topics() -> Mapping[str, str]:
    return {
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        # an event of 2009 that is published today is as young as today, so retention counts from today
        "log.message.timestamp.type": "LogAppendTime",
        "log.retention.hours": "-1",
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    }


_SINGLE_NODE = {
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # after a kill -9 the node waits for its own former session to end before it serves: 9 s by default
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


def _jaas(module: str, username: str, password: str, *, accepted: bool = False) -> str:
    """A JAAS line; with `accepted`, the listener also lets this user in (PLAIN keeps its users here)."""
    user = f' user_{username}="{password}"' if accepted else ""
    prefix = "org.apache.kafka.common.security."
    return f'{prefix}{module} required username="{username}" password="{password}"{user};'


def _properties(values: Mapping[str, str]) -> str:
    return "".join(f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in values.items())


def _quoted(argument: str) -> str:
    """One argument of a Java argument file: JSON's string escapes are a subset of what java accepts."""
    return json.dumps(argument, ensure_ascii=False)


def _resource(name: str) -> str:
    return resources.files("bus.infra.stack").joinpath(name).read_text()
