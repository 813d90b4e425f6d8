"""The command's top: sub-commands, and how failures end (0 done, 1 refused or failed, 2 wrong usage)."""

from __future__ import annotations

import logging
import sys

import typer
from pydantic import ValidationError

from bus.cli import checking, data, declare, discrepancies, lineage, questions, rebuild, stack, subscribe
from bus.cli.output import errors
from bus.errors import BusError

app = typer.Typer(
    name="bus",
    help="The data-sharing bus: start it, declare what there is, publish, ask, and see who saw what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stack.install(app)
data.install(app)
subscribe.install(app)
questions.install(app)
discrepancies.install(declare.views)
rebuild.install(declare.views)
lineage.install(declare.views)
app.add_typer(declare.departments, name="departments")
app.add_typer(declare.contracts, name="contracts")
checking.install(declare.views)
app.add_typer(declare.views, name="views")
app.add_typer(declare.grants, name="grants")
app.add_typer(data.quarantine, name="quarantine")
app.add_typer(data.audit, name="audit")
app.add_typer(stack.policy, name="policy")


def main() -> None:
    """Runs one command. A refusal is one line on stderr and exit code 1; Ctrl-C is 130."""
    # kafka-python says on every connection that SCRAM runs without TLS: on loopback it is meant to
    logging.getLogger("kafka.net.sasl.scram").setLevel(logging.ERROR)
    # a command has no log: what went wrong is its own line, not a library's
    logging.lastResort = logging.NullHandler()
    try:
        app(standalone_mode=True)
    except BusError as error:
        errors.print(f"bus: {error.detail}", style="red" if errors.is_terminal else "", markup=False)
        sys.exit(1)
    except ValidationError as error:
        errors.print("bus: " + "; ".join(str(item["msg"]) for item in error.errors()), markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("bus: interrupted; what was accepted is kept, run the command again")
        sys.exit(130)
