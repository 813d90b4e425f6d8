"""Search in declared fields: one meaning on both databases, Chinese included, and nothing masked."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_world import World

from bus.core.contracts import Kind
from bus.errors import BadFilter
from bus.sharing.searching.store import sought
from bus.sharing.searching.terms import Term, finds, parse_terms
from bus.views.values import sql_type

VIEW = "/v1/views/food_business"
LETTERS = st.sampled_from("aAbBzZ ßÀàİıｚＺ饭店飯%_\\'ς")
TABLE = sa.Table("sought", sa.MetaData(), sa.Column("at", sa.Integer), sa.Column("text", sql_type(Kind.TEXT)))


def _names(world: World, question: str) -> list[str]:
    answer = world.get(f"{VIEW}?{question}&select=legal_name&order=licence_number")
    assert answer.status_code == 200, answer.text
    return [row["legal_name"] for row in answer.json()]


def test_words_are_found(either: World) -> None:
    """Every term, in any order and case; Chinese by its characters; alternatives and what must not be there."""
    every = [row["legal_name"] for row in either.get(f"{VIEW}?select=legal_name&order=licence_number").json()]
    assert _names(either, "legal_name=plfts.CORNER%2010") == [n for n in every if "Corner" in n and "10" in n]
    assert _names(either, f"legal_name=plfts.{quote('饭店　老王')}") == [n for n in every if "老王饭店" in n]
    both = quote("饭店&!9|corner&'i 1'")
    assert _names(either, f"legal_name=fts.{both}") == [
        n for n in every if ("饭店" in n and "9" not in n) or ("corner" in n.lower() and "i 1" in n)
    ]
    assert _names(either, "legal_name=not.plfts.e") == [n for n in every if "e" not in n.lower()]
    inside = quote("(legal_name.plfts.饭店,licence_number.eq.4)")
    assert len(_names(either, f"or={inside}")) == sum("饭店" in n for n in every) + 1


@pytest.mark.parametrize(
    ("question", "asker", "status", "code", "said"),
    [
        ("legal_name=plfts.x", ("tax", "levy"), 403, "field_not_filterable", "masked"),
        ("address=plfts.x", ("food", "inspection_planning"), 422, "bad_filter", "legal_name, doing_business_as"),
        ("address=fts.x", ("tax", "levy"), 422, "bad_filter", "declared: doing_business_as"),
        ("latitude=plfts.x", ("tax", "levy"), 403, "field_not_granted", "latitude"),
        ("nosuch=plfts.x", ("tax", "levy"), 422, "unknown_field", "nosuch"),
        ("legal_name=plfts.%20", ("food", "inspection_planning"), 422, "bad_filter", "1 to 20 terms"),
        ("legal_name=fts.a%26", ("food", "inspection_planning"), 422, "bad_filter", "missing"),
        ("legal_name=fts.(a)", ("food", "inspection_planning"), 422, "bad_filter", "joined by"),
        ("legal_name=fts(english).a", ("food", "inspection_planning"), 422, "bad_filter", "not an operator"),
        ("legal_name=plfts.a%00", ("food", "inspection_planning"), 422, "bad_filter", "cannot hold"),
    ],
)
def test_what_is_refused(
    world: World, question: str, asker: tuple[str, str], status: int, code: str, said: str
) -> None:
    """Masked and ungranted fields, fields that are not declared (the declared ones that one may see are named)."""
    answer = world.get(f"{VIEW}?{question}", *asker)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert said in answer.json()["detail"]


def test_what_is_sought_is_not_recorded(world: World) -> None:
    """The audit log tells that a field was searched, not for what."""
    answer = world.get(f"{VIEW}?legal_name=plfts.SECRET")
    (entry,) = [body for body in world.entries() if body.get("request_id") == answer.headers["Request-Id"]]
    assert entry["question"]["filter"] == "legal_name=plfts"
    assert "SECRET" not in str(entry)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def texts(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    """A table of texts on each database."""
    world: World = request.getfixturevalue("world" if request.param == "sqlite" else "postgresql_world")
    with world.views.connect() as connection:
        TABLE.create(connection)
        yield connection
        connection.rollback()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.none() | st.text(LETTERS, max_size=8), max_size=6),
    st.lists(st.text(LETTERS, min_size=1, max_size=3).filter(str.strip), min_size=1, max_size=3),
    st.booleans(),
)
def test_databases_agree_with_the_rule(
    texts: sa.Connection, values: list[str | None], words: list[str], absent: bool
) -> None:
    """For any texts and terms, each database finds what the rule in plain Python finds."""
    first = tuple(Term(term.text, absent) for term in parse_terms("plfts", words[0], "text")[0])
    sought_for = (first, *(parse_terms("plfts", word, "text")[0] for word in words[1:]))
    texts.execute(sa.delete(TABLE))
    if values:
        texts.execute(sa.insert(TABLE), [{"at": at, "text": value} for at, value in enumerate(values)])
    found = texts.scalars(sa.select(TABLE.c.at).where(sought(TABLE.c.text, sought_for)).order_by(TABLE.c.at)).all()
    assert list(found) == [at for at, value in enumerate(values) if finds(sought_for, value)]


def test_terms_are_bounded() -> None:
    """Neither many nor long terms are taken."""
    for text in (" ".join("ab" for _ in range(21)), "x" * 101):
        with pytest.raises(BadFilter):
            parse_terms("plfts", text, "name")
