"""How departments, entities, views and topics are named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

ID = re.compile(r"[a-z][a-z0-9_]{0,62}")
GRANT_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def is_id(text: object) -> bool:
    """Whether ``text`` may name a department, entity, view, field or purpose."""
    return isinstance(text, str) and ID.fullmatch(text) is not None


def is_grant_id(text: object) -> bool:
    """Whether ``text`` may name a grant or a set of grants (``-`` is allowed as well)."""
    return isinstance(text, str) and GRANT_ID.fullmatch(text) is not None


def snake_case(name: str) -> str:
    """``BusinessLicence`` is ``business_licence``; what is already in snake case stays."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def entity_id(text: str) -> str:
    """``food.Inspection`` and ``food.inspection`` are the same entity, ``food.inspection``."""
    department, _, entity = text.partition(".")
    return f"{department}.{snake_case(entity)}"


def topic_of(entity: str) -> str:
    """The topic that carries an entity's change events."""
    return f"dept.{entity}"


def entity_of(topic: str) -> str:
    """The entity whose events a ``dept.`` topic carries."""
    return topic.removeprefix("dept.")


def subject_of(entity: str) -> str:
    """The registry subject of an entity's value schema (TopicNameStrategy)."""
    return f"{topic_of(entity)}-value"


def without_generation(view: str) -> str:
    """The name of the view that a shadow (``+next``) or a replaced generation (``+old``) stands for."""
    return view.partition("+")[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ``Did you mean 'ward'?``, or the known names, or nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names[:30])}." if names else ""
