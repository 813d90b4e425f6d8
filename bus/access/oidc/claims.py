"""What the tokens of an outside provider say: which claims name department, officer and administrator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus.access.identity import Subject, attributes_of, department_of, officer_of
from bus.errors import InvalidToken


@dataclass(frozen=True, slots=True)
class Claims:
    """Names of claims. A system's token has the department in ``department``; one of a person has its name in
    ``officer`` or, as RFC 8693 says it, in ``act.sub``."""

    department: str = "sub"
    officer: str = ""
    administrator: str = "bus_administrator"

    def subject(self, claims: Mapping[str, Any]) -> Subject:
        """The subject. Raises `InvalidToken` where the claims do not name one."""
        officer = officer_of(claims.get("act"))
        if officer is None and self.officer and self.officer in claims:
            officer = officer_of({"sub": claims[self.officer]})
        return Subject(
            department_of(claims.get(self.department), self.department),
            officer,
            claims.get(self.administrator) is True,
            attributes_of(claims.get("bus_attributes")),
        )

    def person(self, claims: Mapping[str, Any]) -> Subject:
        """The subject of a person's token: it must name the officer. Raises `InvalidToken`."""
        subject = self.subject(claims)
        if subject.officer is None:
            raise InvalidToken(why=f"it names no person: the claim `{self.officer or 'act.sub'}` is missing")
        return subject
