"""The portal: server-rendered pages in Chinese and English that work without any script."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Query, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from bus.errors import Csrf, NotFound
from bus.web import asking, grant_words, languages, wording
from bus.web.callers import parts_of
from bus.web.overview import Kept, Overview
from bus.web.parts import Parts
from bus.web.problems import request_id
from bus.web.session import person_of

router = APIRouter(include_in_schema=False)
_HERE: Final = Path(__file__).parent
OWN: Final = ("same-origin", "none", "")
Id = Annotated[str, Field(max_length=63)]


@cache
def _pages(language: str) -> Environment:
    """The templates with the texts of one language; everything put into them is escaped (A24)."""
    pages = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = languages.translations(language)
    pages.install_gettext_translations(texts, newstyle=True)  # type: ignore[attr-defined]
    pages.globals["language"] = language
    pages.filters["titled"] = lambda titles, otherwise: languages.titled(titles, language, otherwise)
    pages.filters["number"] = lambda value, digits=0: languages.number(value, language, digits)
    pages.filters["moment"] = lambda milliseconds: languages.moment(milliseconds, language)
    pages.filters["ago"] = lambda seconds: languages.ago(seconds, language)
    pages.filters["worded"] = lambda error, titles: wording.worded(error, texts.gettext, titles)
    pages.filters["remedied"] = lambda error, titles: wording.remedy(error, texts.gettext, titles)
    pages.filters["value"] = wording.value
    pages.filters["rows_in_words"] = lambda rows, titles: grant_words.rows_in_words(rows, titles, texts.gettext)
    pages.filters["mask_in_words"] = lambda mask: grant_words.mask_in_words(mask, texts.gettext)
    pages.filters["period"] = lambda text: wording.period(text, texts.ngettext)
    pages.globals["inf"] = math.inf
    return pages


def page(name: str, request: Request, content: Mapping[str, Any], *, status: int = 200) -> Response:
    """A page in the language that the request asks for."""
    language = languages.choose(request.query_params.get("lang"), request.headers.get("accept-language"))
    parts = parts_of(request)
    addresses = [(code, request.url.include_query_params(lang=code)) for code in languages.LANGUAGES]
    other = [(code, f"{url.path}?{url.query}") for code, url in addresses]
    known = {
        "demo": parts.demo,
        "version": parts.version,
        "languages": other,
        "path": request.url.path,
        "person": person_of(request),
        "may_sign_in": parts.sessions is not None,
    }
    html = _pages(language).get_template(name).render(**{**known, **content})
    headers = {"Vary": "Accept-Language", "Content-Language": language}
    return HTMLResponse(html, status_code=status, headers=headers)


@router.get("/")
async def first(request: Request) -> Response:
    """The first page."""
    overview = await current(request)
    return page("first.html", request, {"overview": overview, "form": _form(overview), "choices": asking.ROWS})


class Asked(BaseModel):
    """The form's members; what is none of them is refused."""

    model_config = ConfigDict(extra="forbid")
    view: Id = ""
    left: Id = ""
    left_purpose: Id = ""
    right: Id = ""
    right_purpose: Id = ""
    q: str = Field("", max_length=asking.MAX_QUESTION)
    rows: int = asking.ROWS[0]
    lang: Id = ""


@router.get("/ask")
async def ask(request: Request, asked: Annotated[Asked, Query()]) -> Response:
    """The same question as two departments. Only a demonstration offers it."""
    parts = parts_of(request)
    if not parts.demo or parts.issuer is None:
        raise NotFound(what="such address")
    if request.headers.get("sec-fetch-site", "") not in OWN:
        raise Csrf()  # it writes audit entries in a department's name: no other site may start that
    overview = await current(request)
    rows = asked.rows if asked.rows in asking.ROWS else asking.ROWS[0]
    same: dict[str, Any] = {"view": asked.view, "text": asked.q, "rows": rows, "request_id": request_id(request)}
    sides = [
        await asking.ask(parts, department=asked.left, purpose=asked.left_purpose, **same),
        await asking.ask(parts, department=asked.right, purpose=asked.right_purpose, **same),
    ]
    line = overview.view(asked.view)
    content = {
        "overview": overview,
        "form": asked.model_dump() | {"rows": rows},
        "choices": asking.ROWS,
        "sides": asking.aligned(sides, line.shape.view.key if line else ()),
    }
    return page("ask.html", request, content)


@router.get("/favicon.ico")
async def favicon() -> Response:
    """The icon that browsers ask for by themselves."""
    return RedirectResponse("/static/icon.svg", status_code=308)


async def current(request: Request) -> Overview:
    """The overview as it was at most two seconds ago."""
    kept: Kept = request.app.state.overview
    return await asyncio.to_thread(kept.now)


def _form(overview: Overview) -> dict[str, Any]:
    """The question the form starts with: a view that most grants are on, as two departments that differ."""
    known = {department.id for department in overview.departments}
    purposes = [purpose.id for purpose in overview.purposes]
    views = [line.shape.view.name for line in overview.views]
    departments = [item.id for item in overview.departments]

    def first_of(wanted: str, among: list[str], place: int = 0) -> str:
        return wanted if wanted in among else (among[min(place, len(among) - 1)] if among else "")

    return {
        "view": first_of("food_business", views),
        "left": first_of("tax", departments),
        "left_purpose": first_of("levy", purposes),
        "right": "food" if "food" in known else first_of("food", departments, 1),
        "right_purpose": first_of("inspection_planning", purposes),
        "q": "",
        "rows": asking.ROWS[0],
    }


class _Static(StaticFiles):
    """Files that change only with the program's version, which their addresses carry."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


def mount_static(app: FastAPI) -> None:
    """Serves style sheet and icon, and keeps the overview for this app."""
    parts: Parts = app.state.parts
    app.state.overview = Kept(parts, time.monotonic)
    app.mount("/static", _Static(directory=_HERE / "static"), name="static")
