"""How commands end that fail."""

from __future__ import annotations

import importlib
from typing import NoReturn

import pytest

from bus.errors import BusError


def test_a_reason_in_brackets_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What looks like markup is the reason's own text: one line on stderr and exit code 1, no traceback."""

    main = importlib.import_module("bus.cli.main")  # `bus.cli.main` is also the function of that name

    def fail(**_: object) -> NoReturn:
        raise BusError("serve did not become ready [/tmp/home/log/serve.log: empty] [bold]")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "ready [/tmp/home/log/serve.log: empty] [bold]\n" in capfd.readouterr().err
