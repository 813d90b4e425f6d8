"""Known attacks at the doors to streams, each with the exact refusal: foreign purposes and headers, SQL in names."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from share_topic import ShareTopic
from streamed_world import PURPOSE, Streamed

ENDS = ("changes", "subscription")


def _raw(streamed: Streamed, path: str, *headers: tuple[str, bytes]) -> tuple[int, Any]:
    """Asks with headers as bytes, which may stand twice."""
    connection = http.client.HTTPConnection(streamed.world.url.removeprefix("http://"), timeout=30)
    connection.putrequest("GET", path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    with connection.getresponse() as answer:
        found = answer.status, json.loads(answer.read()).get("code")
    connection.close()
    return found


@pytest.mark.parametrize("end", ENDS)
def test_claims_open_no_stream(streamed: Streamed, make: Callable[..., ShareTopic], end: str) -> None:
    """Another spelling of the purpose, a second one, another's name in a header, two tokens, a view that is SQL (A02,
    A08, A09)."""
    consumer, path = make().allow.consumer, f"/v1/views/sample/{end}"
    token = ("Authorization", streamed.world.headers(consumer)["Authorization"].encode())
    other = ("Authorization", streamed.world.headers("weather")["Authorization"].encode())
    right = ("Purpose", PURPOSE.encode())
    for text in (PURPOSE.upper(), f"{PURPOSE}\u200b", f"{PURPOSE},{PURPOSE}", "", "*"):
        assert _raw(streamed, path, token, ("Purpose", text.encode())) == (403, "purpose_not_granted")
    for purposes in ([], [right, right]):
        assert _raw(streamed, path, token, *purposes) == (403, "purpose_not_granted")
    claim = ("X-Department", consumer.encode())
    assert _raw(streamed, path, other, ("Purpose", b"case_investigation"), claim)[0] == 403
    assert _raw(streamed, path, token, other, right) == (401, "invalid_token")
    assert _raw(streamed, path, right, claim) == (401, "invalid_token")
    assert _raw(streamed, path, token, right, ("X-Forwarded-Client-Cert", b"URI=dept://tax/1"))[0] == 400
    for view in ("sample' OR 1=1--", "sample\x00", "..", "SAMPLE"):
        assert _raw(streamed, f"/v1/views/{quote(view, safe='')}/{end}", token, right)[0] == 404
    assert streamed.door.open == {}
