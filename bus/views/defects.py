"""Reports a defect: its type and where it happened, never the values at hand, which may be personal."""

from __future__ import annotations

import traceback

import structlog

log = structlog.get_logger(__name__)


def report(event: str, error: BaseException, **facts: object) -> None:
    """Logs an error that should not have happened, with the lines of code it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    log.error(event, error=type(error).__name__, where=where, **facts)
