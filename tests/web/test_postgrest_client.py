"""The unmodified `postgrest` client from PyPI, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgrest import APIError, CountMethod, SyncPostgrestClient
from served_world import World, businesses


@pytest.fixture
def client(either: World) -> Iterator[SyncPostgrestClient]:
    """A client of the food department."""
    headers = either.headers("food", "inspection_planning")
    with SyncPostgrestClient(f"{either.url}/v1/views", headers=headers) as connected:
        yield connected


@pytest.fixture
def lab(either: World) -> Iterator[SyncPostgrestClient]:
    """A client of the laboratory, which sees the view with every kind of column."""
    with SyncPostgrestClient(f"{either.url}/v1/views", headers=either.headers("lab", "levy")) as connected:
        yield connected


def test_comparisons(client: SyncPostgrestClient) -> None:
    """eq, neq, gt, gte, lt, lte and in choose what plain Python chooses; rows without a value never match."""
    rows = businesses()

    def numbers(query: object) -> list[int]:
        return [row["licence_number"] for row in query.order("licence_number").execute().data]  # type: ignore[attr-defined]

    def expected(test: object) -> list[int]:
        return [row["licence_number"] for row in rows if row["ward"] is not None and test(row["ward"])]  # type: ignore[operator]

    table = client.from_("food_business")
    assert numbers(table.select("licence_number").eq("ward", 20)) == expected(lambda ward: ward == 20)
    assert numbers(table.select("licence_number").neq("ward", 20)) == expected(lambda ward: ward != 20)
    assert numbers(table.select("licence_number").gt("ward", 45)) == expected(lambda ward: ward > 45)
    assert numbers(table.select("licence_number").gte("ward", 45)) == expected(lambda ward: ward >= 45)
    assert numbers(table.select("licence_number").lt("ward", 4)) == expected(lambda ward: ward < 4)
    assert numbers(table.select("licence_number").lte("ward", 4)) == expected(lambda ward: ward <= 4)
    assert numbers(table.select("licence_number").in_("ward", [3, 27])) == expected(lambda ward: ward in (3, 27))
    assert numbers(table.select("licence_number").not_.in_("ward", [3, 27])) == expected(
        lambda ward: ward not in (3, 27)
    )
    assert numbers(table.select("licence_number").or_("ward.eq.3,and(ward.gt.40,ward.lt.42)")) == expected(
        lambda ward: ward in (3, 41)
    )
    assert numbers(table.select("licence_number").not_.or_("ward.lt.30,ward.gt.31")) == expected(
        lambda ward: ward in (30, 31)
    )


def test_missing_values(lab: SyncPostgrestClient) -> None:
    """is null, is true, is false and their negations."""

    def ids(query: object) -> list[int]:
        return [row["sample_id"] for row in query.order("sample_id").execute().data]  # type: ignore[attr-defined]

    table = lab.from_("sample")
    assert ids(table.select("sample_id").is_("label", None)) == [4]
    assert ids(table.select("sample_id").not_.is_("label", None)) == [1, 2, 3, 5, 6, 7, 8]
    assert ids(table.select("sample_id").is_("passed", True)) == [1, 5]
    assert ids(table.select("sample_id").is_("passed", False)) == [2]


def test_patterns(lab: SyncPostgrestClient) -> None:
    """like keeps case, ilike does not; wildcards can be escaped; eq takes a wildcard for itself (A04)."""

    def ids(query: object) -> list[int]:
        return [row["sample_id"] for row in query.order("sample_id").execute().data]  # type: ignore[attr-defined]

    table = lab.from_("sample")
    assert ids(table.select("sample_id").like("label", "50*")) == [6, 7]
    assert ids(table.select("sample_id").like("label", "50\\%%")) == [6]
    assert ids(table.select("sample_id").like("label", "50_\\_off")) == [6]
    assert ids(table.select("sample_id").like("label", "%OFF")) == []
    assert ids(table.select("sample_id").ilike("label", "%OFF")) == [6, 7]
    assert ids(table.select("sample_id").eq("label", "50%")) == []
    assert ids(table.select("sample_id").eq("label", "' OR 1=1--")) == [8]
    assert ids(table.select("sample_id").in_("label", ['a,"b"', "' OR 1=1--"])) == [5, 8]


def test_typed_values(lab: SyncPostgrestClient) -> None:
    """Every kind comes back as it was stored, and can be compared with."""
    (row,) = lab.from_("sample").select("*").eq("sample_id", 1).execute().data
    assert row == {
        "sample_id": 1,
        "label": "普通样品",
        "score": 1.5,
        "passed": True,
        "taken_on": "2026-01-31",
        "seen_at": "2026-01-31T08:00:00.000250Z",
        "fee": 12345678901234.05,
        "raw": "\\x00ff",
        "parts": ["a", "b"],
    }
    table = lab.from_("sample")
    for field, value in (("fee", "12345678901234.05"), ("seen_at", row["seen_at"]), ("taken_on", "2026-01-31")):
        assert [found["sample_id"] for found in table.select("sample_id").eq(field, value).execute().data] == [1]
    assert [found["sample_id"] for found in table.select("sample_id").lt("fee", 0).execute().data] == [2]


def test_order_pages_and_counts(client: SyncPostgrestClient) -> None:
    """order, limit, range and count page through the rows without gap or overlap."""
    table = client.from_("food_business")
    descending = table.select("licence_number", "ward").order("ward", desc=True, nullsfirst=False).limit(3).execute()
    assert [row["ward"] for row in descending.data] == [50, 50, 50]
    nulls = table.select("ward").order("ward", desc=True).limit(1).execute()
    assert nulls.data == [{"ward": None}]
    seen: list[int] = []
    for start in range(0, 400, 150):
        page = table.select("licence_number", count=CountMethod.exact).order("ward").range(start, start + 149).execute()
        assert page.count == 400
        seen += [row["licence_number"] for row in page.data]
    assert sorted(seen) == list(range(1, 401))
    in_ward = sum(row["ward"] == 20 for row in businesses())
    assert table.select("licence_number", count=CountMethod.exact, head=True).eq("ward", 20).execute().count == in_ward


def test_single_and_csv(client: SyncPostgrestClient) -> None:
    """single, maybe_single and csv; single is refused for none and for several rows."""
    table = client.from_("food_business")
    assert table.select("licence_number").eq("licence_number", 7).single().execute().data == {"licence_number": 7}
    assert table.select("licence_number").eq("licence_number", 10**9).maybe_single().execute() is None
    for query in (table.select("*").eq("licence_number", 10**9), table.select("*").limit(2)):
        with pytest.raises(APIError) as caught:
            query.single().execute()
        assert caught.value.code == "not_acceptable"
    text = table.select("licence_number", "ward").eq("licence_number", 7).csv().execute().data
    assert text == "licence_number,ward\r\n7,8\r\n"


def test_an_error_reaches_the_client(client: SyncPostgrestClient) -> None:
    """The client raises with our code and our message."""
    with pytest.raises(APIError) as caught:
        client.from_("food_business").select("account_number").execute()
    assert caught.value.code == "field_not_granted"
    assert "licence@market.example" in str(caught.value.message)
