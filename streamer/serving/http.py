"""The HTTP API and the page, on Faust's own web server. Knows the worker only as a `WorkerView`."""

import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import faust
import msgspec
import structlog
from aiohttp import ETag, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streamer.events import Item
from streamer.metrics import HTTP_REQUESTS, HTTP_SECONDS, REGISTRY
from streamer.profile import Profile
from streamer.serving import access, assets, stream
from streamer.serving.forward import forward
from streamer.serving.problems import Problem, of_http, unavailable
from streamer.serving.view import NotOwner, NotReady, WorkerView
from streamer.settings import Settings
from streamer.upstream import bare_web

log = structlog.get_logger(__name__)

MAX_ITEMS = 100  # of one question
DEFAULT_RATE = 50  # changes a second of a stream of all users: a person can't follow more
MAX_RATE = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health(msgspec.Struct, frozen=True):
    """Good health, in the worker's words."""

    status: str
    reason: str


class ItemsAnswer(msgspec.Struct, frozen=True):
    """Those of the items asked for that are known."""

    items: tuple[Item, ...]


def faust_options(settings: Settings) -> dict[str, Any]:
    """Arguments for `faust.App` that make its web server ours: address and URL, its own pages off."""
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    return {
        "web_bind": settings.http_host,
        "web_host": settings.http_host,
        "web_port": settings.http_port,
        "canonical_url": settings.advertised_url or f"http://{host}:{settings.http_port}",
        "web_tables_enabled": False,
        "web_router_enabled": False,
        "web_graph_enabled": False,
        "web_stats_enabled": False,
        "web_metrics_enabled": False,
    }


def install(app: faust.App, view: WorkerView, settings: Settings, heartbeat_s: float = stream.HEARTBEAT_S) -> None:
    """Put all routes on the web server of `app`, which must be made with `faust_options` and not be started yet."""
    if app.conf.web_bind != settings.http_host:
        raise ValueError(f"the app listens on {app.conf.web_bind}: make it with **faust_options(settings)")
    _warn_if_open(settings)
    server = bare_web(app)
    api = Api(app, view, settings, heartbeat_s)
    server.middlewares.append(api.guard)
    server.on_response_prepare.append(access.add_headers)
    server.on_shutdown.append(api.streams.close)
    server.add_routes(api.routes())


class Api:
    """The routes. Every handler reads the worker's view and answers; none changes anything."""

    def __init__(self, app: faust.App, view: WorkerView, settings: Settings, heartbeat_s: float) -> None:
        self._app, self._view, self._settings = app, view, settings
        self._assets = assets.load()
        self.streams = stream.Streams(heartbeat_s)

    def routes(self) -> list[web.RouteDef]:
        """All there is."""
        return [
            web.get("/v1/users/{id:[^/]+}/profile", self.profile),
            web.get("/v1/items/{id:[^/]+}", self.item),
            web.get("/v1/items", self.items),
            web.get("/v1/changes", self.changes, allow_head=False),
            web.get("/v1/status", self.status),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/", self.page),
            web.get("/static/{name}", self.asset),
        ]

    async def profile(self, request: web.Request) -> web.StreamResponse:
        """One user's profile; ETag from its version and newest event, X-Profile-Age in seconds since that event."""
        try:
            profile = self._view.profile(user_id := _segment(request))
        except NotOwner as owner:
            return await forward(self._app.http_client, request, owner)
        if profile is None:
            raise Problem(404, "unknown-user", f"No event of user {user_id!r} has been seen. Ids are case-sensitive.")
        return _profile_answer(request, profile, self._settings.source)

    async def item(self, request: web.Request) -> web.StreamResponse:
        """One item of the catalogue."""
        item = self._view.item(item_id := _segment(request))
        if item is None:
            raise Problem(404, "unknown-item", f"The catalogue has no item {item_id!r}.")
        return _json(item)

    async def items(self, request: web.Request) -> web.StreamResponse:
        """Several items at once (`?id=a&id=b`): those that are known."""
        ids = request.query.getall("id", [])
        if not 0 < len(ids) <= MAX_ITEMS:
            raise Problem(400, "bad-query", f"Give 1 to {MAX_ITEMS} times `id=`, not {len(ids)}.")
        return _json(ItemsAnswer(tuple(item for item in map(self._view.item, ids) if item is not None)))

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: all changes of `?user=`, or those of everybody, at most `?rate=` a second."""
        user_id = request.query.get("user")
        try:
            with self._view.subscribe(user_id, _rate(request) if user_id is None else None) as reader:
                return await self.streams.serve(request, reader)
        except NotOwner as owner:
            return await forward(self._app.http_client, request, owner)

    async def status(self, _: web.Request) -> web.StreamResponse:
        """The worker at a glance, for the page."""
        return _json(self._view.status())

    async def healthz(self, _: web.Request) -> web.StreamResponse:
        """Alive: 503 asks for a restart."""
        return _health(*self._view.liveness())

    async def readyz(self, _: web.Request) -> web.StreamResponse:
        """Ready: 503 while it recovers or rebalances."""
        return _health(*self._view.readiness())

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """Prometheus metrics."""
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The explorer page."""
        return assets.answer(request, self._assets["index.html"])

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A file of the page."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return assets.answer(request, asset)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every handler: access, errors as problem+json, metrics."""
        started = time.perf_counter()
        response = await self._answer(request, handler)
        route = _route(request)
        HTTP_REQUESTS.labels(route, response.status).inc()
        if response.content_type != stream.CONTENT_TYPE:
            HTTP_SECONDS.labels(route).observe(time.perf_counter() - started)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(request, self._settings)
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except NotReady as wait:
            return unavailable(wait.reason, wait.retry_after_s).response()
        except web.HTTPException as exc:
            return of_http(exc).response()
        except Exception:
            return _failed(request)


