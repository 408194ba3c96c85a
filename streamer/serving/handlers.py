"""What each address answers. Every handler reads the worker's view; none changes anything.

The first line of a docstring is the summary in the OpenAPI document, and the rest its description.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streamer.metrics import REGISTRY
from streamer.pipeline.recommend import Wanted
from streamer.serving import answers, assets, openapi, queries
from streamer.serving.atlas import Atlas
from streamer.serving.endpoints import ENDPOINTS, Items
from streamer.serving.feed import Subscription
from streamer.serving.problems import Problem
from streamer.serving.queries import id_of, parse
from streamer.serving.stream import Streams, seen
from streamer.serving.view import WorkerView

T = TypeVar("T")


class Handlers:
    """One method an address; its name is the `operation` of the endpoint."""

    def __init__(self, view: WorkerView, streams: Streams) -> None:
        self._view, self._streams = view, streams
        self._assets, self._atlas = assets.load(), Atlas(view)
        self._document = assets.asset("openapi.json", msgspec.json.encode(openapi.document(self)))

    def routes(self) -> list[web.RouteDef]:
        """All there is."""
        return [
            *(_route(endpoint.path, getattr(self, endpoint.operation)) for endpoint in ENDPOINTS),
            web.get("/openapi.json", self.openapi),
            web.get("/docs", self.docs),
            web.get("/", self.page),
            web.get("/static/{name}", self.asset),
        ]

    # ---- users
    async def users(self, request: web.Request) -> web.StreamResponse:
        """Find users by how their ids begin.

        Only this worker's own users: of several workers each knows a part.
        """
        query = parse(request, queries.FindUsers)
        return answers.of_struct(request, await self._view.users(query.prefix, query.n))

    async def profile(self, request: web.Request) -> web.StreamResponse:
        """What the system believes about a user.

        As of the last event applied. The ETag goes by version, newest event and number of events; `X-Profile-Age` has
        the seconds since the newest. `changed` and `cause` are of the published version.
        """
        parse(request, queries.Query)
        user_id = id_of(request)
        return answers.of_profile(request, _known(self._view.profile(user_id), user_id))

    async def recommendations(self, request: web.Request) -> web.StreamResponse:
        """What a user may take next, best first.

        Each with its probability, what part of that each expert argues for, and the user's own items that led to it.
        """
        query, user_id = parse(request, queries.Recommend), id_of(request)
        wanted = Wanted(query.n, query.tag, query.exclude == "seen", query.max_per_category)
        found = self._view.recommendations(user_id, wanted)
        return answers.of_struct(request, _known(found, user_id))

    async def history(self, request: web.Request) -> web.StreamResponse:
        """How a user's interests moved.

        The published versions that this worker remembers, oldest first: all since `since`.
        """
        query, user_id = parse(request, queries.Past), id_of(request)
        return answers.of_struct(request, _known(self._view.history(user_id, query.n), user_id))

    # ---- items
    async def items(self, request: web.Request) -> web.StreamResponse:
        """Several items of the catalogue at once: those that are known."""
        ids = parse(request, queries.FindItems).id
        return answers.of_struct(request, Items(tuple(item for item in map(self._view.item, ids) if item is not None)))

    async def item(self, request: web.Request) -> web.StreamResponse:
        """One item of the catalogue."""
        parse(request, queries.Query)
        item_id = id_of(request)
        return answers.of_struct(request, _listed(self._view.item(item_id), item_id))

    async def similar(self, request: web.Request) -> web.StreamResponse:
        """The items most like one, best first."""
        query, item_id = parse(request, queries.Similar), id_of(request)
        return answers.of_struct(request, _listed(self._view.similar(item_id, query.n), item_id))

    # ---- all users
    async def map(self, request: web.Request) -> web.StreamResponse:
        """Which interests go together, and where the users stand among them.

        Made from a sample of this worker's users, at most every half minute.
        """
        return answers.of_struct(request, await self._atlas.map(parse(request, queries.Map).n))

    async def quality(self, request: web.Request) -> web.StreamResponse:
        """How well this worker predicts what its users take."""
        parse(request, queries.Query)
        return answers.of_struct(request, self._view.quality())

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """Profiles as they are published, as server-sent events.

        All of one user's; or a sample of everybody's on this worker. Events: `profile`; `skipped`, how many were left
        out to keep the rate; `gap`, where what was missed since `Last-Event-ID` is not remembered: read the profile
        again; `dropped`, with the reason, before the stream ends. A comment every 15 seconds shows that it is alive.
        """
        with self._subscribe(request) as reader:
            return await self._streams.serve(request, reader)

    def _subscribe(self, request: web.Request) -> AbstractContextManager[Subscription]:
        query, last = parse(request, queries.Follow), seen(request.headers.get("Last-Event-ID"))
        if query.user is None:
            return self._view.follow_all(query.rate, last)
        return self._view.follow(query.user, last)

    # ---- the worker
    async def status(self, request: web.Request) -> web.StreamResponse:
        """The worker at a glance."""
        parse(request, queries.Query)
        return answers.of_moment(self._view.status())

    async def healthz(self, _: web.Request) -> web.StreamResponse:
        """Alive: 503 asks for a restart."""
        good, reason = self._view.liveness()
        return answers.of_health(good=good, reason=reason)

    async def readyz(self, _: web.Request) -> web.StreamResponse:
        """Ready: 503 while it recovers or rebalances."""
        good, reason = self._view.readiness()
        return answers.of_health(good=good, reason=reason)

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """Prometheus metrics."""
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    # ---- for people
    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """This description of the API."""
        return assets.answer(request, self._document)

    async def docs(self, request: web.Request) -> web.StreamResponse:
        """The description as a page."""
        return assets.answer(request, self._assets["docs.html"])

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The explorer page."""
        return assets.answer(request, self._assets["index.html"])

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A file of the page."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return assets.answer(request, asset)


def _route(path: str, handler: Callable[..., object]) -> web.RouteDef:
    """Ids are whatever stands between two slashes. A live stream has no answer to HEAD: it never ends."""
    return web.get(path.replace("{id}", "{id:[^/]+}"), handler, allow_head=path != "/v1/changes")  # type: ignore[arg-type]


def _known(found: T | None, user_id: str) -> T:
    if found is None:
        raise Problem(404, "unknown-user", f"No event of user {user_id!r} has been seen. Ids are case-sensitive.")
    return found


def _listed(found: T | None, item_id: str) -> T:
    if found is None:
        raise Problem(404, "unknown-item", f"The catalogue has no item {item_id!r}.")
    return found
