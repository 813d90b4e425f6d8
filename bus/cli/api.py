"""The HTTP calls of the command line: an administrator's or a department's token, problem documents as errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from bus.errors import Unavailable
from bus.sharing.client import Answered, problem_of


class Api:
    """JSON in, JSON out. Raises `Answered` for a refusal, `Unavailable` where nobody answers."""

    def __init__(self, url: str, token: Callable[[], str], *, timeout_s: float = 60.0) -> None:
        self._token = token
        self._http = httpx2.Client(base_url=url, timeout=timeout_s)

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **params: Any) -> Any:
        stated = {name: value for name, value in params.items() if value is not None}
        return self._send("GET", path, headers=headers or {}, params=stated)

    def post(self, path: str, body: Any) -> Any:
        return self._send("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self._send("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        return self._send("DELETE", path)

    def _send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
        sent = {**(headers or {}), "Authorization": f"Bearer {self._token()}"}
        try:
            response = self._http.request(method, path, headers=sent, **kwargs)
        except httpx2.TransportError as error:
            raise Unavailable(f"The bus does not answer at {self._http.base_url}. `bus up` starts it.") from error
        if response.status_code >= 400:
            raise Answered(problem_of(response))
        return response.json() if response.content else None
