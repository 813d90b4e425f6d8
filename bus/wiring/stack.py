"""The local stack: which processes `bus up` runs, and what they are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx2

from bus.infra.stack import LocalStack, Program, StackState
from bus.infra.stack.fetch import Downloads
from bus.infra.stack.files import private_folder, write_private
from bus.settings import Settings
from bus.wiring.site import running

DEMONSTRATION: Final = "run/demonstration"
"""The file in a home that says: this bus is a demonstration."""


def local_stack(settings: Settings, progress: Callable[[str], None]) -> LocalStack:
    """Kafka, OPA, serve, worker and streams on this machine; what is configured from outside is left out."""
    environment = child_environment(settings) | {"BUS_HOME": "{home}", "BUS_WEB_PORT": "{web_port}"}
    if not settings.kafka:
        environment["BUS_KAFKA"] = "{kafka}"
    if not settings.opa:
        environment["BUS_OPA"] = "{opa}"
    if (settings.home / DEMONSTRATION).exists():
        environment.setdefault("BUS_DEMO", "true")
    command = (sys.executable, "-m", "bus.cli")
    serve_program = Program(
        "serve", (*command, "serve"), environment, ready=_serving(settings), after=("kafka",), listens=True
    )
    worker_program = Program("worker", (*command, "worker"), environment, after=("kafka", "serve"))
    streams_program = Program("streams", (*command, "streams"), environment, after=("kafka", "serve"))
    return LocalStack(
        settings.home,
        programs=(serve_program, worker_program, streams_program),
        kafka=not settings.kafka,
        opa=not settings.opa,
        web_port=settings.web_port,
        progress=progress,
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """What the bus's own processes are told beside their parent's environment: what was set here, and UTC.

    Nothing else, since a process whose environment changed is started again by the next `bus up`.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("BUS_")}
    return {**given, "BUS_HOME": str(settings.home.resolve()), "TZ": "UTC", "PYTHONUNBUFFERED": "1"}


def _serving(settings: Settings) -> Callable[[], bool]:
    """Asks serve whether it can answer: rules loaded, canary decision good, database there."""

    def ready() -> bool:
        state = running(settings.home)
        if state is None:
            return False
        try:
            return httpx2.get(f"{state.web}/health/ready", timeout=2.0).status_code == 200
        except httpx2.TransportError:
            return False

    return ready


def start(progress: Callable[[str], None], *, demonstration: bool = False) -> StackState:
    """Starts what is missing and returns when every part answers.

    ``demonstration``: marks this home, now and for later starts, as one whose portal may ask as any department;
    ``BUS_DEMO=false`` in the environment still forbids it.
    """
    settings = Settings()
    if demonstration:
        private_folder((settings.home / DEMONSTRATION).parent)
        write_private(settings.home / DEMONSTRATION, "Written by `bus demo`: the portal may ask as any department.\n")
    return local_stack(settings, progress).up()


def opa_binary(settings: Settings) -> Path:
    """OPA's program, for testing rules."""
    return Downloads(settings.home, progress=print).opa()
