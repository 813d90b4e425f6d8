"""The client of OPA: constant paths, one time-out, no retries.

opa-python-client has no call for the Compile API's UCAST form (E6), reads an undefined rule as an empty
dict (E4) and joins names into paths (E5); nothing here puts a name into a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2
import orjson

from bus.access.answers import Filter, Verdict, parse_canary, parse_filter, parse_verdict
from bus.core.contracts import Kind
from bus.errors import PolicyError, PolicyUnavailable

BUNDLE: Final = "rules"
UCAST: Final = "application/vnd.opa.ucast.all+json"
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_CONNECTIONS: Final = 16
_VERDICT: Final = "/v1/data/bus/access/verdict?provenance=true"
_CANARY: Final = "/v1/data/bus/access/canary?provenance=true"
_INCLUDE: Final = "/v1/compile/bus/access/include"
_NARROWED: Final = "/v1/compile/bus/access/narrowing/include"
_STATUS: Final = "/v1/status"


class OpaClient:
    """Asks one OPA. ``timeout_s`` is for one call; the decision has its own budget over all calls.

    Raises `PolicyUnavailable` where no answer came, `PolicyError` for an answer that cannot be understood.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 0.3) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={**headers, "Content-Type": "application/json"},
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def verdict(self, facts: Mapping[str, Any]) -> Verdict:
        """Both booleans and the reason, with the revision that they were decided under."""
        return parse_verdict(await self._post(_VERDICT, {"input": facts}, "application/json"), BUNDLE)

    async def canary(self) -> tuple[bool, int | None]:
        """The rules' own built-in decision, and the revision."""
        return parse_canary(await self._post(_CANARY, {"input": {}}, "application/json"), BUNDLE)

    async def rows(self, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Filter:
        """Which rows are allowed. The unknowns are always ours: left out, a policy's own could be overridden (E3)."""
        return await self._filter(_INCLUDE, facts, kinds)

    async def narrowed(self, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Filter:
        """Which rows the view's own rule lets through; asked only where the view has one."""
        return await self._filter(_NARROWED, facts, kinds)

    async def _filter(self, path: str, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Filter:
        body = {"input": facts, "unknowns": ["input.row"]}
        return parse_filter(await self._post(path, body, UCAST), kinds)

    async def status(self) -> Any:
        """OPA's own report on its bundles; None where it may not be read."""
        try:
            answer = await self._http.get(_STATUS)
            return orjson.loads(answer.content) if answer.status_code == 200 else None
        except httpx2.HTTPError as error:
            raise PolicyUnavailable() from error
        except orjson.JSONDecodeError as error:
            raise PolicyError() from error

    async def _post(self, path: str, body: Mapping[str, Any], accept: str) -> Any:
        try:
            answer = await self._http.post(path, content=orjson.dumps(body), headers={"Accept": accept})
        except httpx2.HTTPError as error:
            raise PolicyUnavailable() from error
        except orjson.JSONEncodeError as error:
            raise PolicyError() from error
        if answer.status_code != 200 or len(answer.content) > MAX_ANSWER_BYTES:
            raise PolicyError()
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise PolicyError() from error
