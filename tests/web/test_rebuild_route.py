"""Who may ask for a rebuild or an undo over HTTP, and where the request ends up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx2
import pytest
from served_world import World

from bus.errors import UnknownView
from bus.views.rebuilding.requests import Kind, Request, Requests
from bus.web import admin
from bus.web.app import create_app


def post(world: World, requests: Requests, path: str, *, administrator: bool) -> httpx2.Response:
    """The answer of an app over the same parts that also has the administrator's routes."""
    assert world.parts.issuer is not None
    token = world.parts.issuer.token("governance", administrator=administrator)

    def ask(view: str, kind: Kind) -> Request:
        if view not in world.parts.shapes():
            raise UnknownView(view=view)
        return requests.ask(view, kind)

    app = create_app(replace(world.parts, ask=ask), routers=(admin.router,))

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=world.url) as client:
            return await client.post(path, headers={"Authorization": f"Bearer {token}"}, json={})

    return asyncio.run(send())


@pytest.mark.parametrize("kind", ["rebuild", "undo"])
def test_an_administrator_asks_workers(either: World, kind: str) -> None:
    """The request is recorded for workers to find; departments are refused, and so are views that are not there."""
    requests = Requests(either.governance)
    path = f"/v1/declarations/food_business/{kind}"
    refused = post(either, requests, path, administrator=False)
    assert refused.status_code in (401, 403, 404)
    assert "food_business" not in requests.all()
    answer = post(either, requests, path, administrator=True)
    assert answer.status_code == 202
    asked = requests.all()["food_business"]
    assert (asked.id, asked.kind) == (answer.json()["request"], kind)
    assert post(either, requests, f"/v1/declarations/nothing/{kind}", administrator=True).status_code == 404
    requests.forget("food_business")
    assert requests.all() == {}
