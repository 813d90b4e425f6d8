"""`QueryClient`: what a department's developer uses to ask a view, in ten lines and without knowing HTTP.

The answer is typed JSON as the query door gives it; a refusal is raised as `Answered`, with the rule and
the remedy in its text. Any PostgREST client works as well; this one adds nothing to the dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from bus.errors import BusError, Unavailable

PAGE: Final = 1_000
FORMATS: Mapping[str, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


class Answered(BusError):
    """The bus refused or failed; ``document`` is its RFC 9457 document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.document = dict(problem)
        super().__init__(str(problem.get("detail", "the bus gave no reason")))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with what the bus said about them: masked columns, policy revision, freshness, total if asked for, and
    where the next page begins if there is one."""

    rows: list[dict[str, Any]]
    masked: tuple[str, ...]
    policy_revision: str
    freshness: str
    total: int | None
    request_id: str
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The answer to a declared question: yes (True), no (False) or that it is not known (None); ``as_of``: when that
    held, RFC 3339."""

    answer: bool | None
    as_of: str
    policy_revision: str
    freshness: str
    request_id: str


def problem_of(response: httpx2.Response) -> Mapping[str, Any]:
    """The problem document of an answer, or one made up from an answer that has none (a proxy's, say)."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, Mapping) and "detail" in document:
        return document
    return {"status": response.status_code, "code": "unexpected_answer", "detail": f"HTTP {response.status_code}"}


class QueryClient:
    """Asks the query door as one department. ``url``: the bus; ``token``: gives a valid bearer token."""

    def __init__(self, url: str, token: Callable[[], str], *, timeout_s: float = 30.0) -> None:
        self._token = token
        self._http = httpx2.Client(base_url=url, timeout=timeout_s)

    def __enter__(self) -> QueryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def query(
        self,
        view: str,
        *,
        purpose: str,
        select: Sequence[str] = (),
        where: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        order: str | None = None,
        limit: int | None = None,
        count: bool = False,
        as_of: str | None = None,
        valid_at: str | None = None,
    ) -> Rows:
        """Rows of ``view``. ``where``: PostgREST filters, as ``{"ward": "eq.20"}``. ``as_of``, ``valid_at``: of a
        history view the rows as they were known or held then, as RFC 3339 or a date.

        Raises `Answered` for a refusal and `Unavailable` where the bus does not answer.
        """
        headers = {"Prefer": "count=exact"} if count else {}
        response = self.raw(
            view,
            purpose=purpose,
            select=select,
            where=where,
            order=order,
            limit=limit,
            as_of=as_of,
            valid_at=valid_at,
            headers=headers,
        )
        return _rows(response, count=count)

    def pages(self, view: str, *, purpose: str, limit: int = PAGE, **question: Any) -> Iterator[Rows]:
        """All rows of ``view``, ``limit`` in a page; ``question`` as for `query`. The pages are of the moments at which
        they are asked for: a row that moves in the order meanwhile may come twice or not at all.

        Raises what `query` raises; `Answered` with ``bad_cursor`` where the policy changed in between.
        """
        for response in self.raw_pages(view, purpose=purpose, limit=limit, **question):
            yield _rows(response, count=False)

    def raw_pages(self, view: str, *, limit: int | None = None, **question: Any) -> Iterator[httpx2.Response]:
        """The same as they came; ``question`` as for `raw`."""
        cursor: str | None = "start"
        while cursor is not None:
            response = self.raw(view, limit=PAGE if limit is None else limit, cursor=cursor, **question)
            yield response
            cursor = response.headers.get("Next-Cursor")

    def export(self, view: str, file: Path, *, answer: str = "parquet", **question: Any) -> int:
        """Writes all rows of ``view`` to ``file`` as parquet, csv or ndjson; returns how many. ``question`` as for
        `query`. The file is there when it is whole, and otherwise as it was.

        Raises `Answered` for a refusal and `Unavailable` where the bus does not answer or breaks off.
        """
        path, params, headers = _request(view, answer=answer, **question)
        part = file.with_name(f"{file.name}.part")
        try:
            with self._stream(path, [*params, ("export", "true")], headers) as response, part.open("wb") as target:
                for chunk in response.iter_bytes():
                    target.write(chunk)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return int(response.headers["Export-Rows"])

    def ask(self, view: str, question: str, *, purpose: str, key: Mapping[str, Any]) -> Said:
        """The answer of ``view`` to one of its declared questions about one row. ``key``: each key column's value.

        Raises `Answered` for a refusal and `Unavailable` where the bus does not answer.
        """
        params = [(name, f"eq.{value}") for name, value in key.items()]
        response = self._get(f"/v1/views/{view}/questions/{question}", params, {"Purpose": purpose})
        document = response.json()
        return Said(
            answer=document["answer"],
            as_of=document["as_of"],
            policy_revision=response.headers.get("Policy-Revision", ""),
            freshness=response.headers.get("Data-Freshness", ""),
            request_id=response.headers.get("Request-Id", ""),
        )

    def raw(
        self,
        view: str,
        *,
        purpose: str,
        select: Sequence[str] = (),
        where: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        order: str | None = None,
        limit: int | None = None,
        as_of: str | None = None,
        valid_at: str | None = None,
        cursor: str | None = None,
        answer: str = "json",
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """The answer as it came, in one of `FORMATS`."""
        path, params, sent = _request(
            view,
            purpose=purpose,
            select=select,
            where=where,
            order=order,
            limit=limit,
            as_of=as_of,
            valid_at=valid_at,
            cursor=cursor,
            answer=answer,
        )
        return self._get(path, params, {**sent, **(headers or {})})

    @contextmanager
    def _stream(
        self, path: str, params: Sequence[tuple[str, Any]], headers: Mapping[str, str]
    ) -> Iterator[httpx2.Response]:
        sent = {"Authorization": f"Bearer {self._token()}", **headers}
        try:
            with self._http.stream("GET", path, params=list(params), headers=sent) as response:
                if response.status_code >= 400:
                    response.read()
                    raise Answered(problem_of(response))
                yield response
        except httpx2.TransportError as error:
            raise Unavailable(f"The bus at {self._http.base_url} does not answer, or broke off.") from error

    def _get(self, path: str, params: Sequence[tuple[str, Any]], headers: Mapping[str, str]) -> httpx2.Response:
        sent = {"Authorization": f"Bearer {self._token()}", **headers}
        try:
            response = self._http.get(path, params=list(params), headers=sent)
        except httpx2.TransportError as error:
            raise Unavailable(f"The bus does not answer at {self._http.base_url}. `bus up` starts it.") from error
        if response.status_code >= 400:
            raise Answered(problem_of(response))
        return response


def _request(
    view: str,
    *,
    purpose: str,
    select: Sequence[str] = (),
    where: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    answer: str = "json",
    **single: Any,
) -> tuple[str, list[tuple[str, Any]], dict[str, str]]:
    """Path, parameters and headers of a question. ``single``: order, limit, as_of, valid_at, cursor; None: not said."""
    params: list[tuple[str, Any]] = list(where.items() if isinstance(where, Mapping) else where)
    params += [("select", ",".join(select))] if select else []
    params += [(name, str(value)) for name, value in single.items() if value is not None and value != ""]
    return f"/v1/views/{view}", params, {"Purpose": purpose, "Accept": FORMATS[answer]}


def _rows(response: httpx2.Response, *, count: bool) -> Rows:
    return Rows(
        rows=response.json(),
        masked=tuple(name for name in response.headers.get("Masked-Columns", "").split(",") if name),
        policy_revision=response.headers.get("Policy-Revision", ""),
        freshness=response.headers.get("Data-Freshness", ""),
        total=_total(response.headers.get("Content-Range", "")) if count else None,
        request_id=response.headers.get("Request-Id", ""),
        next_cursor=response.headers.get("Next-Cursor"),
    )


def _total(content_range: str) -> int | None:
    _, _, total = content_range.partition("/")
    return int(total) if total.isdigit() else None
