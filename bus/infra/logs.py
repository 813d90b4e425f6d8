"""The processes' logs: one JSON object a line, control characters escaped, never a value of a record."""

from __future__ import annotations

import json
import logging
from typing import Any

import structlog


def configure(process: str) -> None:
    """Logs of this process from now on. Tracebacks carry no local variables: these hold records."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_line),
        ],
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter(process))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    quiet()


def quiet() -> None:
    """Silences what says on every connection that SCRAM runs without TLS: on loopback it is meant to."""
    logging.getLogger("kafka.net.sasl.scram").setLevel(logging.ERROR)


def _line(event: Any, **_: Any) -> str:
    # ASCII only: no control or direction character of an event reaches a terminal
    return json.dumps(event, ensure_ascii=True, default=str)


class _JsonFormatter(logging.Formatter):
    """A library's log record as one JSON line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "process": self._process,
            "timestamp": self.formatTime(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return _line(event)
