"""What runs now, as written down by the supervisor in ``<home>/run/state.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bus.infra.stack.files import write_private
from bus.infra.stack.process import Identity


@dataclass(frozen=True, slots=True)
class StackState:
    """Addresses and processes of a running stack.

    `web` is the URL kept for the bus's own server, `kafka` is host:port and `opa` a URL; the last two are None where
    that part is not ours. `processes` maps names to process ids of what is alive; `starts` counts how often
    each part was started since the supervisor began.
    """

    web: str
    kafka: str | None
    opa: str | None
    processes: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    supervisor: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """The file's content: addresses, the plan's digest, and each process by id and start time."""

    web: str
    kafka: str | None
    opa: str | None
    plan: str
    supervisor: Identity
    processes: Mapping[str, Identity]
    starts: Mapping[str, int]

    def write(self, path: Path) -> None:
        """Replace the file."""
        write_private(path, json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Record | None:
        """The file's content; None if there is none or it is not one of ours (then it is as good as absent)."""
        try:
            document = json.loads(path.read_text())
            supervisor = Identity(**document.pop("supervisor"))
            processes = {name: Identity(**item) for name, item in document.pop("processes").items()}
            return Record(supervisor=supervisor, processes=processes, **document)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def state(self) -> StackState | None:
        """What of this record is still true; None if nothing of it is alive."""
        alive = {name: process.pid for name, process in self.processes.items() if process.alive()}
        supervisor = self.supervisor.pid if self.supervisor.alive() else 0
        if not alive and not supervisor:
            return None
        return StackState(self.web, self.kafka, self.opa, alive, dict(self.starts), supervisor)
