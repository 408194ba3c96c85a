"""The description of the API: complete, valid, and what handlers keep to; and its page."""

import inspect
import json
from typing import Any
from urllib.parse import quote

import jsonschema
import msgspec
import pytest

from streamer.serving import openapi, queries
from streamer.serving.endpoints import ENDPOINTS
from streamer.serving.handlers import Handlers
from streamer.serving.stream import Streams
from streamer.serving.view import NotOwner
from tests.serving_site import Site, problem, served, status_of
from tests.serving_world import Shop

DOCUMENT = openapi.document(Handlers(Shop(people=1), Streams()))
LIVE = "/v1/changes"


def asked(path: str) -> str:
    """An address of the shop's for a path of the document."""
    path = path.replace("/users/{id}", "/users/user-0001").replace("/items/{id}", "/items/sku-cam-01")
    return f"{path}?id=sku-cam-01&id=sku-cof-02" if path == "/v1/items" else path


def conforms(value: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_every_address_is_described_in_words() -> None:
    for path in DOCUMENT["paths"].values():
        operation = path["get"]
        assert operation["summary"]
        assert all(parameter.get("description") for parameter in operation["parameters"] if parameter["in"] == "query")
        assert all(answer["description"] for answer in operation["responses"].values())


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == set(DOCUMENT["components"]["schemas"])


def test_every_query_of_the_page_is_one_of_an_endpoint() -> None:
    declared = {kind for _, kind in inspect.getmembers(queries, inspect.isclass) if issubclass(kind, queries.Query)}
    assert {endpoint.query for endpoint in ENDPOINTS} == declared


async def test_every_address_answers_as_described() -> None:
    async with served(http_rate=0) as site:
        for path, item in DOCUMENT["paths"].items():
            if path == LIVE:
                continue
            described = item["get"]["responses"]["200"]
            async with site.get(asked(path)) as response:
                assert response.status == 200, path
                assert response.content_type in described["content"]
                assert all(name in response.headers for name in described["headers"])
                if response.content_type == "application/json":
                    conforms(await response.json(), described["content"]["application/json"]["schema"])


async def test_description_is_what_is_served() -> None:
    async with served() as site, site.get("/openapi.json") as response:
        assert (await response.json())["paths"] == msgspec.json.decode(msgspec.json.encode(DOCUMENT["paths"]))


async def test_answer_that_is_known_is_not_sent_again() -> None:
    async with served() as site:
        for endpoint in ENDPOINTS:
            if not endpoint.etag:
                continue
            async with site.get(asked(endpoint.path)) as response:
                etag = response.headers["ETag"]
            async with site.get(asked(endpoint.path), headers={"If-None-Match": etag}) as response:
                assert (response.status, await response.read()) == (304, b""), endpoint.path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users?n=0",
        "/v1/users?n=101",
        "/v1/users?n=x",
        "/v1/users?m=1",
        "/v1/users?n=1&n=2",
        f"/v1/users?prefix={'x' * 257}",
        f"/v1/users/{'x' * 257}/profile",
        "/v1/users/user-0001/profile?n=1",
        "/v1/users/user-0001/recommendations?exclude=some",
        "/v1/users/user-0001/recommendations?tag=",
        "/v1/users/user-0001/history?n=1001",
        "/v1/items/sku-cam-01/similar?n=-1",
        "/v1/map?n=5001",
        "/v1/changes?user=",
    ],
)
async def test_parameters_beyond_their_limits_are_bad_requests(path: str) -> None:
    async with served() as site, site.get(path) as response:
        assert response.status == 400
        await problem(response)


async def test_every_item_that_may_be_asked_for_at_once_fits_into_an_address() -> None:
    ids = [f"{n:03d}{'é' * 253}" for n in range(queries.MAX_ITEMS)]
    async with served() as site:
        query = "&".join(f"id={quote(each)}" for each in ids[:30])
        assert await status_of(site, f"/v1/items?{query}") == 200
        query = "&".join(f"id={n:0256d}" for n in range(queries.MAX_ITEMS))
        assert await status_of(site, f"/v1/items?{query}") == 200


@pytest.mark.parametrize("rest", ["profile", "recommendations?n=3", "history?n=2"])
async def test_any_worker_answers_for_any_user(rest: str) -> None:
    async with served() as one, served(instance_id="owner") as owner:
        one.shop.fault = NotOwner(3, owner.url)
        async with one.get(f"/v1/users/user-0002/{rest}") as response:
            assert (await response.json())["user_id"] == "user-0002"
            assert response.headers["X-Answered-By"] == owner.settings.source


async def test_map_is_drawn_once_for_all_who_ask() -> None:
    async with served() as site:
        first, again = [await answered(site, "/v1/map") for _ in range(2)]
        site.shop.step()
        assert first["made_at"] == again["made_at"]
        assert len((await answered(site, "/v1/map?n=2"))["points"]) == 2


async def answered(site: Site, path: str) -> dict[str, Any]:
    async with site.get(path) as response:
        return dict(await response.json())


async def test_page_of_the_description_is_served() -> None:
    async with served() as site, site.get("/docs") as response:
        assert response.content_type == "text/html"
        assert "/static/docs.js" in await response.text()
