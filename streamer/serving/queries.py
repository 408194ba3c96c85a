"""What may stand behind the question mark of each address: one struct an endpoint, from which OpenAPI is made too."""

from typing import Annotated, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web
from msgspec import Meta

from streamer.events import NAME_CHARS, Id
from streamer.serving.problems import Problem

MAX_ITEMS = 100  # of one question
MAX_RATE = 1000  # changes a second that a live stream of all users can be asked for
MAX_POINTS = 5000  # users on the map

Count = Annotated[int, Meta(ge=1, le=100, description="at most so many")]


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters: one that is not known is a slip of the pen, and is told."""


class Recommend(Query, frozen=True):
    """Of recommendations."""

    n: Count = 20
    tag: Annotated[Id | None, Meta(description="only items with this tag")] = None
    exclude: Annotated[
        Literal["seen", "none"], Meta(description="`seen`: none of the items that the user had lately")
    ] = "seen"
    max_per_category: Annotated[int, Meta(ge=1, le=100, description="at most so many items of one category")] = 100


class Similar(Query, frozen=True):
    """Of similar items."""

    n: Count = 20


class FindUsers(Query, frozen=True):
    """Of users."""

    prefix: Annotated[
        str, Meta(max_length=NAME_CHARS, description="how their ids begin; empty: the newest of all in memory")
    ] = ""
    n: Count = 20


class FindItems(Query, frozen=True, kw_only=True):
    """Of several items."""

    id: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MAX_ITEMS, description="of an item; may be repeated")]


class Past(Query, frozen=True):
    """Of a user's history."""

    n: Annotated[int, Meta(ge=1, le=1000, description="at most so many versions, the newest")] = 100


class Map(Query, frozen=True):
    """Of the map."""

    n: Annotated[int, Meta(ge=1, le=MAX_POINTS, description="at most so many users as points")] = 2000


class Follow(Query, frozen=True):
    """Of live changes."""

    user: Annotated[Id | None, Meta(description="all changes of this user; without it, of everybody")] = None
    rate: Annotated[
        int, Meta(ge=1, le=MAX_RATE, description="of everybody's changes at most so many a second; a person follows 50")
    ] = 50


Q = TypeVar("Q", bound=Query)
LISTS = frozenset({"id"})  # parameters that may be repeated


def parse(request: web.Request, kind: type[Q]) -> Q:
    """The parameters of a request. Raises Problem 400 that says which is wrong, and why."""
    given = request.query
    twice = [name for name in set(given) - LISTS if len(given.getall(name)) > 1]
    if twice:
        raise Problem(400, "bad-query", f"`{twice[0]}` is given more than once.")
    values = {name: given.getall(name) if name in LISTS else given[name] for name in given}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise Problem(400, "bad-query", f"In the query: {exc}.") from None


def id_of(request: web.Request) -> str:
    """The id in the third part of the path. Decoded from what was sent: the router's form leaves %2F ambiguous.

    Raises Problem 400.
    """
    try:
        found = unquote_to_bytes(request.rel_url.raw_path.split("/")[3]).decode()
    except UnicodeDecodeError:
        raise Problem(400, "bad-id", "Ids in addresses are percent-encoded UTF-8.") from None
    if len(found) > NAME_CHARS:
        raise Problem(400, "bad-id", f"An id has at most {NAME_CHARS} characters.")
    return found
