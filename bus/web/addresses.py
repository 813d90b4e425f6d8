"""What the address and the headers of a question say, read strictly."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request

from bus.errors import BadFilter

MAX_PARAMETERS: Final = 200


def parameters(query_string: bytes) -> list[tuple[str, str]]:
    """The parameters of an address, in their order. Raises `BadFilter` for too many and for what is not UTF-8."""
    try:
        text = query_string.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise BadFilter(
            why=f"the address has more than {MAX_PARAMETERS} parameters or is not UTF-8 in % escapes."
        ) from error


def stated_purpose(request: Request) -> str | None:
    """The one purpose that is stated; two are none."""
    stated = request.headers.getlist("purpose")
    return stated[0] if len(stated) == 1 else None
