"""Access tokens for SASL/OAUTHBEARER: client credentials (RFC 6749, 4.4) at a token endpoint, kept until they grow old.

Both Kafka libraries ask for a token whenever they connect, and brokers end a connection when its token expires; so a
token is asked for again when a fifth of its life is left, and an endpoint that is away for a while stops nobody.
"""

import base64
import json
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from threading import Lock
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode
from urllib.request import Request, urlopen

import structlog
from kafka.errors import KafkaConnectionError
from kafka.net.sasl.oauth import AbstractTokenProvider

from streamer.errors import BrokerError, SettingsError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

ANSWER_S: Final = 10.0  # an endpoint answers within a second; longer than this, brokers give the connection up
YOUNG: Final = 0.8  # of a token's life
UNSAID_S: Final = 60.0  # the life of a token whose endpoint does not say it
SAID_CHARS: Final = 200  # of an error's description
MAY_PASS: Final = frozenset({408, 429})  # statuses below 500 that another attempt may get past


class TokenError(BrokerError):
    """No token could be had: the endpoint is away, or answers with something else. It may be back later."""


class RefusedError(TokenError):
    """The endpoint does not give this client a token. Check id, secret and scope."""


class Tokens:
    """The access token of one client; threads may share it. `clock` counts in seconds.

    Raises SettingsError when the endpoint's certificate authority cannot be read.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = Lock()
        self._token = ""
        self._old_at = self._ends_at = 0.0
        try:
            self._tls = ssl.create_default_context(cafile=settings.sasl_oauth_cafile)
        except OSError as exc:  # ssl.SSLError is one too
            raise SettingsError(
                f"STREAMER_SASL_OAUTH_CAFILE={settings.sasl_oauth_cafile}: cannot be read as certificates: {exc}"
            ) from exc

    def token(self) -> str:
        """One that is young, or at least still good where the endpoint gives none. Raises TokenError."""
        with self._lock:
            now = self._clock()
            if now < self._old_at:
                return self._token
            try:
                token, life_s = self._ask()
            except TokenError as exc:
                if now >= self._ends_at:
                    raise
                log.warning(
                    "no new token, going on with the old one", left_s=round(self._ends_at - now), reason=str(exc)
                )
                return self._token
            self._token, self._old_at, self._ends_at = token, now + YOUNG * life_s, now + life_s
            return token

    def _ask(self) -> tuple[str, float]:
        """A new token and its life in seconds."""
        settings = self._settings
        try:
            with urlopen(self._request(), timeout=ANSWER_S, context=self._tls) as answer:  # noqa: S310 - http(s) only
                body = json.loads(answer.read())
            return str(body["access_token"]), float(body.get("expires_in") or UNSAID_S)
        except HTTPError as exc:
            kind = TokenError if exc.code >= 500 or exc.code in MAY_PASS else RefusedError
            raise kind(
                f"{settings.sasl_oauth_token_url} gives client {settings.sasl_oauth_client_id!r} no token:"
                f" {_said(exc)}. Check STREAMER_SASL_OAUTH_CLIENT_ID, …_CLIENT_SECRET and …_SCOPE"
            ) from exc
        except (OSError, HTTPException) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise TokenError(
                f"no token endpoint at {settings.sasl_oauth_token_url}: {reason}. Check STREAMER_SASL_OAUTH_TOKEN_URL"
            ) from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise TokenError(
                f"{settings.sasl_oauth_token_url} answers with no token: check STREAMER_SASL_OAUTH_TOKEN_URL"
            ) from exc

    def _request(self) -> Request:
        settings = self._settings
        pair = (settings.sasl_oauth_client_id, settings.sasl_oauth_client_secret.get_secret_value())
        login = base64.b64encode(":".join(map(quote_plus, pair)).encode()).decode()
        form = {"grant_type": "client_credentials"}
        if settings.sasl_oauth_scope:
            form["scope"] = settings.sasl_oauth_scope
        headers = {"Authorization": f"Basic {login}", "Accept": "application/json"}
        return Request(settings.sasl_oauth_token_url, urlencode(form).encode(), headers)  # noqa: S310 - http(s) only


def _said(exc: HTTPError) -> str:
    """Status and OAuth's own words (RFC 6749, 5.2), where the answer has them."""
    try:
        body = json.loads(exc.read())
        words = [str(body[name]) for name in ("error", "error_description") if name in body]
    except (ValueError, TypeError, OSError):
        words = []
    return ": ".join([str(exc.code), *words])[:SAID_CHARS]


@lru_cache(maxsize=8)
def tokens(settings: Settings) -> Tokens:
    """One for all clients of a process."""
    return Tokens(settings)


class KafkaPythonTokens(AbstractTokenProvider):
    """As kafka-python takes them; a failure counts as a connection that could not be made."""

    def __init__(self, source: Tokens) -> None:
        super().__init__()
        self._source = source

    def token(self) -> Any:
        """A token."""
        try:
            return self._source.token()
        except TokenError as exc:
            raise KafkaConnectionError(str(exc)) from exc
