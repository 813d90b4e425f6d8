"""The main job, end to end, through the command line only."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT, eventually
from tests.demo.conftest import Demo

ROWS = {
    "food_business": 12_367,
    "complaint": 74_026,
    "inspection_history": 27_600,
    "weather_daily": 1_310,
    "ward_hygiene": 52,
}


@pytest.mark.parametrize(("view", "rows"), ROWS.items())
def test_every_view_equals_the_fold_of_the_input(demo: Demo, view: str, rows: int) -> None:
    """The demo says so itself, with the number of rows that the real data gives."""
    assert f"verified {view}: {rows:,} rows, every column equal" in demo.output


def test_the_blank_row_is_the_only_one_in_quarantine(demo: Demo) -> None:
    """It was refused by the publisher, with its line and its reasons."""
    (entry,) = demo.json("quarantine", "list")
    assert (entry["origin"], entry["entity"]) == ("publish", "market.business_licence")
    assert {reason["field"] for reason in entry["reasons"]} >= {"licence_term_id", "licence_number"}
    assert demo.json("status")["quarantine"] == 1


def test_disagreements_equal_the_count_of_the_files(demo: Demo) -> None:
    """Address and trade name as market and food know them; market sees its own value and that food's differs."""
    assert "verified disagreements of market and food" in demo.output
    assert "address 7,416, doing_business_as 1,779" in demo.output
    assert {item["open"] for item in demo.json("views", "discrepancies")} == {7_416, 1_779}
    (first,) = demo.json("views", "discrepancies", "food_business", "--as", "market", "--limit", "1")
    assert first["shown"]["value"]
    assert first["reported"]["hidden"]


def test_departments_see_different_answers(demo: Demo) -> None:
    """Food sees all, tax a masked name and no coordinates, weather a refusal that names whom to ask."""
    food, _, rest = demo.output.partition("tax, for levy:")
    tax, _, refused = rest.partition("weather, for levy:")
    assert "masked: nothing" in food
    assert "legal_name=" in tax
    assert "***" in tax
    assert "latitude=(not granted)" in tax
    assert "masked: legal_name" in tax
    assert "403 not_granted" in refused
    assert "@" in refused.partition("police")[0], "the refusal gives a contact"


def test_a_second_demo_is_quick_and_changes_nothing(demo: Demo) -> None:
    """The same rows, the same positions, the same grants; nothing is published again."""
    before = demo.json("status")
    begun = time.monotonic()
    done = demo.bus("demo")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 60
    after = demo.json("status")
    assert {name: view["rows"] for name, view in after["views"].items()} == {
        name: view["rows"] for name, view in before["views"].items()
    }
    assert {name: view["seq"] for name, view in after["views"].items()} == {
        name: view["seq"] for name, view in before["views"].items()
    }
    assert after["policy_revision"] == before["policy_revision"]
    assert after["processes"] == before["processes"]


def test_status_has_what_scripts_read(demo: Demo) -> None:
    """The members that interface.md names, each view caught up."""
    status = demo.json("status")
    assert status["web"].startswith("http://127.0.0.1:")
    assert status["kafka"].startswith("127.0.0.1:")
    assert {"kafka", "opa", "serve", "worker", "streams"} <= set(status["processes"])
    assert all(set(view) >= {"rows", "lag", "freshness_s"} for view in status["views"].values())
    assert {view["lag"] for view in status["views"].values()} == {0}
    assert [promise["broken"] for promise in status["promises"]] == [False] * 5, "old facts, published just now"


