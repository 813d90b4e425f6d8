"""Whatever the API's own description allows, and whatever it does not: no 500, and every refusal in one form.

Schemathesis makes the requests out of the OpenAPI document; some keep to it, some break it on purpose.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

for room in ("web", "access"):
    sys.path.append(str(Path(__file__).parents[1] / room))

from served_world import World, served  # noqa: E402 - its folder is put on the path above

EXAMPLES = 10
MANY = 200
"""In full length."""
ENDLESS = "/v1/views/{view}/changes"


@pytest.fixture(scope="module")
def described(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A served world of its own, since it is asked without mercy."""
    folder = tmp_path_factory.mktemp("described")
    with served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa") as world:
        yield world


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_no_request_breaks_the_doors(described: World, full_length: bool, mode: GenerationMode) -> None:
    """Every operation, asked as a department that may and with whatever else the description allows or forbids."""
    schema = schemathesis.openapi.from_url(f"{described.url}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == ENDLESS:
            continue  # answers until the client leaves: its own tests ask it

        @settings(
            max_examples=MANY if full_length else EXAMPLES,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def ask(case: schemathesis.Case, known: bool) -> None:
            if known and "view" in (case.path_parameters or {}):
                case.path_parameters["view"] = "food_business"
            headers = described.headers("food", "inspection_planning")
            answer = case.call(headers=headers, timeout=30)
            statuses[answer.status_code] += 1
            assert answer.status_code < 500 or answer.status_code == 503, case.as_curl_command()
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0].startswith("application/problem+json"), case.as_curl_command()
                assert {"type", "title", "status", "code", "detail", "request_id"} <= set(answer.json())

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parts
            ask()
    assert sum(statuses.values()) >= EXAMPLES
    assert httpx2.get(f"{described.url}/health/ready", timeout=10).status_code == 200
