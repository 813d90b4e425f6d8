"""Who calls: the subject of the bearer token, or of a client certificate that a trusted proxy forwards, and nothing
else (A09)."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from bus.access.identity import Subject, UnknownKey, Verifier
from bus.access.oidc.verifying import Verifiers
from bus.errors import AdministratorsOnly, InvalidToken
from bus.web.parts import Parts


def parts_of(request: Request) -> Parts:
    """The app's parts."""
    parts: Parts = request.app.state.parts
    return parts


async def subject_of(request: Request) -> Subject:
    """The subject that the Authorization header proves. Raises `InvalidToken`."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise InvalidToken(why="there is more than one")
    certificate: Subject | None = request.scope.get("bus.certified")
    if certificate is not None and not headers:
        subject = certificate
    else:
        subject = await _verified(parts_of(request).verifier, headers[0] if headers else None)
    if certificate is not None and subject.department != certificate.department:
        raise InvalidToken(why="it is another department's than the client certificate")
    request.scope["bus.department"] = subject.department
    return subject


async def _verified(verifier: Verifier | Verifiers, header: str | None) -> Subject:
    """The token's subject; where it names a key that is not known, the outside provider's keys are read anew first."""
    try:
        return verifier.subject(header)
    except UnknownKey as error:
        if not isinstance(verifier, Verifiers):
            raise
        await asyncio.to_thread(verifier.refresh, error)
        return verifier.subject(header)


async def administrator_of(request: Request) -> Subject:
    """The subject, if it is an administrator. Raises `AdministratorsOnly`."""
    subject = await subject_of(request)
    if not subject.administrator:
        raise AdministratorsOnly()
    return subject


Caller = Annotated[Subject, Depends(subject_of)]
Administrator = Annotated[Subject, Depends(administrator_of)]
TheParts = Annotated[Parts, Depends(parts_of)]
