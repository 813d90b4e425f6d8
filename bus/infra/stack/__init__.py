"""The local stack: Kafka, OPA and the bus's own processes on this machine, supervised, on loopback only.

State, logs, secrets and fetched parts live under one home folder (``.bus``); nothing is read from settings here.
"""

from bus.infra.stack.credentials import Secrets
from bus.infra.stack.local import LocalStack
from bus.infra.stack.plan import Program
from bus.infra.stack.state import StackState

__all__ = ["LocalStack", "Program", "Secrets", "StackState"]
