"""The command's top: sub-commands, and how failures end (0 done, 1 refused or failed, 2 wrong usage)."""

from __future__ import annotations

import logging
import sys

import typer

from bus.cli.commands import COMMANDS
from bus.cli.later import group_of
from bus.errors import BusError

app = typer.Typer(
    name="bus",
    cls=group_of(COMMANDS),
    help="The data-sharing bus: start it, declare what there is, publish, ask, and see who saw what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _top() -> None:
    pass


def main() -> None:
    """Runs one command. A refusal is one line on stderr and exit code 1; Ctrl-C is 130."""
    # kafka-python says on every connection that SCRAM runs without TLS: on loopback it is meant to
    logging.getLogger("kafka.net.sasl.scram").setLevel(logging.ERROR)
    # a command has no log: what went wrong is its own line, not a library's
    logging.lastResort = logging.NullHandler()
    try:
        app(standalone_mode=True)
    except BusError as error:
        _end(error.detail, 1, style="red")
    except ValueError as error:
        from pydantic import ValidationError  # a setting's; late: no command pays for what it does not meet

        if not isinstance(error, ValidationError):
            raise
        _end("; ".join(str(item["msg"]) for item in error.errors()), 1)
    except KeyboardInterrupt:
        _end("interrupted; what was accepted is kept, run the command again", 130)


def _end(why: str, code: int, style: str = "") -> None:
    from bus.cli.output import errors

    errors.print(f"bus: {why}", style=style if errors.is_terminal else "", markup=False)
    sys.exit(code)
