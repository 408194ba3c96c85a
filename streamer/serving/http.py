"""The HTTP API and the page, on Faust's own web server: how it listens, and what surrounds every answer."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import faust
import structlog
from aiohttp import web

from streamer.metrics import HTTP_REQUESTS, HTTP_SECONDS
from streamer.serving import access, stream, tls
from streamer.serving.endpoints import PROTECTED
from streamer.serving.forward import Forwarder, session
from streamer.serving.handlers import Handlers
from streamer.serving.limits import RateLimit
from streamer.serving.problems import Problem, of_http, retry_after, unavailable
from streamer.serving.stream import Streams
from streamer.serving.view import NotOwner, NotReady, SwitchedOff, WorkerView
from streamer.settings import Settings
from streamer.upstream import bare_web

log = structlog.get_logger(__name__)

ANSWER_S: Final = 10.0  # what takes longer is given up; a live stream has its own limits
LIVE: Final = "/v1/changes"
MAX_LINE: Final = (
    64 << 10
)  # bytes of an address: 100 ids of 256 characters fit, most of those that are written as three

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def faust_options(settings: Settings) -> dict[str, Any]:
    """Arguments for `faust.App` that make its web server ours: address and URL, its own pages off.

    Raises SettingsError for TLS files that are none.
    """
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    context = tls.server_context(settings)
    scheme = "http" if context is None else "https"
    return {
        "web_bind": settings.http_host,
        "web_host": settings.http_host,
        "web_port": settings.http_port,
        "web_ssl_context": context,
        "web_cors_options": access.cors_options(settings),
        "web_application_options": {"handler_args": {"max_line_size": MAX_LINE, "logger": _silent()}},
        "canonical_url": settings.advertised_url or f"{scheme}://{host}:{settings.http_port}",
        "HttpClient": session,
        "web_tables_enabled": False,
        "web_router_enabled": False,
        "web_graph_enabled": False,
        "web_stats_enabled": False,
        "web_metrics_enabled": False,
    }


def _silent() -> logging.Logger:
    """For aiohttp: of a request that it cannot read it logs the line, be it with a token or a user's id."""
    logger = logging.getLogger(f"{__name__}.unreadable")
    logger.disabled = True
    return logger


def install(app: faust.App, view: WorkerView, settings: Settings, heartbeat_s: float = stream.HEARTBEAT_S) -> None:
    """Put all routes on the web server of `app`, which must be made with `faust_options` and not be started yet.

    Raises SettingsError when anybody on the network could read profiles.
    """
    if app.conf.web_bind != settings.http_host:
        raise ValueError(f"the app listens on {app.conf.web_bind}: make it with **faust_options(settings)")
    access.require_protection(settings)
    server, streams = bare_web(app), Streams(heartbeat_s)
    forwarder = Forwarder(lambda: app.http_client, settings, streams)
    server.middlewares.append(Guard(settings, forwarder).answer)
    server.on_response_prepare.append(access.add_headers(settings))
    server.on_shutdown.append(streams.close)
    for route in server.add_routes(Handlers(view, streams).routes()):
        if settings.http_cors:
            app.web.cors.add(route)


class Guard:
    """Around every handler: access, limits, errors as problem+json, metrics."""

    def __init__(self, settings: Settings, forwarder: Forwarder) -> None:
        self._settings, self._forwarder = settings, forwarder
        self._limit = RateLimit(settings.http_rate) if settings.http_rate else None

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """An answer, whatever happens."""
        started = time.perf_counter()
        response = await self._answer(request, handler)
        route = _route(request)
        HTTP_REQUESTS.labels(route, response.status).inc()
        if response.content_type != stream.CONTENT_TYPE:
            HTTP_SECONDS.labels(route).observe(time.perf_counter() - started)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            async with asyncio.timeout(None if request.path == LIVE else ANSWER_S):
                return await self._ask(request, handler)
        except Problem as problem:
            return problem.response()
        except NotReady as wait:
            return unavailable(wait.reason, wait.retry_after_s).response()
        except SwitchedOff as off:
            return Problem(501, "switched-off", f"{off}").response()
        except TimeoutError:
            return unavailable(f"No answer within {ANSWER_S:.0f} s.", 5).response()
        except web.HTTPException as exc:
            return of_http(exc).response()
        except Exception:
            return _failed(request)

    async def _ask(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or that of the worker which owns the user."""
        try:
            return await handler(request)
        except NotOwner as owner:
            return await self._forwarder.ask(request, owner, live=request.path == LIVE)

    def _admit(self, request: web.Request) -> None:
        """Raise Problem when this request is not answered. What another worker passes on was counted there."""
        counted_before = access.is_vouched_for(request, self._settings)
        try:
            access.check(request, self._settings)
        except Problem:
            counted_before = False  # whoever guesses tokens is counted
            raise
        finally:
            if self._limit is not None and request.path.startswith(PROTECTED) and not counted_before:
                self._count(self._limit, request.remote or "")

    def _count(self, limit: RateLimit, client: str) -> None:
        wait_s = limit.wait_s(client)
        if wait_s > 0:
            detail = f"More than {self._settings.http_rate:g} questions a second from this address."
            raise Problem(429, "too-many", detail, headers=retry_after(wait_s))


def _failed(request: web.Request) -> web.Response:
    """A fault of ours: the log has it, the client gets the reference to it."""
    reference = f"urn:uuid:{uuid.uuid4()}"
    log.exception("request failed", route=_route(request), instance=reference)
    return Problem(500, "fault", "The worker could not answer; its log says why.", instance=reference).response()


def _route(request: web.Request) -> str:
    """The route's pattern, never the path: labels must stay few and hold no ids."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else f"({HTTPStatus.NOT_FOUND.phrase})"
