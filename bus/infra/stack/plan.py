"""What shall run: the parts of the stack, as the supervisor is told them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Program:
    """A process of the bus itself, given by the caller.

    In `argv` and the values of `env`, ``{home}``, ``{web_port}``, ``{web}``, ``{kafka}`` and ``{opa}`` are replaced
    by what this start uses. `env` is added to the caller's environment; what a program depends on belongs there,
    since `up` restarts a program whose argv or env changed. `ready` is asked by `up` until it returns true; it may
    raise OSError for "not yet". It is started once every part in `after` that is in the stack listens.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    after: Sequence[str] = ("kafka",)
    listens: bool = False
    """Whether it is the one that listens on ``{web_port}``."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process: what to run, where it listens (0: nowhere), and whose listening it waits for."""

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    port: int = 0
    after: tuple[int, ...] = ()
    version: str = ""  # of what it reads at start-up, so that a changed configuration means a new start

    @property
    def digest(self) -> str:
        """Two parts with the same digest are the same process, as far as the stack can tell."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the supervisor needs: the parts in order of start, and the addresses to write down."""

    home: str
    parts: tuple[Part, ...]
    web: str
    kafka: str | None
    opa: str | None

    @property
    def digest(self) -> str:
        """Changes with any part and with the addresses."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The plan as text for the supervisor's standard input; it may contain secrets."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Plan:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError on anything else."""
        document = json.loads(text)
        parts = tuple(_part(item) for item in document.pop("parts"))
        return Plan(parts=parts, **document)


def _part(item: dict[str, Any]) -> Part:
    return Part(
        name=str(item["name"]),
        argv=tuple(item["argv"]),
        env=tuple((str(k), str(v)) for k, v in item["env"]),
        port=int(item["port"]),
        after=tuple(item["after"]),
        version=str(item["version"]),
    )