def test_a_department_sees_what_it_published_and_who_read_it(demo: Demo) -> None:
    """Market's own questions: published, applied, refused and why, who read it."""
    answer = demo.json("status", "--as", "market")
    (entity,) = answer["entities"]
    assert (entity["entity"], entity["published"], entity["waiting"]) == ("market.business_licence", 17_430, 0)
    assert (entity["promise"], entity["promise_broken"]) == ("P1D", False)
    assert answer["refusals"][0]["place"].startswith("line ")
    assert {"tax", "food"} <= {reader["consumer"] for reader in answer["readers"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("query", "food_business", "--as", "tax", "--purpose", "gossip"), "purpose"),
        (("query", "nonsense", "--as", "tax", "--purpose", "levy"), "view"),
        (("query", "food_business", "--as", "weather", "--purpose", "levy"), "grant"),
        (("query", "food_business", "--as", "tax", "--purpose", "levy", "--where", "wrd=eq.1"), "ward"),
        (("query", "food_business", "--as", "tax", "--purpose", "levy", "--where", "latitude=gt.1"), "latitude"),
        (("query", "food_business", "--as", "tax", "--purpose", "levy", "--where", "legal_name=eq.X"), "masked"),
        (("token", "nobody"), "department"),
        (("contracts", "check", "README.md"), "line 1"),
        (("views", "check", "schemas/departments.yaml"), "problem(s)"),
        (("grants", "apply", "nowhere.yaml"), "no file"),
        (("publish", "market.business_licence", "--as", "tax"), "market"),
    ],
)
def test_a_refusal_is_one_clear_line(demo: Demo, arguments: tuple[str, ...], words: str) -> None:
    """Exit code 1, nothing on stdout, one line on stderr that says what and what to do."""
    done = demo.bus(*arguments, stdin="")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_published_lines_reach_the_view(demo: Demo) -> None:
    """Bare records and deletes as JSON lines; a bad line is refused with its number, the others go on."""
    record = {
        "date": "2031-01-01",
        "precipitation_intensity": 0.5,
        "temperature_max_f": 30.0,
        "wind_speed": 1.0,
        "humidity": 0.5,
    }
    bad = {"date": "tomorrow"}
    lines = "\n".join(json.dumps(item) for item in (record, bad))
    done = demo.bus("publish", "weather.daily", "--as", "weather", stdin=lines)
    assert done.returncode == 1
    assert "1 acknowledged, 1 refused" in done.stdout
    assert "line 2" in done.stderr
    assert demo.bus("views", "wait", "weather_daily").returncode == 0
    assert demo.json("status")["views"]["weather_daily"]["rows"] == ROWS["weather_daily"] + 1
    gone = json.dumps({"op": "delete", "key": {"date": "2031-01-01"}})
    assert demo.bus("publish", "weather.daily", "--as", "weather", stdin=gone).returncode == 0
    assert demo.bus("views", "wait", "weather_daily").returncode == 0
    assert demo.json("status")["views"]["weather_daily"]["rows"] == ROWS["weather_daily"]


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ("food_business", "12,367 rows equal the fold of 45,030 events"),
        ("resident", "5,000 rows equal the fold of 5,000 events"),
        ("ward_hygiene", "52 rows equal the fold of"),
    ],
)
def test_a_view_is_verified_from_its_topics(demo: Demo, view: str, line: str) -> None:
    """`bus views verify` folds the events themselves, on the running system."""
    done = demo.bus("views", "verify", view)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout


def test_the_answer_carries_its_headers(demo: Demo) -> None:
    """Request-Id, Policy-Revision, Data-Freshness per source, Masked-Columns, as interface.md says."""
    web, token = demo.json("status")["web"], demo.bus("token", "tax").stdout.strip()
    headers = {"Authorization": f"Bearer {token}", "Purpose": "levy", "Prefer": "count=exact"}
    answer = httpx2.get(f"{web}/v1/views/food_business?ward=eq.20&limit=2", headers=headers)
    assert answer.status_code in (200, 206)
    assert answer.headers["Masked-Columns"] == "legal_name"
    assert answer.headers["Policy-Revision"].count(".") == 1
    assert "licence=" in answer.headers["Data-Freshness"]
    assert "inspection=" in answer.headers["Data-Freshness"]
    assert answer.headers["Request-Id"]
    assert all(row["ward"] == 20 and "latitude" not in row for row in answer.json())


