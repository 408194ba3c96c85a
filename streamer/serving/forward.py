"""Questions about another worker's user: asked there, and the answer passed on, live streams as they come."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import nullcontext

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from streamer.serving import access, tls
from streamer.serving.access import FORWARDED
from streamer.serving.endpoints import EVENTS
from streamer.serving.problems import unavailable
from streamer.serving.stream import MAX_STREAMS, Streams
from streamer.serving.view import NotOwner
from streamer.settings import Settings

ASK_WITH = ("Accept", "Authorization", "If-None-Match", "Last-Event-ID")
ANSWER_WITH = (
    "Cache-Control",
    "Content-Type",
    "ETag",
    "Retry-After",
    "WWW-Authenticate",
    "X-Answered-By",
    "X-Profile-Age",
)
CONNECT_S, ANSWER_S, SILENCE_S = 2, 5, 30  # silence: twice a live stream's heartbeat
CONNECTIONS = MAX_STREAMS + 100  # however many streams are passed on, so many questions find room beside them


def session() -> ClientSession:
    """For Faust, which makes one for the app and closes it."""
    return ClientSession(connector=TCPConnector(limit=CONNECTIONS))


class Forwarder:
    """Asks other workers, which have settings like ours. `session` gives Faust's, which is closed with the app."""

    def __init__(self, session: Callable[[], ClientSession], settings: Settings, streams: Streams) -> None:
        self._session, self._settings, self._streams = session, settings, streams
        self._tls: ssl.SSLContext | bool = tls.client_context(settings) or True

    async def ask(self, request: web.Request, owner: NotOwner, *, live: bool) -> web.StreamResponse:
        """The owner's answer.

        Raises Problem 503 when no owner is known, or it is out of reach, or it asked us, or too many streams are open.
        """
        if owner.owner_url is None or FORWARDED in request.headers:
            raise unavailable("This user's partition is moving to another worker.", 1)
        with self._streams.place(asyncio.current_task()) if live else nullcontext():
            return await self._ask(request, owner.owner_url, live=live)

    async def _ask(self, request: web.Request, owner_url: str, *, live: bool) -> web.StreamResponse:
        url = URL(f"{URL(owner_url).origin()}{request.rel_url.raw_path_qs}", encoded=True)
        timeout = ClientTimeout(total=None if live else ANSWER_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        headers = _headers(request) | {FORWARDED: access.voucher(request, self._settings)}
        try:
            asked = self._session().get(url, headers=headers, timeout=timeout, ssl=self._tls, allow_redirects=False)
            async with asked as answer:
                if answer.content_type == EVENTS:
                    return await _pass_on(request, answer)
                return web.Response(status=answer.status, body=await answer.read(), headers=_answer_headers(answer))
        except (ClientError, TimeoutError) as exc:
            raise unavailable("The worker that owns this user does not answer.", 2) from exc


def _headers(request: web.Request) -> dict[str, str]:
    given = {name: request.headers[name] for name in ASK_WITH if name in request.headers}
    return {**given, "Accept-Encoding": "identity"}


def _answer_headers(answer: ClientResponse) -> dict[str, str]:
    return {name: answer.headers[name] for name in ANSWER_WITH if name in answer.headers}


async def _pass_on(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_answer_headers(answer))
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (ClientError, TimeoutError, ConnectionError):
        _abort(request)  # half an answer must not look like a whole one
    return response


def _abort(request: web.Request) -> None:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
