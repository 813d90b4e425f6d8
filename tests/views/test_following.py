"""A running worker when something changes or goes wrong beside it: other views go on, figures follow, nothing hangs."""

from __future__ import annotations

import json
from typing import Any

import kafka as kafka_python
import sqlalchemy as sa
from views_bus import Bus, eventually

from bus.views.oracle.verify import Event, dump_rows, fold, fold_aggregate


def document(bus: Bus, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(bus.declarations.get(name).document))
    return found


def expected_figures(bus: Bus, name: str) -> bytes:
    shape = bus.shapes[name]
    contracts = bus.registry.contracts()
    rows = {base: fold(bus.shapes[base].view, contracts, bus.topics.events) for base in shape.view.reads}
    return dump_rows(shape.columns, fold_aggregate(shape, bus.shapes, rows))


def inspection(number: int, revision: int | None, business: int | None = 1) -> dict[str, Any]:
    return {
        "inspection": number, "business": business, "revision": revision, "at": None, "result": "Pass", "passed": None,
    }  # fmt: skip


def licence(term: str, name: str, area: float) -> dict[str, Any]:
    return {"term_id": term, "licence": 1, "starts": None, "name": name, "area": area, "fee": None}


def test_figures_follow_a_changed_view_and_trouble_stays_with_its_view(bus: Bus) -> None:
    """An aggregate is computed from the new generation of a view it reads, though its own declaration is the same; one
    whose sum is beyond 64 bits says so, holds up no other view, and heals when the data does."""
    for number in (1, 2):
        bus.publish(Event(bus.inspection, number % 2, 0, inspection(number, 2**62)))
    bus.publish(Event(bus.licence, 0, 0, licence("a", "alpha", 2.0)))
    bus.publish(Event(bus.licence, 1, 0, licence("b", "beta", 1.0)))
    over = {"view": "an_overflow", "owner": "food", "kind": "aggregate", "over": {"i": {"view": "inspections"}}}
    over |= {"group_by": ["business"], "measures": {"all": {"sum": "i.revision"}}}
    bus.declarations.apply(over, bus.registry.contracts())
    bus.worker()
    bus.wait("food_business", "inspections", "by_result")
    assert bus.dump("by_result") == expected_figures(bus, "by_result")
    eventually(lambda: bus.store.states()["an_overflow"].state == "stopped", what="the stop")
    assert "OverflowError" in bus.store.states()["an_overflow"].reason

    before = bus.dump("by_result")
    changed = document(bus, "food_business")
    changed["sources"]["licence"]["rank"] = ["area"]  # beta had the higher name, alpha has the larger area
    bus.declarations.apply(changed, bus.registry.contracts())
    bus.publish(Event(bus.inspection, 0, 0, None, (2,), 2**62))
    bus.wait()
    bus.check()
    assert bus.dump("by_result") == expected_figures(bus, "by_result") != before
    assert bus.dump("an_overflow") == expected_figures(bus, "an_overflow")


def test_transactions_are_read_when_they_are_committed(bus: Bus) -> None:
    """Events of an open transaction are not waited for, those of an aborted one never seen; markers are passed, and
    the view is complete behind them."""
    bus.worker()
    bus.publish(Event(bus.licence, 0, 0, licence("a", "alpha", 1.0)))
    bus.wait()
    message = bus.topics.log(bus.licence, 0)[0]
    topic = f"dept.{bus.licence}"

    def send(transactional: Any) -> None:
        future = transactional.send(
            topic, key=message.key, value=message.value, headers=list(message.headers), partition=0
        )
        transactional.flush()
        future.get(timeout=10)

    transactional = kafka_python.KafkaProducer(**bus.kafka.kafka_python(), transactional_id=bus.licence)
    transactional.init_transactions()
    transactional.begin_transaction()
    send(transactional)
    assert bus.admin.end_offsets([topic])[topic, 0] == 1
    bus.wait(timeout_s=10)
    transactional.abort_transaction()
    eventually(lambda: bus.admin.end_offsets([topic])[topic, 0] == 3, what="the end of the transaction")
    bus.wait(timeout_s=10)
    transactional.begin_transaction()
    send(transactional)
    transactional.commit_transaction()
    transactional.close()
    eventually(lambda: bus.admin.end_offsets([topic])[topic, 0] == 5, what="the end of the transaction")
    bus.wait(timeout_s=10)
    state = bus.store.states()["food_business"]
    assert (state.applied, state.rows, state.lag) == (2, 1, 0)
    assert bus.store.freshness("food_business")["licence"] < 60
    bus.check()


class Latin(str):
    """A header's name that is sent in another encoding."""

    def encode(self, *_: Any) -> bytes:
        return b"gr\xf6sse"


def test_an_unreadable_topic_stops_its_views_only(bus: Bus) -> None:
    """A header whose name is not UTF-8 cannot be read by any client of ours: the views of that topic stop and say
    where, nothing is skipped, and the views of other topics go on."""
    bus.publish(Event(bus.licence, 0, 0, licence("a", "alpha", 1.0)))
    bus.publish(Event(bus.inspection, 0, 0, inspection(2, 1)))
    bus.worker()
    bus.wait("food_business", "inspections")
    message = bus.topics.log(bus.licence, 0)[0]
    message.headers = [*message.headers, (Latin("x"), b"1")]
    bus.send_raw(bus.licence, 0, message)
    bus.flush()
    eventually(lambda: bus.store.states()["food_business"].state == "stopped", what="the stop")
    assert "/0 has an event, at offset 1" in bus.store.states()["food_business"].reason
    assert bus.store.states()["inspections"].state == "live"
    bus.publish(Event(bus.inspection, 0, 0, inspection(4, 1)))
    bus.wait("inspections")
    assert bus.dump("inspections") == bus.expected("inspections")
    assert {p.next_offset for p in bus.store.positions("food_business") if p.topic == f"dept.{bus.licence}"} == {0, 1}


def test_a_change_goes_through_a_look_up_into_figures(bus: Bus) -> None:
    """An aggregate over a view that looks up another: both are declared while the worker runs, and each change of the
    looked-up view is in all three when the view itself has it."""
    bus.worker()
    for number in range(1, 4):
        bus.publish(Event(bus.inspection, number % 2, 0, inspection(number, 1)))
    bus.wait()
    named = document(bus, "inspections") | {"view": "named"}
    named |= {"lookups": {"biz": {"view": "food_business", "by": "business"}}}
    named["fields"] = {**named["fields"], "name": {"from": "biz.name"}}
    figures = {"view": "a_figure", "owner": "food", "kind": "aggregate", "over": {"n": {"view": "named"}}}
    figures |= {"group_by": ["name"], "measures": {"all": {"count": "n"}}}
    for view in (named, figures):
        bus.declarations.apply(view, bus.registry.contracts())
    for name in ("alpha", "beta"):
        bus.publish(Event(bus.licence, 0, 0, licence("a", name, 1.0)))
        bus.wait()
        with bus.engine.connect() as connection:
            found = connection.execute(sa.text('SELECT name, "all" FROM v_a_figure')).all()
        assert [tuple(row) for row in found] == [(name, 3)]
    assert bus.store.freshness("named").keys() == {"i", "food_business"}
