"""How one principal reaches the Kafka cluster, in the words of each client library."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """How one principal reaches the cluster: SCRAM-SHA-512, over TLS where `security_protocol` says SASL_SSL."""

    bootstrap: str
    username: str
    password: str = field(repr=False)
    security_protocol: Literal["SASL_PLAINTEXT", "SASL_SSL"] = "SASL_PLAINTEXT"
    cafile: Path | None = None

    def kafka_python(self) -> dict[str, Any]:
        """The settings for any client of kafka-python."""
        settings: dict[str, Any] = {**self._common(), "reconnect_backoff_max_ms": 1_000}
        if self.security_protocol == "SASL_SSL":
            settings["ssl_cafile"] = str(self.cafile) if self.cafile else None
        return settings

    def aiokafka(self) -> dict[str, Any]:
        """The settings for any client of aiokafka."""
        return {**self._common(), "ssl_context": self.ssl_context()}

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that checks the broker's certificate and name; None where TLS is not spoken."""
        if self.security_protocol != "SASL_SSL":
            return None
        return ssl.create_default_context(cafile=self.cafile)

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": self.security_protocol,
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }
