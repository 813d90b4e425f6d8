"""The bus's own query handler without policy and audit: the same framework, server, SELECT and serialisation."""

from __future__ import annotations

import json
import sys
from typing import Any

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response

from benchmarks import data
from benchmarks.run_worker import governance
from bus.infra.database import open_database
from bus.sharing.formats import Format, body
from bus.views.catalogue import Shape, shapes
from bus.views.tables import live_rows, row_table


def select(shape: Shape) -> sa.Select[Any]:
    """What the reader's grant comes to, written by hand."""
    table = row_table(shape)
    name = table.c.legal_name
    short = sa.func.length(name) <= 3
    kept = sa.case((name.is_(None), None), (short, "***"), else_=sa.func.substr(name, 1, 3) + "***").label(name.name)
    shown = [kept if column.name == name.name else table.c[column.name] for column in shape.columns]
    return sa.select(*shown).where(live_rows(table), table.c.ward >= 1, table.c.ward <= data.WARDS // 2)


def make_app(given: dict[str, Any]) -> FastAPI:
    registry, declarations = governance(given["governance"], given["view"])
    (shape,) = shapes(declarations, registry.contracts()).values()
    connection = open_database(given["database"], "views", read_only=True).connect()
    names, allowed = [column.name for column in shape.columns], select(shape)
    order = [row_table(shape).c[name] for name in shape.view.key]
    app = FastAPI()

    @app.get("/rows")
    async def rows(limit: int) -> Response:
        with connection.begin():
            found = connection.execute(allowed.order_by(*order).limit(limit)).all()
        return Response(body(Format.JSON, names, found), media_type="application/json")

    return app


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    uvicorn.run(make_app(settings), host="127.0.0.1", port=settings["port"], access_log=False, log_config=None)
