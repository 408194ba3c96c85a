"""Live changes as server-sent events (HTML standard, 9.2). One task a reader; all end when the worker stops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from aiohttp import web

from streamer.metrics import HTTP_STREAMS, HTTP_STREAMS_DROPPED
from streamer.serving.feed import Seen, Subscription
from streamer.serving.problems import Problem
from streamer.serving.recent import Change

CONTENT_TYPE = "text/event-stream"
MAX_STREAMS = 100  # each holds a socket and up to 1 MB of queue
HEARTBEAT_S = 15.0  # below the minute after which proxies close a silent connection
WRITE_S = 10.0  # a reader that takes no byte for so long is gone
RETRY_MS = 2000
HEADERS = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
ENDS = {"slow": "read too slowly", "moved": "the user moves to another worker: ask again"}


class Streams:
    """The live streams that are open, our own and those that we pass on."""

    def __init__(self, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s
        self._open: set[asyncio.Task[Any] | None] = set()

    async def serve(self, request: web.Request, reader: Subscription) -> web.StreamResponse:
        """Send what `reader` gets until the client leaves, is too slow, or the worker stops. Raises Problem 503."""
        response = web.StreamResponse(headers=HEADERS)
        task = asyncio.create_task(self._send(request, response, reader))
        try:
            with self.place(task):
                await asyncio.wait([task])
        finally:
            task.cancel()
        return response

    @contextmanager
    def place(self, task: asyncio.Task[Any] | None) -> Iterator[None]:
        """For one stream, whose task is cancelled when the worker stops. Raises Problem 503 when all are taken."""
        if len(self._open) >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} live streams are open, as many as one worker serves."
            raise Problem(503, "too-many-streams", detail, headers={"Retry-After": "10"})
        self._open.add(task)
        HTTP_STREAMS.set(len(self._open))
        try:
            yield
        finally:
            self._open.discard(task)
            HTTP_STREAMS.set(len(self._open))

    async def close(self, _: web.Application) -> None:
        """A signal handler of aiohttp: end all streams, or the server would wait a minute for them."""
        for task in filter(None, self._open):
            task.cancel()

    async def _send(self, request: web.Request, response: web.StreamResponse, reader: Subscription) -> None:
        try:
            await response.prepare(request)
            await _write(response, f"retry: {RETRY_MS}\n\n".encode() + _gap(reader))
            while not reader.is_over:
                change = await reader.next(self._heartbeat_s)
                await _write(response, _skipped(reader) + _event(change))
            await _write(response, _end(reader))
        except (ConnectionError, TimeoutError):
            return  # the client is gone


def seen(event_id: str | None) -> Seen | None:
    """What a client says that it got last, in the header Last-Event-ID; None where it says nothing.

    What was never an id of ours is taken for one that is long gone.
    """
    if not event_id:
        return None
    user_id, _, version = event_id.rpartition("/")
    return Seen(unquote(user_id), int(version) if version.isascii() and version.isdigit() and len(version) < 12 else -1)


async def _write(response: web.StreamResponse, text: bytes) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(text)


def _event(change: Change | None) -> bytes:
    if change is None:
        return b": still here\n\n"
    event_id = f"{quote(change.user_id, safe='')}/{change.version}"
    return b"id: %b\nevent: profile\ndata: %b\n\n" % (event_id.encode(), change.value)


def _skipped(reader: Subscription) -> bytes:
    skipped, reader.skipped = reader.skipped, 0
    return _named("skipped", {"skipped": skipped}) if skipped else b""


def _gap(reader: Subscription) -> bytes:
    """What was missed is gone: whoever follows has to look at the present profile."""
    return _named("gap", {"reason": "what was published meanwhile is not remembered"}) if reader.has_gap else b""


def _end(reader: Subscription) -> bytes:
    if reader.ended == "slow":
        HTTP_STREAMS_DROPPED.inc()
    return _named("dropped", {"reason": ENDS[str(reader.ended)], "skipped": reader.skipped})


def _named(name: str, value: dict[str, str | int]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
