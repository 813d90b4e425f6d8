"""A worker as a process of its own for tests. Arguments: JSON with database, kafka settings, lease_s, batch_events,
crash (chance of dying by SIGKILL at each crash point), seed, and perhaps registry (the URL of one across HTTP)."""

from __future__ import annotations

import json
import os
import random
import signal
import sys

from bus.contracts.registry import Registry
from bus.contracts.registry_client import RegistryClient
from bus.infra.database import open_database
from bus.infra.kafka import KafkaConnection
from bus.views.catalogue import Declarations
from bus.views.worker import Worker


def main() -> None:
    given = json.loads(sys.argv[1])
    dice = random.Random(given["seed"])

    def crash(_point: str) -> None:
        if dice.random() < given["crash"]:
            os.kill(os.getpid(), signal.SIGKILL)

    governance = open_database(given["database"], "governance")
    across = given.get("registry")
    Worker(
        views=open_database(given["database"], "views", durable=False),
        declarations=Declarations(governance),
        registry=RegistryClient(across, lambda: "good") if across else Registry(governance),
        kafka=KafkaConnection(**given["kafka"]),
        lease_s=given["lease_s"],
        batch_events=given["batch_events"],
        crash_point=crash,
    ).run()


if __name__ == "__main__":
    main()
