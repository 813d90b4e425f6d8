"""``bus demo``: the whole job on real data, from nothing to verified answers. Repeating it changes nothing."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson

from bus.cli import context, expected
from bus.cli.api import Api
from bus.cli.asking import ask_around
from bus.cli.files import read_schema, read_yaml
from bus.cli.output import console
from bus.cli.steps import Bar, Steps
from bus.core.contracts import parse_contract
from bus.core.declarations import parse_view
from bus.errors import BusError, ViewRebuilding
from bus.settings import CHECKOUT
from bus.views.shapes import ordered
from bus.wiring.site import Site
from bus.wiring.stack import child_environment, start
from bus.wiring.viewing import view_rows, wait_for_views

PRODUCERS: Final = ("market", "food", "sanitation", "weather", "police")
BUILD_TIMEOUT_S: Final = 300.0
QUARANTINED: Final = 1  # the one row of the licence file that is blank in every column


def run_demo(*, again: bool = False) -> None:
    """Runs every step; raises `BusError` with one clear line where one fails."""
    begun = time.monotonic()
    with Steps() as steps:
        with steps.step("Starting Kafka, OPA, serve and worker"):
            state = start(lambda text: steps.say(f"  {text}"), demonstration=True)
        site, api = Site.find(), context.administrator()
        with steps.step("Registering departments, contracts, views"):
            _declare(site, api, steps)
        with steps.step("Publishing the departments' data"):
            _publish(site, steps, again=again)
        with steps.step("Building the shared views"):
            _build(site, api, steps)
        with steps.step("Issuing the grants"):
            _grant(site, api, steps)
        with steps.step("Asking the same question as several departments"):
            ask_around(steps.say)
        with steps.step("Verifying every view against an independent fold of the input files"):
            _verify(site, api, steps)
    _farewell(state.web, time.monotonic() - begun)


def _declare(site: Site, api: Api, steps: Steps) -> None:
    schemas = site.settings.schemas
    for department in read_yaml(schemas / "departments.yaml"):
        api.post("/v1/departments", department)
    for purpose in read_yaml(schemas / "purposes.yaml"):
        api.post("/v1/purposes", purpose)
    contracts = [(parse_contract(schema), schema) for schema in map(read_schema, sorted(schemas.glob("*/*.avsc")))]
    for contract, schema in contracts:
        api.post(f"/registry/subjects/{contract.subject}/versions", {"schema": orjson.dumps(schema).decode()})
    documents = [read_yaml(path) for path in sorted((schemas / "views").glob("*.yaml"))]
    views = {view.name: view for view in map(parse_view, documents)}
    for name, view in ordered(views):  # those that others read first
        api.put(f"/v1/declarations/{name}", view.document)
    steps.say(f"  {len(contracts)} contracts, {len(views)} views")


def _publish(site: Site, steps: Steps, *, again: bool) -> None:
    marker = site.settings.home / "run" / "published.json"
    done = set() if again or not marker.exists() else set(orjson.loads(marker.read_bytes()))
    waiting = [name for name in PRODUCERS if name not in done]
    for name in sorted(done):
        steps.say(f"  {name}: published by an earlier demo")
    bar = Bar(steps, "departments published", len(PRODUCERS))
    bar.at(len(done))
    with ThreadPoolExecutor(max_workers=2) as pool:
        for name, lines in zip(waiting, pool.map(lambda name: _produce(site, name), waiting), strict=True):
            for line in lines:
                steps.say(f"  {line}")
            done.add(name)
            bar.at(len(done))
            marker.write_bytes(orjson.dumps(sorted(done)))


def _produce(site: Site, name: str) -> list[str]:
    """Runs one department's system as its own process; its lines. Raises `BusError` with its last words."""
    process = subprocess.run(
        [sys.executable, "-m", f"producers.{name}"],
        cwd=CHECKOUT,
        env=os.environ | child_environment(site.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        last = (process.stderr.strip() or process.stdout.strip() or "no output").splitlines()[-1]
        raise BusError(f"producers.{name} failed: {last}")
    return str(process.stdout).splitlines()


def _build(site: Site, api: Api, steps: Steps) -> None:
    total = sum(view["lag"] or 0 for view in api.get("/v1/status")["views"].values())
    bar = Bar(steps, "events to apply", max(total, 1))
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    for views in _poll(api):
        lag = sum(view["lag"] or 0 for view in views.values())
        bar.at(max(total - lag, 0))
        if lag == 0 and all(view["state"] == "live" for view in views.values()):
            break
        stopped = [f"{name}: {view['reason']}" for name, view in views.items() if view["state"] == "stopped"]
        if stopped:
            raise BusError("a view stopped: " + "; ".join(stopped))
        if time.monotonic() > deadline:
            raise ViewRebuilding(f"the views were not built in {BUILD_TIMEOUT_S:.0f} s; see .bus/log/worker.log")
    wait_for_views(site, (), BUILD_TIMEOUT_S)


def _poll(api: Api) -> Iterator[Mapping[str, Any]]:
    while True:
        views: Mapping[str, Any] = api.get("/v1/status")["views"]
        yield views
        time.sleep(0.3)


def _grant(site: Site, api: Api, steps: Steps) -> None:
    today = dt.datetime.now(dt.UTC).date()
    held = {grant["id"]: grant for grant in api.get("/v1/grants")}
    notice = ""
    for path in sorted((site.settings.schemas / "grants").glob("*.yaml")):
        document = read_yaml(path)
        for grant in document["grants"]:
            grant.setdefault("valid", _validity(held.get(grant["id"]), today))
        answer = api.put(f"/v1/grants/sets/{path.stem}", {"document": document, "os_user": "demo"})
        changes = [f"{what} {', '.join(answer[what])}" for what in ("added", "changed", "revoked") if answer[what]]
        steps.say(f"  {document['set']}: {'; '.join(changes) or 'unchanged'}")
        notice = answer["notice"]
    steps.say(f"  {notice}")


def _validity(held: Mapping[str, Any] | None, today: dt.date) -> dict[str, str]:
    """A year from today, unless the grant that an earlier demo issued still holds."""
    if held is not None and held["valid"]["to"] >= today.isoformat():
        return dict(held["valid"])
    try:
        next_year = today.replace(year=today.year + 1)
    except ValueError:  # 29 February
        next_year = today.replace(year=today.year + 1, day=28)
    return {"from": today.isoformat(), "to": (next_year - dt.timedelta(days=1)).isoformat()}


def _verify(site: Site, api: Api, steps: Steps) -> None:
    wrong = []
    folded = expected.views(CHECKOUT / "producers" / "data")
    folded["resident"] = _synthetic_residents()
    for name, rows in folded.items():
        differences = expected.differences(rows, view_rows(site, name))
        if differences:
            wrong.append(f"{name}: {len(differences)} rows differ, first {differences[0]}")
        else:
            steps.say(f"  verified {name}: {len(rows):,} rows, every column equal")
    wrong += _disagreements(api, steps)
    quarantine = api.get("/v1/quarantine", limit=10)
    if len(quarantine) != QUARANTINED:
        wrong.append(f"quarantine: {len(quarantine)} events, expected {QUARANTINED}")
    for item in quarantine:
        first, *more = item["reasons"]
        why = f"{first.get('field')}: expected {first.get('expected')}, received {first.get('received')}"
        steps.say(
            f"  verified quarantine: 1 event, {item['entity']} line {item['line']}: {why}; and {len(more)} more reasons"
        )
    verdict = api.get("/v1/audit/verify")
    if not verdict["ok"]:
        wrong.append(f"audit log: first bad entry {verdict['first_bad']}")
    steps.say(f"  verified audit log: {verdict['entries']} entries, chain unbroken")
    if wrong:
        raise BusError(f"verification failed: {'; '.join(wrong)}")


def _disagreements(api: Api, steps: Steps) -> list[str]:
    """What the bus counts between departments, against an independent count of the input files."""
    counted = {
        item["field"]: item["open"]
        for item in api.get("/v1/discrepancies/summary")
        if (item["view"], item["departments"]) == ("food_business", ["market", "food"])
    }
    wanted = expected.disagreements(CHECKOUT / "producers" / "data")
    if counted != wanted:
        return [f"disagreements of market and food: {counted}, expected {wanted}"]
    shown = ", ".join(f"{field} {count:,}" for field, count in counted.items())
    steps.say(f"  verified disagreements of market and food, each equal to the count of the files: {shown}")
    return []


def _synthetic_residents() -> list[dict[str, Any]]:
    """What the police's producer makes from its fixed seed; it is run where it lives, beside the package."""
    code = "import json; from producers.police import residents; print(json.dumps(list(residents()), default=str))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [{name: _date_in(name, value) for name, value in row.items()} for row in orjson.loads(done.stdout)]


def _date_in(name: str, value: Any) -> Any:
    return dt.date.fromisoformat(value) if value and name.endswith("_date") else value


def _farewell(web: str, seconds: float) -> None:
    console.print(f"\nThe bus runs. Done in {seconds:.0f} s.", style="bold green" if console.is_terminal else "")
    console.print(f"  portal      {web}")
    ask = "query food_business --as tax --purpose levy --where ward=eq.20 --limit 5"
    console.print(f"  ask         .venv/bin/bus {ask}")
    console.print("  who saw it  .venv/bin/bus status --as market")
    console.print("  a consumer  .venv/bin/python -m consumers.tax 20")
    console.print("  stop        make down")
