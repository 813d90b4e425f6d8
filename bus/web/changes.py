"""Streams over HTTP: a view's changes as Server-Sent Events, and what a Kafka client needs to read the same itself.

Source of the format: HTML Living Standard, 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bus.access.decision import Allow
from bus.access.identity import Subject
from bus.core.shares import share_subject, share_topic
from bus.errors import BusError, Unavailable
from bus.sharing.subscribing.client import TooSlow
from bus.sharing.subscribing.door import Asked, Stream
from bus.web.callers import parts_of, subject_of
from bus.web.parts import Parts, StreamParts
from bus.web.problems import request_id

router = APIRouter(prefix="/v1/views", tags=["streams"])
MEDIA_TYPE: Final = "text/event-stream; charset=utf-8"
ABORT: Final = "bus.abort"
"""Where the server puts what closes the connection at once, whatever is still to be sent."""
_PURPOSE: Final = ("Purpose", "an id of the purpose register")
_LAST: Final = ("Last-Event-ID", "the `id` of the last event that came: the stream goes on after it")
log = logging.getLogger(__name__)


def _documented(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "header", "required": name == "Purpose", "description": text, "schema": {"type": "string"}}
        for name, text in headers
    ]
    return {"parameters": parameters, "security": [{"bearer": []}], **more}


@router.get(
    "/{view}/changes",
    summary="A view's rows and their changes, as they happen",
    response_class=Response,
    responses={
        200: {
            "description": "Events `upsert` ({key, row}), `delete` ({key}) and `notice` ({kind, ...}), each with the "
            "cursor after it as its `id`. Without Last-Event-ID, and where it is too old, every row comes first, "
            "between the notices `snapshot_begins` and `snapshot_ends`. Comments are signs of life.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
    openapi_extra=_documented(_PURPOSE, _LAST),
)
async def changes(view: str, request: Request) -> Response:
    """The same stream as the share topic, as the caller's grant shows it, until the grant ends."""
    parts = _streams(request)
    stream = await parts.door.open_stream(await _asked(view, request))
    return EventStream(stream)


@router.get(
    "/{view}/subscription",
    summary="What a Kafka client needs to read a view's changes itself",
    openapi_extra=_documented(_PURPOSE),
)
async def subscription(view: str, request: Request) -> Response:
    """Address, topic, group prefix, schema and terms; the password is the department's own and not told here."""
    parts = _streams(request)
    asked = await _asked(view, request)
    allow, floor = await parts.door.allowed(asked)
    document = await asyncio.to_thread(_described, parts, asked.subject, allow, floor)
    return Response(orjson.dumps(document), media_type="application/json", headers=_headers(allow))


def _described(parts: StreamParts, subject: Subject, allow: Allow, floor: int | None) -> dict[str, Any]:
    consumer, view = subject.department, allow.view
    topic, subject_name = share_topic(consumer, view), share_subject(consumer, view)
    return {
        "view": view,
        "purpose": allow.purpose,
        "topic": topic,
        "topic_id": parts.topic_id(topic) if floor is not None else None,
        "from_offset": floor,
        "state": "starting" if floor is None else "running",
        **parts.broker,
        "username": consumer,
        "group_prefix": f"{consumer}.",
        "subject": subject_name,
        "schema_id": parts.schema_id(subject_name),
        "columns": list(allow.columns),
        "masked": sorted(allow.masks),
        "policy_revision": allow.policy_revision,
    }


class EventStream(Response):
    """An open stream as a response; it is closed whatever happens."""

    media_type = MEDIA_TYPE

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.status_code, self.background = 200, None
        headers = _headers(stream.allow) | {
            "Data-Freshness": stream.standing.header,
            "Cache-Control": "no-store",
            "Vary": "Authorization, Purpose, Last-Event-ID",
            "X-Accel-Buffering": "no",
        }
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.raw_headers.append((b"content-type", MEDIA_TYPE.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the stream ends, the client goes, or it takes nothing any more."""
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            try:
                await asyncio.gather(sending, leaving, return_exceptions=True)
            finally:
                await self.stream.close()
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self.stream.client.chunks()) as chunks:
                async for chunk in chunks:
                    async with self.stream.client.taking():
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TooSlow:
            log.warning("A stream was dropped: its client takes nothing (request %s)", scope.get("bus.request_id"))
            abort: Callable[[], None] | None = scope.get(ABORT)
            if abort is not None:
                abort()
            return
        except BusError as error:
            # the client comes back with the last id it has, and is then told what is wrong
            log.warning("A stream broke off: %s (request %s)", type(error).__name__, scope.get("bus.request_id"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _asked(view: str, request: Request) -> Asked:
    stated, cursors = request.headers.getlist("purpose"), request.headers.getlist("last-event-id")
    return Asked(
        subject=await subject_of(request),
        view=view,
        purpose=stated[0] if len(stated) == 1 else None,
        cursor=",".join(cursors) if cursors else None,
        still=lambda: subject_of(request),
        request_id=request_id(request),
    )


def _streams(request: Request) -> StreamParts:
    parts: Parts = parts_of(request)
    if parts.streams is None:
        raise Unavailable("This process serves no streams.")
    return parts.streams


def _headers(allow: Allow) -> dict[str, str]:
    return {"Policy-Revision": allow.policy_revision, "Masked-Columns": ",".join(sorted(allow.masks))}
