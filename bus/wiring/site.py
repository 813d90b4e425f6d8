"""Where the running bus is, and the right to speak for its departments on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.errors import SetupError
from bus.infra.connection import KafkaConnection
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.state import Record, StackState
from bus.settings import Settings

ISSUER_KEY: Final = "issuer"
TOKEN_LIFETIME_S: Final = 900
TOKEN_RENEWED_S: Final = 600


def running(home: Path) -> StackState | None:
    """What of the local stack runs now; None if nothing does."""
    record = Record.read(home.resolve() / "run" / "state.json")
    return record.state() if record else None


@dataclass(frozen=True)
class Site:
    """The addresses of a running bus, and the right to speak for its departments on this machine."""

    settings: Settings
    web: str
    kafka: str
    opa: str
    processes: Mapping[str, int]

    @classmethod
    def find(cls, settings: Settings | None = None) -> Site:
        """The bus that the environment names, else the local stack. Raises `SetupError` where none runs."""
        settings = settings or Settings()
        state = running(settings.home)
        kafka, opa = settings.kafka or (state and state.kafka), settings.opa or (state and state.opa)
        web = f"http://{settings.web_host}:{settings.web_port}" if settings.web_port else state and state.web
        if not web or not kafka or not opa:
            raise SetupError("The bus does not run here. Start it with `bus up` or `make demo`.")
        return cls(settings, web, kafka, opa, state.processes if state else {})

    @property
    def database(self) -> str:
        """The database's URL without a password."""
        head, at, tail = self.settings.database.rpartition("@")
        return f"{head.partition('://')[0]}://…@{tail}" if at else self.settings.database

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.settings.home)

    def token(self, department: str, *, officer: str | None = None, administrator: bool = False) -> str:
        """A short-lived token from the local issuer."""
        from bus.access.identity import Issuer

        issuer = Issuer(self.secrets.ensure_key(ISSUER_KEY).read_bytes())
        return issuer.token(department, officer=officer, administrator=administrator, lifetime_s=TOKEN_LIFETIME_S)

    def connection(self, principal: str) -> KafkaConnection:
        """How a principal reaches the broker."""
        return connection(self.settings, self.kafka, principal)


def connection(settings: Settings, bootstrap: str, principal: str) -> KafkaConnection:
    """A principal's connection; the bus's own password may come from the environment."""
    given = settings.kafka_password if principal == settings.kafka_username else None
    password = given.get_secret_value() if given else Secrets(settings.home).kafka_password(principal)
    return KafkaConnection(
        bootstrap=bootstrap,
        username=principal,
        password=password,
        security_protocol=settings.kafka_security,
        cafile=settings.kafka_cafile,
    )


class RenewedToken:
    """A token that is signed anew well before it expires."""

    def __init__(self, sign: Callable[[], str]) -> None:
        self._sign = sign
        self._token, self._until = "", 0.0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() > self._until:
                self._token, self._until = self._sign(), time.monotonic() + TOKEN_RENEWED_S
            return self._token
