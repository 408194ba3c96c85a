"""A served shop as its clients see it: for the tests of HTTP."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from aiohttp import ClientResponse, ClientSession
from yarl import URL

from streamer.settings import Settings, load
from tests.serving_world import Shop, free_port, make_app


class Site:
    """A shop that is served, and a client of it."""

    def __init__(self, shop: Shop, settings: Settings, session: ClientSession) -> None:
        self.shop, self.settings, self.session = shop, settings, session
        self.url = f"{'http' if settings.http_tls_cert is None else 'https'}://127.0.0.1:{settings.http_port}"

    def get(self, path: str, **options: Any) -> Any:
        return self.session.get(URL(self.url + path, encoded=True), **options)

    def profile_of(self, user_id: str, **options: Any) -> Any:
        return self.get(f"/v1/users/{quote(user_id, safe='')}/profile", **options)


@asynccontextmanager
async def served(heartbeat_s: float = 15.0, **options: Any) -> AsyncIterator[Site]:
    settings, shop = load(http_port=free_port(), **options), Shop(people=4)
    async with make_app(shop, settings, heartbeat_s=heartbeat_s), ClientSession() as session:
        yield Site(shop, settings, session)


async def problem(response: ClientResponse) -> dict[str, Any]:
    """The body of an error, which is problem+json whatever went wrong."""
    assert response.content_type == "application/problem+json"
    body = json.loads(await response.read())
    assert body["status"] == response.status
    assert body["title"]
    assert body["detail"]
    return dict(body)


def refuse(error: Exception) -> Callable[..., Any]:
    def follow(*_: Any) -> Any:
        raise error

    return follow


async def status_of(site: Site, path: str, **options: Any) -> int:
    async with site.get(path, **options) as response:
        return int(response.status)


async def event(response: ClientResponse) -> dict[str, str]:
    """The next event of a stream, or its next comment under the empty name."""
    fields: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if line != b"\n":
            fields[name] = value
        elif "retry" in fields:
            fields = {}
        else:
            return fields
    raise EOFError("the stream ended")
