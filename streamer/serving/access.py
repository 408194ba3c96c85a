"""Who may ask, and what a browser may do with the answer.

On loopback a page of any site could reach us through a name of its own that points at 127.0.0.1 (DNS rebinding): so
there only our own names are answered. With `http_token` set, everything under /v1/ needs it, and with
`http_tls_client_ca` a certificate of that authority; both where both are set. Health, metrics, the API's description
and the page's own files hold nothing personal.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from functools import lru_cache

from aiohttp import web
from faust.types.web import ResourceOptions
from yarl import URL

from streamer.errors import SettingsError
from streamer.serving.endpoints import PROTECTED
from streamer.serving.problems import Problem
from streamer.settings import Settings, split

FORWARDED = "X-Streamer-Forwarded"  # on a question that is passed on already: never passed on twice
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


@lru_cache
def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is out of the network's reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_protection(settings: Settings) -> None:
    """Raise SettingsError when everybody on the network could read profiles."""
    protected = settings.http_token.get_secret_value() or settings.http_tls_client_ca is not None
    if not is_loopback(settings.http_host) and not protected:
        raise SettingsError(
            f"anyone on the network could read profiles at {settings.http_host}: set STREAMER_HTTP_TOKEN,"
            " or STREAMER_HTTP_TLS_CLIENT_CA for mutual TLS, or STREAMER_HTTP_HOST=127.0.0.1"
        )


def check(request: web.Request, settings: Settings) -> None:
    """Raise a Problem when this request must not be answered."""
    host = settings.http_host
    if is_loopback(host) and _name(request.host) not in _own_names(settings.advertised_url, host):
        raise Problem(421, "unknown-host", f"This worker does not answer to the name {request.host!r}.")
    if not request.path.startswith(PROTECTED) or request.method == "OPTIONS":
        return  # a browser asks with OPTIONS whether it may ask at all, and shows nothing when it does
    if settings.http_tls_client_ca is not None and not request.get_extra_info("peercert"):
        authority = "Show a client certificate of the authority of STREAMER_HTTP_TLS_CLIENT_CA."
        raise Problem(403, "certificate-needed", authority)
    if not _has_token(request, settings):
        raise Problem(
            401,
            "token-needed",
            "Send the header `Authorization: Bearer …` with the token of STREAMER_HTTP_TOKEN.",
            headers={"WWW-Authenticate": 'Bearer realm="streamer"'},
        )


def voucher(request: web.Request, settings: Settings) -> str:
    """The value of FORWARDED: that a holder of the token asks for this very address. Proves nothing without a token."""
    token, address = _bytes(settings.http_token.get_secret_value()), _bytes(request.rel_url.raw_path_qs)
    return hmac.digest(token, address, "sha256").hex()


def is_vouched_for(request: web.Request, settings: Settings) -> bool:
    """Whether a worker passes this question on, and counted it; without a token anybody could say so."""
    given = request.headers.get(FORWARDED)
    if given is None or not settings.http_token.get_secret_value():
        return False
    return hmac.compare_digest(_bytes(given), voucher(request, settings).encode())


def add_headers(settings: Settings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal handler of aiohttp: on every answer the security headers, and who answered where nobody says it yet."""
    more = {**SECURITY_HEADERS, "Vary": "Origin"} if settings.http_cors else SECURITY_HEADERS
    source = settings.source

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(more)
        response.headers.setdefault("X-Answered-By", source)

    return add


def cors_options(settings: Settings) -> dict[str, ResourceOptions]:
    """What pages of which other sites may do, for Faust."""
    return {
        origin: ResourceOptions(
            allow_headers=("Authorization", "If-None-Match", "Last-Event-ID"),
            allow_methods=("GET",),
            expose_headers=("ETag", "Retry-After", "X-Answered-By", "X-Profile-Age"),
            max_age=600,
        )
        for origin in split(settings.http_cors)
    }


def _has_token(request: web.Request, settings: Settings) -> bool:
    token = settings.http_token.get_secret_value()
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(_bytes(given.strip()), _bytes(token))
    return not token or (scheme.lower() == "bearer" and same)


def _bytes(text: str) -> bytes:
    """As it came over the wire: aiohttp keeps what is not UTF-8 as lone surrogates."""
    return text.encode(errors="surrogateescape")


@lru_cache
def _own_names(advertised_url: str, http_host: str) -> frozenset[str]:
    return LOOPBACK_NAMES | {http_host, URL(advertised_url).host or http_host}


def _name(host: str) -> str:
    """The name in a Host header, without its port; empty when it is not one."""
    try:
        return URL(f"//{host}").host or ""
    except ValueError:
        return ""
