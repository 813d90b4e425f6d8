"""What a department's developer pastes to use a grant: address, a curl line, ten lines of Python, topic and group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from bus.core.contracts import Kind
from bus.core.grants import PUBLIC, Grant
from bus.core.shares import share_subject, share_topic
from bus.views.catalogue import Shape

ROWS: Final = 5
_SAMPLES: Final[Mapping[Kind, str]] = {
    Kind.TEXT: "1",
    Kind.INTEGER: "1",
    Kind.NUMBER: "1",
    Kind.DECIMAL: "1",
    Kind.BOOLEAN: "true",
    Kind.DATE: "2026-01-01",
    Kind.TIMESTAMP: "2026-01-01T00:00:00Z",
}
_PUBLIC_PYTHON: Final = """\
import json
from urllib.request import urlopen

with urlopen({address!r}) as answer:
    for row in json.load(answer):
        print(row)
"""
_QUERY_PYTHON: Final = """\
from bus import QueryClient

with QueryClient.connect({consumer!r}) as bus:
    answer = bus.query({view!r}, purpose={purpose!r}, {arguments})
    print("masked:", ", ".join(answer.masked) or "nothing")
    for row in answer.rows:
        print(row)
"""
_QUESTION_PYTHON: Final = """\
from bus import QueryClient

with QueryClient.connect({consumer!r}) as bus:
    print(bus.ask({view!r}, {question!r}, purpose={purpose!r}, key={key!r}))
"""
_STREAM_PYTHON: Final = """\
from bus import Subscriber

with Subscriber.connect({consumer!r}, {view!r}, purpose={purpose!r}) as changes:
    for batch in changes.batches(until_caught_up=True):
        for change in batch:
            print(change)
        cursor = batch.cursor  # keep it with your own data: Subscriber.connect(..., cursor=cursor) goes on from there
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one channel of a grant is used. ``topic``, ``group`` (a prefix) and ``subject`` (of the schema): streams."""

    grant: str
    channel: str
    address: str
    curl: str
    python: str
    topic: str | None = None
    group: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where the bus is: ``web``, its address, and ``command``, what the bus's own command line is called."""

    web: str
    command: str = "bus"


def recipes(grant: Grant, shape: Shape, site: Site) -> list[Recipe]:
    """One recipe for each channel of the grant, in its order."""
    return [_CHANNELS[channel](grant, shape, site) for channel in grant.channels]


def _view(grant: Grant, site: Site, *rest: str) -> str:
    if grant.consumer == PUBLIC:
        return f"{site.web}/v1/open/{grant.view}"
    return "/".join((f"{site.web}/v1/views/{grant.view}", *rest))


def _curl(grant: Grant, site: Site, address: str, *options: str) -> str:
    if grant.consumer == PUBLIC:
        return " ".join(("curl -fsS", *options, f"'{address}'"))
    token = f'-H "Authorization: Bearer $({site.command} token {grant.consumer})"'
    return " ".join(("curl -fsS", *options, token, f"-H 'Purpose: {grant.purpose}'", f"'{address}'"))


def _asking(grant: Grant, site: Site, params: Mapping[str, str], arguments: str, channel: str, *options: str) -> Recipe:
    address = f"{_view(grant, site)}?{urlencode(params)}"
    known: dict[str, Any] = {"consumer": grant.consumer, "view": grant.view, "purpose": grant.purpose}
    template = _PUBLIC_PYTHON if grant.consumer == PUBLIC else _QUERY_PYTHON
    python = template.format(**known, address=address, arguments=arguments)
    return Recipe(grant.id, channel, _view(grant, site), _curl(grant, site, address, *options), python)


def _query(grant: Grant, _shape: Shape, site: Site) -> Recipe:
    return _asking(grant, site, {"limit": str(ROWS)}, f"limit={ROWS}", "query")


def _key(shape: Shape) -> dict[str, str]:
    kinds = {column.name: column.kind for column in shape.columns}
    return {name: f"eq.{_SAMPLES[kinds[name]]}" for name in shape.view.key}


def _lookup(grant: Grant, shape: Shape, site: Site) -> Recipe:
    return _asking(grant, site, _key(shape), f"where={_key(shape)!r}", "lookup")


def _aggregate(grant: Grant, _shape: Shape, site: Site) -> Recipe:
    return _asking(grant, site, {"select": "count()"}, "select=['count()']", "aggregate")


def _export(grant: Grant, _shape: Shape, site: Site) -> Recipe:
    address, file = _view(grant, site), f"{grant.view}.parquet"
    options = ("-o", file, "-H 'Accept: application/vnd.apache.parquet'")
    known = {"consumer": grant.consumer, "view": grant.view, "purpose": grant.purpose}
    python = _EXPORT_PYTHON.format(**known, file=file)
    return Recipe(grant.id, "export", address, _curl(grant, site, address, *options), python)


_EXPORT_PYTHON: Final = """\
from bus import QueryClient

with QueryClient.connect({consumer!r}) as bus:
    answer = bus.raw({view!r}, purpose={purpose!r}, answer="parquet")
    with open({file!r}, "wb") as file:
        file.write(answer.content)
"""


def _question(grant: Grant, shape: Shape, site: Site) -> Recipe:
    question = grant.questions[0]
    path = _view(grant, site, "questions", quote(question))
    address = f"{path}?{urlencode(_key(shape))}"
    key = {name: value.removeprefix("eq.") for name, value in _key(shape).items()}
    known = {"consumer": grant.consumer, "view": grant.view, "purpose": grant.purpose}
    python = _QUESTION_PYTHON.format(**known, question=question, key=key)
    return Recipe(grant.id, "question", path, _curl(grant, site, address), python)


def _stream(grant: Grant, _shape: Shape, site: Site) -> Recipe:
    address = _view(grant, site, "changes")
    known = {"consumer": grant.consumer, "view": grant.view, "purpose": grant.purpose}
    return Recipe(
        grant.id,
        "stream",
        address,
        _curl(grant, site, address, "-N"),
        _STREAM_PYTHON.format(**known),
        topic=share_topic(grant.consumer, grant.view),
        group=f"{grant.consumer}.",
        subject=share_subject(grant.consumer, grant.view),
    )


_CHANNELS: Final[Mapping[str, Callable[[Grant, Shape, Site], Recipe]]] = {
    "lookup": _lookup,
    "query": _query,
    "stream": _stream,
    "export": _export,
    "aggregate": _aggregate,
    "question": _question,
}
