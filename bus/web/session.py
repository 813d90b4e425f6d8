"""Who has signed in to the portal: a sealed cookie that nobody else can read, make or prolong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from bus.access.identity import Subject
from bus.access.oidc.signin import SignIn, Started
from bus.errors import BadCursor, InvalidToken, NotSignedIn
from bus.sharing.cursors.sealing import Cursors

SESSION: Final = "bus_session"
STARTED: Final = "bus_signin"
SESSION_S: Final = 3_600
STARTED_S: Final = 600
_BOUND: Final = {SESSION: b"session", STARTED: b"sign-in"}


@dataclass(frozen=True, slots=True)
class Sessions:
    """Signing in, and the cookies that keep it. ``box`` seals them; ``secure``: they go over TLS only; ``address``: the
    portal's public one where it differs from the one requests come to; ``clock``: seconds since 1970."""

    signin: SignIn
    box: Cursors
    secure: bool = False
    address: str | None = None
    clock: Callable[[], float] = time.time

    def base(self, request: Request) -> str:
        """The portal's address as browsers know it."""
        return (self.address or str(request.base_url)).rstrip("/")

    def begin(self, response: Response, started: Started, path: str) -> None:
        """Keeps what must be known when the person comes back; another site brings it back, so the cookie is Lax."""
        place = (started.state, started.nonce, started.verifier, path, int(self.clock()) + STARTED_S)
        self._set(response, STARTED, place, STARTED_S, "lax")

    def begun(self, request: Request) -> tuple[Started, str]:
        """What `begin` kept. Raises `InvalidToken`."""
        found = self._read(request, STARTED)
        if found is None:
            raise InvalidToken(why="the sign-in was not started here, or took too long")
        return Started(*found[:3]), str(found[3])

    def open(self, response: Response, person: Subject) -> None:
        """The person is signed in for an hour."""
        place = (person.department, person.officer, person.administrator, int(self.clock()) + SESSION_S)
        self._set(response, SESSION, place, SESSION_S, "strict")
        response.delete_cookie(STARTED, path="/login")

    def close(self, response: Response) -> None:
        """The person is signed out here."""
        response.delete_cookie(SESSION)

    def person(self, request: Request) -> Subject | None:
        """Who has signed in; None for nobody."""
        found = self._read(request, SESSION)
        return Subject(*found[:3]) if found is not None else None

    def _set(self, response: Response, name: str, place: tuple[Any, ...], age_s: int, site: Any) -> None:
        sealed = self.box.seal(place, _BOUND[name])
        if sealed is None:
            raise InvalidToken(why="it says more than a cookie can hold")
        path = "/login" if name == STARTED else "/"
        response.set_cookie(name, sealed, age_s, path=path, secure=self.secure, httponly=True, samesite=site)

    def _read(self, request: Request, name: str) -> tuple[Any, ...] | None:
        """What is sealed in a cookie, unless its time is over: the last member."""
        text = request.cookies.get(name)
        if text is None:
            return None
        try:
            place = self.box.open(text, _BOUND[name])
        except BadCursor:
            return None
        return place if place[-1] > self.clock() else None


def person_of(request: Request) -> Subject | None:
    """Who has signed in; None for nobody, and where nobody can."""
    sessions: Sessions | None = request.app.state.parts.sessions
    return sessions.person(request) if sessions is not None else None


def required(request: Request) -> Subject:
    """Who has signed in. Raises `NotSignedIn`."""
    person = person_of(request)
    if person is None:
        raise NotSignedIn()
    return person
