"""The portal asks as any department where `bus demo` said so, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from bus.infra.stack import LocalStack, StackState
from bus.settings import Settings
from bus.wiring import stack


def environment(home: Path) -> Mapping[str, str]:
    """What serve would be told."""
    local = stack.local_stack(Settings(home=home), print)
    return next(dict(program.env) for program in local._programs if program.name == "serve")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose stack is planned and never started."""
    monkeypatch.delenv("BUS_DEMO", raising=False)
    monkeypatch.setenv("BUS_HOME", str(tmp_path))
    nothing = StackState(web="", kafka=None, opa=None, processes={}, supervisor=0, starts={})
    monkeypatch.setattr(LocalStack, "up", lambda self: nothing)
    return tmp_path


def test_up_alone_is_no_demonstration(home: Path) -> None:
    """A home that no demo touched does not let the portal ask."""
    stack.start(print)
    assert "BUS_DEMO" not in environment(home)


def test_a_demo_is_remembered(home: Path) -> None:
    """What `bus demo` started is a demonstration, and stays one when `bus up` starts it again."""
    stack.start(print, demonstration=True)
    assert environment(home)["BUS_DEMO"] == "true"
    stack.start(print)
    assert environment(home)["BUS_DEMO"] == "true"


def test_the_environment_has_the_last_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets BUS_DEMO=false gets no asking, demo or not."""
    stack.start(print, demonstration=True)
    monkeypatch.setenv("BUS_DEMO", "false")
    assert environment(home)["BUS_DEMO"] == "false"


def test_a_demonstration_stays_on_its_machine() -> None:
    """Asking as any department is refused where others than this machine could do it."""
    with pytest.raises(ValidationError, match="BUS_DEMO"):
        Settings(demo=True, web_host="0.0.0.0", tls_terminated=True)
