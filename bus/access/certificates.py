"""A client certificate that a trusted proxy verified and forwards: Envoy's ``X-Forwarded-Client-Cert``.

The proxy must be configured by its address, and take away what clients send under that name. The department stands in
the certificate's URI name, ``dept://tax/system1``.
"""

from __future__ import annotations

import re
from typing import Final

from bus.access.identity import Subject, department_of
from bus.errors import InvalidToken

HEADER: Final = "x-forwarded-client-cert"
MAX_CHARACTERS: Final = 16 * 1024  # whole chains may be forwarded beside the name
_PART: Final = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,]*)\s*(;|,|$)')
_NAME: Final = re.compile(r"dept://([a-z][a-z0-9_]{0,62})/([A-Za-z0-9][A-Za-z0-9._-]{0,62})")


def certified(header: str) -> Subject:
    """The department whose system the forwarded certificate names.

    Raises `InvalidToken` unless it is exactly one certificate with exactly one such name: one of a chain of proxies
    would leave open who of them verified what.
    """
    names = [value for key, value in _parts(header) if key == "uri"]
    found = _NAME.fullmatch(names[0]) if len(names) == 1 else None
    if found is None:
        raise InvalidToken(why="the client certificate has no single name of the form dept://department/system")
    return Subject(department_of(found[1], "dept"))


def _parts(header: str) -> list[tuple[str, str]]:
    """Keys in lower case with their values, quotes taken off. Raises `InvalidToken`."""
    found, at = [], 0
    while at < len(header) <= MAX_CHARACTERS:
        part = _PART.match(header, at)
        if part is None or part[3] == ",":
            break
        value = part[2]
        found.append((part[1].lower(), re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value))
        at = part.end()
        if part[3] == "":
            break
    if at != len(header) or not found:
        raise InvalidToken(why="the forwarded client certificate is not one, or more than one")
    return found
