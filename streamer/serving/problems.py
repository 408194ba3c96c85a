"""Errors on the wire: problem+json (RFC 9457). Says what is wrong and what to do, never what is inside."""

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the RFC's word
    """An answer that is an error. `kind` names it for programs, `detail` says to people what to do."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = HTTPStatus(status), kind, detail
        self.headers, self.more = {"Cache-Control": "no-store", **(headers or {})}, more

    def response(self) -> web.Response:
        """The answer as problem+json; `more` are its extension members."""
        body = {
            "type": f"urn:streamer:problem:{self.kind}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            **self.more,
        }
        return web.Response(
            status=self.status, body=msgspec.json.encode(body), content_type=CONTENT_TYPE, headers=self.headers
        )


def unavailable(reason: str, retry_after_s: float) -> Problem:
    """503 with Retry-After, in whole seconds as HTTP wants them, at least one."""
    seconds = max(1, round(retry_after_s))
    return Problem(503, "not-ready", reason, headers={"Retry-After": str(seconds)})


def of_http(exc: web.HTTPException) -> Problem:
    """What aiohttp's router says, in our words."""
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return Problem(405, "method-not-allowed", f"Use {allowed}.", headers={"Allow": allowed})
    if exc.status == HTTPStatus.NOT_FOUND:
        return Problem(404, "no-such-route", "There is nothing at this address. The page is at /.")
    return Problem(exc.status, "http", exc.reason or HTTPStatus(exc.status).phrase)