def _failed(request: web.Request) -> web.Response:
    """A fault of ours: the log has it, the client gets the reference to it."""
    reference = f"urn:uuid:{uuid.uuid4()}"
    log.exception("request failed", route=_route(request), instance=reference)
    return Problem(500, "fault", "The worker could not answer; its log says why.", instance=reference).response()


def _warn_if_open(settings: Settings) -> None:
    if not access.is_loopback(settings.http_host) and not settings.http_token.get_secret_value():
        log.warning(
            "profiles can be read by anyone on the network: set STREAMER_HTTP_TOKEN, or STREAMER_HTTP_HOST=127.0.0.1",
            http_host=settings.http_host,
        )


def _profile_answer(request: web.Request, profile: Profile, source: str) -> web.Response:
    """Weak ETag: a change too small to be published makes no new version."""
    etag = ETag(f"{profile.version}.{profile.as_of}", is_weak=True)
    known = any(tag.value in (etag.value, "*") for tag in request.if_none_match or ())
    response = web.Response(status=304) if known else _json(profile)
    response.etag = etag
    age_s = max(0.0, time.time() - profile.as_of / 1000)
    response.headers.update(
        {"Cache-Control": "private, no-cache", "X-Profile-Age": f"{age_s:.3f}", "X-Answered-By": source}
    )
    return response


def _json(value: msgspec.Struct) -> web.Response:
    headers = {"Cache-Control": "private, no-cache"}
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", headers=headers)


def _health(good: bool, reason: str) -> web.Response:  # noqa: FBT001 - what the view answers, passed on
    if not good:
        raise unavailable(reason, 1)
    return _json(Health("ok", reason))


def _segment(request: web.Request) -> str:
    """The id in the third part of the path. Decoded from what was sent: the router's form leaves %2F ambiguous."""
    try:
        return unquote_to_bytes(request.rel_url.raw_path.split("/")[3]).decode()
    except UnicodeDecodeError:
        raise Problem(400, "bad-id", "Ids in addresses are percent-encoded UTF-8.") from None


def _rate(request: web.Request) -> int:
    text = request.query.get("rate", str(DEFAULT_RATE))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_RATE):
        raise Problem(400, "bad-query", f"`rate` is a whole number of changes a second, 1 to {MAX_RATE}.")
    return int(text)


def _route(request: web.Request) -> str:
    """The route's pattern, never the path: labels must stay few and hold no ids."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else f"({HTTPStatus.NOT_FOUND.phrase})"
