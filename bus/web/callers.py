"""Who calls: the subject of the bearer token, and nothing else (A09)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from bus.access.identity import Subject
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
    subject = parts_of(request).verifier.subject(headers[0] if headers else None)
    request.scope["bus.department"] = subject.department
    return subject


async def administrator_of(request: Request) -> Subject:
    """The subject, if it is an administrator. Raises `AdministratorsOnly`."""
    subject = await subject_of(request)
    if not subject.administrator:
        raise AdministratorsOnly()
    return subject


Caller = Annotated[Subject, Depends(subject_of)]
Administrator = Annotated[Subject, Depends(administrator_of)]
TheParts = Annotated[Parts, Depends(parts_of)]