def test_identity_comes_from_the_token_only(demo: Demo) -> None:
    """No token is 401, whatever other headers claim."""
    web = demo.json("status")["web"]
    answer = httpx2.get(f"{web}/v1/views/food_business", headers={"X-Department": "food", "Purpose": "levy"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


@pytest.mark.fault
def test_a_killed_worker_comes_back(demo: Demo) -> None:
    """SIGKILL: the supervisor starts it again and the views take up new events."""
    before = demo.json("status")["processes"]["worker"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: demo.json("status")["processes"].get("worker") not in (None, before), what="a new worker")
    assert demo.bus("views", "wait", "--timeout", "60").returncode == 0


@pytest.mark.fault
def test_a_killed_streams_process_comes_back(demo: Demo) -> None:
    """SIGKILL: the supervisor starts it again, and its stream is where the view is, with no trouble."""
    before = demo.json("status")["processes"]["streams"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: demo.json("status")["processes"].get("streams") not in (None, before), what="a new process")
    found = demo.json("status")["subscriptions"]
    assert [(item["consumer"], item["view"]) for item in found] == [("social", "food_business")]
    eventually(
        lambda: (
            [(item["state"], item["problem"]) for item in demo.json("status")["subscriptions"]] == [("running", "")]
        ),
        what="a stream that runs",
    )


@pytest.mark.fault
def test_without_opa_nothing_is_shown(demo: Demo) -> None:
    """OPA stopped: 503 policy_unavailable within half a second; back: answers again."""
    status = demo.json("status")
    token = demo.bus("token", "food").stdout.strip()
    headers = {"Authorization": f"Bearer {token}", "Purpose": "inspection_planning"}

    def ask() -> httpx2.Response:
        return httpx2.get(f"{status['web']}/v1/views/food_business?limit=1", headers=headers)

    opa = status["processes"]["opa"]
    os.kill(opa, signal.SIGSTOP)
    try:
        eventually(lambda: ask().status_code == 503, what="a refusal")
        begun = time.monotonic()
        answer = ask()
        assert time.monotonic() - begun < 0.5
        assert (answer.status_code, answer.json()["code"]) == (503, "policy_unavailable")
        assert answer.headers["Retry-After"]
    finally:
        os.kill(opa, signal.SIGCONT)
    eventually(lambda: ask().status_code in (200, 206), what="an answer")


def test_the_audit_log_is_whole(demo: Demo) -> None:
    """Every answer and refusal so far is in the chain."""
    done = demo.bus("audit", "verify")
    assert done.returncode == 0, done.stderr
    assert "chain unbroken" in done.stdout


def test_the_service_centre_gets_yes_or_no(demo: Demo) -> None:
    """It learns whether a licence is good, and no more; its own program runs as it stands."""
    import subprocess
    import sys

    asker = ("--as", "one_stop", "--purpose", "service_handling")
    for number, word in (("1926502", "yes"), ("2032087", "no"), ("1", "no")):
        said = demo.bus("ask", "food_business", "was_ever_licensed", f"licence_number={number}", *asker)
        assert said.stdout.startswith(f"{word} (as of "), said.stderr
    assert demo.bus("query", "food_business", *asker).returncode == 1
    program = [sys.executable, "-m", "consumers.one_stop", "1926502"]
    done = subprocess.run(program, env=demo.environment, capture_output=True, text=True, check=False)
    assert "never cancelled or revoked: yes" in done.stdout, done.stderr
    assert "licence valid today: no" in done.stdout


def test_figures_related_views_and_search(demo: Demo) -> None:
    """Counts by result add up to every business; a business with its inspections; what is found by its name."""
    ask = ("query", "food_business", "--as", "food", "--purpose", "inspection_planning", "--format", "json")
    figures = json.loads(demo.bus(*ask, "--select", "last_result,n:count()").stdout)
    assert sum(row["n"] for row in figures) == 12_367
    select = "licence_number,last_result,seen:inspection_history(result)"
    rows = json.loads(demo.bus(*ask, "--select", select, "--where", "last_result=eq.Fail", "--limit", "5").stdout)
    assert all("Fail" in [one["result"] for one in row["seen"]] for row in rows)
    found = json.loads(demo.bus(*ask, "--select", "legal_name", "--where", "legal_name=plfts.pizza hut").stdout)
    assert found
    assert all("pizza" in row["legal_name"].lower() and "hut" in row["legal_name"].lower() for row in found)


def test_the_consumer_runs_as_it_stands(demo: Demo) -> None:
    """A file that a department's developer would copy."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "consumers.tax", "20"], env=demo.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "masked: legal_name" in done.stdout


@pytest.mark.parametrize("consumer", ["tax", "public", "one_stop", "social"])
def test_what_is_shown_for_connecting_works_when_pasted(demo: Demo, consumer: str) -> None:
    """Each curl line and each piece of Python of `bus grants show --as` runs as it stands, in the checkout."""
    import subprocess
    import sys

    shown = json.loads(demo.bus("grants", "show", "--as", consumer, "--json").stdout)
    assert shown
    for recipe in shown:
        endless = "timeout 5 " if recipe["channel"] == "stream" else ""
        for command in (["bash", "-c", endless + recipe["curl"]], [sys.executable, "-c", recipe["python"]]):
            done = subprocess.run(
                command, env=demo.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode in ((0, 124) if endless else (0,)), f"{recipe}\n{done.stderr}"
            assert done.stdout.strip() or recipe["channel"] == "lookup", recipe


def test_a_subscriber_keeps_its_table_right(demo: Demo, tmp_path: Path) -> None:
    """Social security's own program holds as many businesses as its question would show; open data needs no token."""
    import sqlite3
    import subprocess
    import sys

    table = tmp_path / "passed.db"
    programs = (["consumers.social", str(table), "--once"], ["consumers.open_data", demo.json("status")["web"]])
    for program, *arguments in programs:
        command = [sys.executable, "-m", program, *arguments]
        done = subprocess.run(command, env=demo.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    ask = ("query", "food_business", "--as", "food", "--purpose", "inspection_planning", "--format", "json")
    (passed,) = json.loads(demo.bus(*ask, "--select", "n:count()", "--where", "last_result=eq.Pass").stdout)
    (kept,) = sqlite3.connect(table).execute("SELECT count(*) FROM business").fetchone()
    assert kept == passed["n"] > 0
