"""The portal in a real browser: both languages, narrow and wide, with keyboard, without script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, Request
from served_world import XSS, World

from bus.governance.promises.store import Promise
from bus.views.store import DISCREPANCY
from tests.conftest import eventually

pytestmark = pytest.mark.browser
ASKED = "/ask?view=food_business&left=tax&left_purpose=levy&right={right}&right_purpose={purpose}&rows=5&lang={lang}"


class Watched:
    """A page with what its browser complained about."""

    def __init__(self, page: Page) -> None:
        self.page, self.complaints = page, list[str]()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("requestfailed", self._failed)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # that is the browser's own: the page was left before the icon came
            self.complaints.append(f"failed {request.url}: {request.failure}")


@pytest.fixture(params=[(1400, "light"), (390, "dark")], ids=["wide", "narrow"])
def watched(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Watched]:
    """A page without JavaScript, wide and light or narrow and dark, that ends without a complaint."""
    width, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=False
    )
    page = Watched(context.new_page())
    yield page
    assert page.complaints == []
    context.close()


@pytest.fixture
def disagreeing(portal: World) -> Iterator[None]:
    """Two open disagreements about addresses and one that was settled, one of them hostile."""
    pair = {"view": "food_business", "field": "address", "source": "licence", "other": "inspection"}
    place = {"topic": "dept.food.inspection", "partition": 0, "opened_ms": 1_700_000_000_000}
    said = (("1", XSS, None), ("2", "20 W Madison St", None), ("3", "30 W Madison St", 1_700_000_001_000))
    with portal.views.begin() as connection:
        for number, (key, reported, closed_ms) in enumerate(said):
            entry = {**pair, **place, "key": key, "shown": f"{key} W Madison St", "reported": reported}
            connection.execute(sa.insert(DISCREPANCY).values(**entry, offset=number, closed_ms=closed_ms))
    eventually(lambda: "Show cases" in httpx2.get(f"{portal.url}/disagreements?lang=en").text)
    yield
    with portal.views.begin() as connection:
        connection.execute(sa.delete(DISCREPANCY))


def _fits(page: Page) -> bool:
    widths = page.locator("body").bounding_box()
    assert widths is not None
    assert page.viewport_size is not None
    return widths["width"] <= page.viewport_size["width"]


@pytest.mark.parametrize(
    ("lang", "heading", "state", "quarantine"),
    [
        ("zh", "共享视图", "在线", "有 1 个事件无法应用"),
        ("en", "Shared views", "live", "1 event could not be applied"),
    ],
)
def test_first_page(
    portal: World, watched: Watched, tmp_path: Path, lang: str, heading: str, state: str, quarantine: str
) -> None:
    """Departments, entities, views with rows, lag, freshness and state, and the quarantine, in both languages."""
    page = watched.page
    page.goto(f"{portal.url}/?lang={lang}")
    assert page.locator("html").get_attribute("lang") == {"zh": "zh-CN", "en": "en-GB"}[lang]
    views = page.locator("#views")
    assert views.get_by_role("heading", level=2).inner_text() == heading
    row = views.get_by_role("row").filter(has_text="food_business")
    assert "400" in row.inner_text()
    assert state in row.inner_text()
    assert {"zh": "营业执照期次", "en": "Business licence term"}[lang] in row.inner_text()
    assert page.locator("#departments li").count() == 11
    assert page.locator("#entities tbody tr").count() == 7
    assert quarantine in page.locator("#quarantine").inner_text()
    assert XSS in page.locator("#departments").inner_text() or lang == "zh"
    assert page.locator("img[src=x]").count() == 0
    assert _fits(page)
    picture = tmp_path / f"first-{lang}.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000


def test_ask_as_two_departments(portal: World, watched: Watched) -> None:
    """The form leads to two answers side by side: masked, missing and hidden parts can be told apart."""
    page = watched.page
    page.goto(f"{portal.url}/?lang=en")
    page.get_by_label("View", exact=True).select_option("food_business")
    page.get_by_label("Question").fill("order=licence_number")
    page.get_by_role("button", name="Ask as both").click()
    tax, food = page.get_by_role("article").all()
    assert "Tax Office" in tax.inner_text()
    assert "Levying taxes and fees" in tax.inner_text()
    assert tax.locator("td.masked").first.inner_text() == "老王饭***"
    assert tax.locator(".chip-absent").all_inner_texts() == ["Latitude", "Longitude"]
    assert food.locator(".chip-absent").all_inner_texts() == ["Account number"]
    assert food.locator("td.masked").count() == 0
    assert "of 400" in food.inner_text()
    assert "of 400" not in tax.inner_text()
    assert XSS in food.inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.get_by_role("textbox", name="Question").input_value() == "order=licence_number"
    assert _fits(page)


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "zh",
            ["已拒绝", "气象局没有视图 food_business 的授权", "licence@market.example", "市场监督管理局", "处理办法"],
        ),
        (
            "en",
            ["Refused", "has no grant on food_business", "licence@market.example", "Market Supervision", "What to do"],
        ),
    ],
)
def test_a_refusal_says_rule_owner_and_remedy(portal: World, watched: Watched, lang: str, words: list[str]) -> None:
    """A refused department reads why, by which rule, whom to ask and what to do, in its language."""
    watched.page.goto(portal.url + ASKED.format(right="weather", purpose="levy", lang=lang))
    refused = watched.page.locator(".side-refused")
    assert refused.count() == 1
    for word in (*words, "not_granted", "licence@market.example"):
        assert word in refused.inner_text()


def test_changing_the_language_keeps_the_question(portal: World, watched: Watched) -> None:
    """The language links stay on the page and its question."""
    watched.page.goto(portal.url + ASKED.format(right="food", purpose="inspection_planning", lang="en"))
    watched.page.get_by_role("link", name="中文").click()
    assert watched.page.get_by_role("heading", level=1).inner_text() == "同一问题，两个部门"
    assert watched.page.locator("article").count() == 2


def test_by_keyboard(portal: World, watched: Watched) -> None:
    """The first tab stop skips to the content; every field has a label, every table a caption."""
    page = watched.page
    page.goto(f"{portal.url}/?lang=en")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to content"
    fields = page.locator("select, input:not([type=hidden])").all()
    assert len(fields) == 7
    for shown in fields:
        assert page.locator(f"label[for='{shown.get_attribute('id')}']").count() == 1
    assert page.locator("table").count() == page.locator("table > caption").count() == 3
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1  # type: ignore[arg-type]


def test_asking_is_recorded_and_only_from_here(portal: World) -> None:
    """Each side writes its audit entry; another site's page cannot start a question (A23)."""
    before = len(portal.entries())
    address = portal.url + ASKED.format(right="weather", purpose="levy", lang="en")
    assert httpx2.get(address).status_code == 200
    events = [entry["kind"] for entry in portal.entries()[before:]]
    assert events == ["disclosure", "refusal"]
    foreign = httpx2.get(address, headers={"Sec-Fetch-Site": "cross-site"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "csrf")
    assert len(portal.entries()) == before + 2


def test_every_text_is_translated(portal: World) -> None:
    """The Chinese pages have no English sentence of ours left."""
    for path in ("/?lang=zh", ASKED.format(right="food", purpose="inspection_planning", lang="zh"), "/docs?lang=zh"):
        text = httpx2.get(portal.url + path).text
        for english in (
            "Shared views",
            "Departments",
            "Question",
            "Allowed",
            "not granted",
            "masked",
            "Kept for",
            "year",
        ):
            assert f">{english}<" not in text


def test_a_browser_chooses_its_language(portal: World) -> None:
    """Accept-Language decides unless the address does; English where neither is offered."""
    for accept, lang in (
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("fr, en;q=0.5", "en-GB"),
        ("de", "en-GB"),
        ("", "en-GB"),
    ):
        assert f'<html lang="{lang}">' in httpx2.get(portal.url, headers={"Accept-Language": accept}).text
    assert '<html lang="zh-CN">' in httpx2.get(f"{portal.url}/?lang=zh", headers={"Accept-Language": "en"}).text


def test_where_departments_disagree(portal: World, watched: Watched, disagreeing: None, tmp_path: Path) -> None:
    """Counts by field and pair of departments in both languages; the cases as staff see them, recorded; nothing that a
    department wrote is taken for markup."""
    page = watched.page
    page.goto(f"{portal.url}/disagreements?lang=zh")
    assert page.get_by_role("heading", level=1).inner_text() == "部门间的数据不一致"
    assert page.get_by_role("row", name="经营地址").locator("td.num").all_inner_texts() == ["2", "1"]
    before = len(portal.entries())
    page.goto(f"{portal.url}/disagreements?lang=en")
    page.get_by_role("link", name="Show cases").click()
    rows = page.locator("#examples tbody tr")
    assert rows.all_inner_texts()[0].startswith(f"1\t1 W Madison St\t{XSS}")
    assert rows.count() == 2
    (entry,) = portal.entries()[before:]
    assert (entry["who"], entry["channel"], entry["rows"]) == ("governance", "discrepancies", 2)
    assert _fits(page)
    page.screenshot(path=str(tmp_path / "disagreements.png"), full_page=True)
    address = f"{portal.url}/disagreements?view=food_business"
    assert httpx2.get(address, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.mark.parametrize(
    ("lang", "heading", "promise", "late"),
    [("zh", "数据新鲜度", "至少每 1 天更新一次", "逾期"), ("en", "How fresh it is", "at least every 1 day", "broken")],
)
def test_how_fresh_a_view_is(
    portal: World, watched: Watched, disagreeing: None, monkeypatch: pytest.MonkeyPatch, lang: str, heading: str,
    promise: str, late: str,
) -> None:  # fmt: skip
    """From the first page to a view: each source with newest event, waiting events and promise, a broken one marked."""
    found = Promise("food.inspection", "food", "P1D", 0, 1_700_000_000_000, broken=True, changed_ms=1_700_000_000_000)
    monkeypatch.setattr(type(portal.parts), "promises", property(lambda _: lambda: {found.entity: found}))
    eventually(lambda: "broken" in httpx2.get(f"{portal.url}/view/food_business?lang=en").text)
    page = watched.page
    page.goto(f"{portal.url}/?lang={lang}")
    page.locator("#views").get_by_role("link").nth(1).click()
    assert page.url.startswith(f"{portal.url}/view/food_business")
    assert heading in page.locator("h2").all_inner_texts()
    inspection = page.get_by_role("row", name="food.inspection")
    assert promise in inspection.inner_text().replace("\u00a0", " ")
    assert late in inspection.inner_text()
    assert "2023" in inspection.inner_text()
    assert inspection.locator("td.num").inner_text() == "2"
    assert late not in page.get_by_role("row", name="market.business_licence").inner_text()
    assert _fits(page)
    assert httpx2.get(f"{portal.url}/view/hidden_sample").status_code == 404


def test_grants_in_words(portal: World, watched: Watched, tmp_path: Path) -> None:
    """Every grant with its rows and masks in the reader's language, and a way on to how one connects."""
    page = watched.page
    page.goto(f"{portal.url}/grants?lang=zh")
    assert page.get_by_role("heading", level=1).inner_text() == "授权"
    levy = page.locator("article.grant", has=page.locator("code", has_text="levy")).first
    assert "不小于 1" in levy.inner_text()
    assert "仅前 3 个字符，其余显示为 ***" in levy.inner_text()
    assert _fits(page)
    page.screenshot(path=str(tmp_path / "grants.png"), full_page=True)
    page.goto(f"{portal.url}/grants?lang=en")
    levy = page.locator("article.grant", has=page.locator("code", has_text="levy")).first
    assert "is at least 1 and" in levy.inner_text()
    levy.get_by_role("link", name="How to connect").click()
    assert "curl -fsS" in page.locator("pre.code").first.inner_text()
    assert _fits(page)
    page.screenshot(path=str(tmp_path / "connect.png"), full_page=True)
