"""Errors on the wire: problem+json (RFC 9457). Says what is wrong and what to do, never what is inside."""

from http import HTTPStatus

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as RFC 9457 has it. `type` names it for programs, `detail` says to people what to do.

    `instance` refers to the worker's log, where the fault is its own.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None


class Problem(Exception):  # noqa: N818 - the RFC's word
    """An answer that is an error. `kind` names it for programs, `detail` says to people what to do."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        instance: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.instance = HTTPStatus(status), kind, detail, instance
        self.headers = {"Cache-Control": "no-store", **(headers or {})}

    def response(self) -> web.Response:
        """The answer as problem+json."""
        kind, status = f"urn:streamer:problem:{self.kind}", self.status
        body = ProblemBody(kind, status.phrase, status.value, self.detail, self.instance)
        return web.Response(
            status=status, body=msgspec.json.encode(body), content_type=CONTENT_TYPE, headers=self.headers
        )


def unavailable(reason: str, retry_after_s: float) -> Problem:
    """503 with Retry-After."""
    return Problem(503, "not-ready", reason, headers=retry_after(retry_after_s))


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to ask again: in whole seconds as HTTP wants them, at least one."""
    return {"Retry-After": str(max(1, round(seconds)))}


def of_http(exc: web.HTTPException) -> Problem:
    """What aiohttp's router says, in our words."""
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return Problem(405, "method-not-allowed", f"Use {allowed}.", headers={"Allow": allowed})
    if exc.status == HTTPStatus.NOT_FOUND:
        return Problem(404, "no-such-route", "There is nothing at this address. The page is at /.")
    return Problem(exc.status, "http", exc.reason or HTTPStatus(exc.status).phrase)
