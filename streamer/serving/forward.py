"""Questions about another worker's user: asked there, and the answer passed on as it comes, live streams too."""

import asyncio

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web
from yarl import URL

from streamer.serving.problems import unavailable
from streamer.serving.view import NotOwner

FORWARDED = "X-Streamer-Forwarded"  # on a question that is passed on already: never passed on twice
ASK_WITH = ("Accept", "Authorization", "If-None-Match", "Last-Event-ID")
ANSWER_WITH = ("Cache-Control", "Content-Type", "ETag", "Retry-After", "X-Answered-By", "X-Profile-Age")
TIMEOUT = ClientTimeout(total=None, sock_connect=2, sock_read=30)  # reading: twice a live stream's heartbeat


async def forward(session: ClientSession, request: web.Request, owner: NotOwner) -> web.StreamResponse:
    """Ask the owner. Raises Problem 503 when none is known, when it is out of reach, or when it asked us."""
    if owner.owner_url is None or FORWARDED in request.headers:
        raise unavailable("This user's partition is moving to another worker.", 1)
    url = URL(owner.owner_url).origin().join(URL(request.raw_path, encoded=True))
    try:
        answer = await session.get(url, headers=_headers(request), timeout=TIMEOUT)
    except (ClientError, TimeoutError) as exc:
        raise unavailable("The worker that owns this user does not answer.", 2) from exc
    async with answer:
        return await _pass_on(request, answer)


def _headers(request: web.Request) -> dict[str, str]:
    given = {name: request.headers[name] for name in ASK_WITH if name in request.headers}
    return {**given, FORWARDED: "1", "Accept-Encoding": "identity"}


async def _pass_on(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    headers = {name: answer.headers[name] for name in ANSWER_WITH if name in answer.headers}
    response = web.StreamResponse(status=answer.status, headers=headers)
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
