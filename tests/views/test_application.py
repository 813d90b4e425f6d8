"""The frame that Faust gives the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.infra.connection import KafkaConnection
from bus.views.workers.application import application


def test_faust_makes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no tables, so each start would only leave an empty folder behind."""

    async def build(_: object) -> None: ...

    monkeypatch.chdir(tmp_path)
    app, _ = application("bus-worker-test", KafkaConnection("127.0.0.1:1", "bus", ""), build, lambda: None)
    app._create_directories()
    assert list(tmp_path.iterdir()) == []


def test_compressed_topics_can_be_read() -> None:
    """A department may compress with whatever Kafka knows; a codec that is missing would stop its views."""
    from aiokafka import codec

    assert all((codec.has_gzip(), codec.has_snappy(), codec.has_lz4(), codec.has_zstd()))
