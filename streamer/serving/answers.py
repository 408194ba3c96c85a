"""Answers: structs as JSON, with what a client needs to know whether it has them already."""

import time

import msgspec
import xxhash
from aiohttp import ETag, web

from streamer.serving.endpoints import Health
from streamer.serving.problems import unavailable
from streamer.serving.view import ProfileJson

PRIVATE = "private, no-cache"  # kept by the client that asked only, and asked for again each time


def of_profile(request: web.Request, profile: ProfileJson) -> web.Response:
    """Weak ETag from version, newest event and number of events.

    A change too small to be published makes no new version, and a late event is not the newest.
    """
    etag = ETag(f"{profile.version}.{profile.as_of}.{profile.events}", is_weak=True)
    response = _unless_known(request, etag, profile.value)
    age_s = max(0.0, time.time() - profile.as_of / 1000)
    response.headers["X-Profile-Age"] = f"{age_s:.3f}"
    return response


def of_struct(request: web.Request, value: msgspec.Struct) -> web.Response:
    """With an ETag from what it says."""
    body = msgspec.json.encode(value)
    return _unless_known(request, ETag(xxhash.xxh3_64_hexdigest(body)), body)


def of_moment(value: msgspec.Struct) -> web.Response:
    """What is another thing at each moment, and has no ETag."""
    return _json(msgspec.json.encode(value))


def of_health(*, good: bool, reason: str) -> web.Response:
    """200 with the reason, or Problem 503."""
    if not good:
        raise unavailable(reason, 1)
    return of_moment(Health("ok", reason))


def is_known(request: web.Request, etag: ETag) -> bool:
    """Whether the client has this already."""
    return any(tag.value in (etag.value, "*") for tag in request.if_none_match or ())


def _unless_known(request: web.Request, etag: ETag, body: bytes) -> web.Response:
    known = is_known(request, etag)
    response = web.Response(status=304, headers={"Cache-Control": PRIVATE}) if known else _json(body)
    response.etag = etag
    return response


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": PRIVATE})
