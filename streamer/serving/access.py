"""Who may ask, and what a browser may do with the answer.

On loopback a page of any site could reach us through a name of its own that points at 127.0.0.1 (DNS rebinding): so
there only our own names are answered. With `http_token` set, everything under /v1/ needs it; health, metrics and the
page's own files hold nothing personal.
"""

import hmac
import ipaddress

from aiohttp import web
from yarl import URL

from streamer.serving.problems import Problem
from streamer.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Server": "streamer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is out of the network's reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(request: web.Request, settings: Settings) -> None:
    """Raise a Problem when this request must not be answered."""
    if is_loopback(settings.http_host) and _name(request.host) not in _own_names(settings):
        raise Problem(421, "unknown-host", f"This worker does not answer to the name {request.host!r}.")
    if request.path.startswith("/v1/") and not _has_token(request, settings):
        raise Problem(
            401,
            "token-needed",
            "Send the header `Authorization: Bearer …` with the token of STREAMER_HTTP_TOKEN.",
            headers={"WWW-Authenticate": 'Bearer realm="streamer"'},
        )


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler of aiohttp: the security headers, on every answer."""
    response.headers.update(SECURITY_HEADERS)


def _has_token(request: web.Request, settings: Settings) -> bool:
    token = settings.http_token.get_secret_value()
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    return not token or (scheme.lower() == "bearer" and same)


def _own_names(settings: Settings) -> frozenset[str]:
    advertised = URL(settings.advertised_url).host or settings.http_host
    return LOOPBACK_NAMES | {settings.http_host, advertised}


def _name(host: str) -> str:
    """The name in a Host header, without its port; empty when it is not one."""
    try:
        return URL(f"//{host}").host or ""
    except ValueError:
        return ""
