"""Why a view cannot go on from where it is: events that its topics no longer have, topics that were made anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.views.builder import Place


def hole(place: Place, at: int, start: int, end: int) -> str:
    """Why a view cannot go on from where it is."""
    topic, partition = place
    if at < start:
        return (
            f"{topic}/{partition} begins at offset {start}, the view has applied up to {at}: {start - at} events are "
            "gone, and a rebuild would lose more. To begin with what there is, drop the view and apply it again."
        )
    return (
        f"{topic}/{partition} ends at offset {end}, the view has applied up to {at}: the topic was made anew. "
        "`bus views rebuild` builds the view from the new one."
    )


def anew(topic: str, known: Mapping[str, str], ids: Mapping[str, str]) -> str:
    """Why a view cannot go on where its topic is not the one that it was built from; empty where it is, or where one of
    the two ids is not known."""
    if known.get(topic, "") in ("", ids.get(topic) or known.get(topic)):
        return ""
    return f"{topic} was made anew since the view was built. `bus views rebuild` builds the view from the new one."


def known_ids(origins: Mapping[str, Any] | None) -> dict[str, str]:
    """The ids of the topics that a view is built from."""
    return {topic: str(origin.get("id", "")) for topic, origin in (origins or {}).items()}


def reason_to_stop(
    topics: frozenset[str],
    known: Mapping[str, str],
    ids: Mapping[str, str],
    *,
    positions: Mapping[Place, int] | None = None,
    starts: Mapping[Place, int] | None = None,
    ends: Mapping[Place, int] | None = None,
) -> str:
    """The first reason why a view of these topics cannot go on from its positions; empty where it can."""
    reason = next((why for topic in sorted(topics) if (why := anew(topic, known, ids))), "")
    for place, at in (positions or {}).items():
        start, end = (starts or {}).get(place, 0), (ends or {}).get(place, 0)
        if not reason and not start <= at <= end:
            reason = hole(place, at, start, end)
    return reason
