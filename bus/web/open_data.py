"""The open data door over HTTP: `/v1/open/{view}`, for everybody, without a token.

The same decision as at every door, for the consumer `public` and the purpose `open_data`; the same dialect.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.access.identity import PUBLIC_SUBJECT
from bus.sharing.open_data.small import PURPOSE
from bus.web.answering import answered, documented

router = APIRouter(prefix="/v1/open", tags=["open data"])
MAX_AGE_S: Final = 60
_NETWORK: Final = 64  # bits of an IPv6 address that are one customer's
_SHOWN: Final = "ETag, Link, Next-Cursor, Content-Range, Data-Freshness, Suppressed, Export-Rows, Policy-Revision"


@router.head("/{view}", include_in_schema=False)
@router.get("/{view}", summary="Query open data, without a token", openapi_extra=documented(token=False))
async def open_data(view: str, request: Request) -> Response:
    """Rows of a view that is open to everybody. Counts under 5 about persons are null, and `Suppressed` says how many
    were withheld. Any page may read it (CORS), and any cache keep it for a minute."""
    response = await answered(request, PUBLIC_SUBJECT, view, PURPOSE, address=address_of(request))
    if response.headers.get("ETag"):
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_S}"
    response.headers["Vary"] = "Accept, Prefer, Range"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = _SHOWN
    return response


def address_of(request: Request) -> str:
    """Whose questions are counted together: an IPv4 address, or the network of an IPv6 one."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _NETWORK), strict=False))
    return str(address)
