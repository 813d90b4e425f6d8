"""Budgets of a day: counted once for all processes, and forgotten by no restart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from bus.infra.database import open_database
from bus.sharing.budget.store import BudgetStore

DAY = dt.date(2026, 5, 1)
ACCOUNT = {"consumer": "tax", "view": "v", "purpose": "levy", "channel": "aggregate"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def engine(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """An empty governance database on each of the two."""
    opened = open_database(request.getfixturevalue(f"{request.param}_url"), "governance")
    yield opened
    opened.dispose()


def test_a_budget_holds_for_all_at_once(engine: sa.Engine) -> None:
    """Of many questions at the same time exactly as many are let through as there are."""
    stores = [BudgetStore(engine), BudgetStore(engine)]
    with ThreadPoolExecutor(4) as pool:
        spent = list(pool.map(lambda n: stores[n % 2].spend(ACCOUNT, DAY, 7, None) is not None, range(12)))
    assert (sum(spent), stores[0].used(ACCOUNT, DAY)) == (7, 7)


def test_a_budget_is_of_one_account_and_day(engine: sa.Engine) -> None:
    """Another purpose and the next day have their own; what was asked two days ago is forgotten."""
    store = BudgetStore(engine)
    for account, day in ((ACCOUNT, DAY), ({**ACCOUNT, "purpose": "audit"}, DAY), (ACCOUNT, DAY + dt.timedelta(days=1))):
        assert store.spend(account, day, 1, frozenset({"a"})) == []
        assert store.spend(account, day, 1, frozenset({"a"})) is None
    assert store.used(ACCOUNT, DAY) == 1
    assert store.spend(ACCOUNT, DAY + dt.timedelta(days=9), 1, None) == []
    assert store.used(ACCOUNT, DAY) == 0


def test_earlier_filters_of_the_day_are_given_back(engine: sa.Engine) -> None:
    """The newest first, for a comparison with the next question."""
    store = BudgetStore(engine)
    for filters in ({"a"}, {"a", "b"}):
        store.spend(ACCOUNT, DAY, 9, frozenset(filters))
    assert store.spend(ACCOUNT, DAY, 9, frozenset()) == [frozenset({"a", "b"}), frozenset({"a"})]
