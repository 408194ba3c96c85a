"""Every address of the API in one table: the web server's routes and the OpenAPI document are both made from it."""

from typing import Final, NamedTuple

import msgspec

from streamer.events import Item
from streamer.profile import Profile
from streamer.recommendation import Quality, Recommendations, SimilarItems
from streamer.serving.queries import FindItems, FindUsers, Follow, Map, Past, Query, Recommend, Similar
from streamer.serving.view import FoundUsers, History, InterestMap, Status

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"


class Health(msgspec.Struct, frozen=True):
    """Good health, in the worker's words."""

    status: str
    reason: str


class Items(msgspec.Struct, frozen=True):
    """Those of the items asked for that are known."""

    items: tuple[Item, ...]


class Endpoint(NamedTuple):
    """One address. `operation` is the handler's name; its docstring is what the document says."""

    path: str
    operation: str
    answer: type[msgspec.Struct] | None  # None: not JSON
    query: type[Query] = Query
    content_type: str = JSON
    problems: tuple[int, ...] = ()  # beside those that all have
    etag: bool = True  # an answer that the client has is not sent again

    @property
    def is_protected(self) -> bool:
        """Whether it holds what is personal: access is checked, and its rate limited."""
        return self.path.startswith(PROTECTED)


PROTECTED: Final = "/v1/"

ENDPOINTS: Final = (
    Endpoint("/v1/users", "users", FoundUsers, FindUsers, problems=(503,)),
    Endpoint("/v1/users/{id}/profile", "profile", Profile, problems=(404, 503)),
    Endpoint("/v1/users/{id}/recommendations", "recommendations", Recommendations, Recommend, problems=(404, 501, 503)),
    Endpoint("/v1/users/{id}/history", "history", History, Past, problems=(404, 503)),
    Endpoint("/v1/items", "items", Items, FindItems),
    Endpoint("/v1/items/{id}", "item", Item, problems=(404,)),
    Endpoint("/v1/items/{id}/similar", "similar", SimilarItems, Similar, problems=(404, 501)),
    Endpoint("/v1/map", "map", InterestMap, Map, problems=(503,)),
    Endpoint("/v1/quality", "quality", Quality, problems=(501,)),
    Endpoint("/v1/changes", "changes", None, Follow, EVENTS, problems=(503,), etag=False),
    Endpoint("/v1/status", "status", Status, etag=False),
    Endpoint("/healthz", "healthz", Health, problems=(503,), etag=False),
    Endpoint("/readyz", "readyz", Health, problems=(503,), etag=False),
    Endpoint("/metrics", "metrics", None, content_type=TEXT, etag=False),
)
