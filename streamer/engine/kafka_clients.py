"""How we reach the brokers: settings into client options, an admin client, and the wait for a broker that is not there.

The mappings are pure but for certificates, which are read from disk. Both client libraries retry for ever and tell why
only in their logs: here the reason becomes an error that a person can act on.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, RequestTimedOutError, SaslAuthenticationFailedError

from streamer.engine import oauth
from streamer.errors import BrokerError, SettingsError
from streamer.settings import Settings
from streamer.upstream import AdminConnection

log = structlog.get_logger(__name__)


class _NoAnswerError(Exception):
    """No Kafka answers at any of the addresses; the message says why."""


PROBE_S = 3.0  # a broker in the same region answers within milliseconds: longer is an address that drops packets
BOOTSTRAP_MS = 10_000  # covers a broker that accepts connections while it still loads its logs
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # soon enough for a demo that starts, gentle on a cluster that recovers
SAY_EVERY_S = 5.0  # a line for each attempt would bury everything else


def aiokafka_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes. Raises SettingsError for certificates that do not load."""
    options = _common(settings) | _tls(settings) | _sasl(settings)
    if _has_tokens(settings):
        from streamer.engine.oauth_aiokafka import AiokafkaTokens  # here: `streamer.client` does without aiokafka

        options["sasl_oauth_token_provider"] = AiokafkaTokens(oauth.tokens(settings))
    return options


def kafka_python_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every kafka-python client takes. Raises SettingsError as `aiokafka_options` does."""
    options = _common(settings) | _tls(settings) | _sasl(settings) | {"bootstrap_timeout_ms": BOOTSTRAP_MS}
    if _has_tokens(settings):
        options["sasl_oauth_token_provider"] = oauth.KafkaPythonTokens(oauth.tokens(settings))
    return options


def addresses(settings: Settings) -> list[tuple[str, int]]:
    """Host and port of every bootstrap broker, IPv6 hosts without their brackets."""
    pairs = (name.rpartition(":") for name in _names(settings))
    return [(host.strip("[]"), int(port)) for host, _, port in pairs]


def wait_for_broker(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once a broker answers; `clock` and `sleep` count in seconds.

    Raises BrokerError after `broker_wait_ms` (0: never), and at once when a broker refuses our credentials.
    """
    start, said, pause = clock(), -SAY_EVERY_S, FIRST_PAUSE_S
    while (problem := _problem(settings)) is not None:
        waited = clock() - start
        left = settings.broker_wait_ms / 1000 - waited if settings.broker_wait_ms else LONGEST_PAUSE_S
        if left <= 0:
            raise _not_there(settings, f"{problem} (waited {waited:.0f} s)")
        if waited - said >= SAY_EVERY_S:
            log.warning("no broker yet, trying again", brokers=settings.brokers, reason=problem, waited_s=round(waited))
            said = waited
        sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_S)


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A connected admin client, closed at the end; one attempt. Raises BrokerError for what Kafka does not grant."""
    try:
        client = _connect(settings)
    except _NoAnswerError as exc:
        raise _not_there(settings, str(exc)) from exc
    try:
        yield client
    except KafkaError as exc:
        raise BrokerError(f"Kafka at {settings.brokers} did not do what we asked: {exc}") from exc
    finally:
        client.close()


def _names(settings: Settings) -> list[str]:
    return [name.strip() for name in settings.brokers.split(",")]


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap_servers": _names(settings),
        "client_id": settings.source.replace("/", "-"),  # it becomes part of metric names, where / separates
        "security_protocol": settings.security_protocol,
    }


def _sasl(settings: Settings) -> dict[str, Any]:
    """All but the provider of tokens, of which each library has its own kind."""
    if not settings.security_protocol.startswith("SASL"):
        return {}
    if settings.sasl_mechanism == "OAUTHBEARER":
        return {"sasl_mechanism": settings.sasl_mechanism}
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def _has_tokens(settings: Settings) -> bool:
    return settings.security_protocol.startswith("SASL") and settings.sasl_mechanism == "OAUTHBEARER"


def _tls(settings: Settings) -> dict[str, Any]:
    if not settings.security_protocol.endswith("SSL"):
        return {}
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except OSError as exc:  # ssl.SSLError is one too
        raise SettingsError(
            f"STREAMER_SSL_CAFILE={settings.ssl_cafile}: cannot be read as certificates: {exc}"
        ) from exc
    if settings.ssl_certfile is not None:
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
        except OSError as exc:
            pair = f"STREAMER_SSL_CERTFILE={settings.ssl_certfile}, STREAMER_SSL_KEYFILE={settings.ssl_keyfile}"
            raise SettingsError(f"{pair}: not a certificate and its key: {exc}") from exc
    return {"ssl_context": context}


def _not_there(settings: Settings, problem: str) -> BrokerError:
    return BrokerError(
        f"no broker at {settings.brokers}: {problem}. Start Kafka (`streamer kafka` runs one here),"
        " or set STREAMER_BROKERS to where it is"
    )


def _problem(settings: Settings) -> str | None:
    """Why no broker can be used right now, or None when one answers."""
    try:
        _require_login(settings)
        _connect(settings).close()
    except _NoAnswerError as exc:
        return str(exc)
    return None


def _require_login(settings: Settings) -> None:
    """Raise BrokerError at once for refused credentials. What else goes wrong is for `_connect` to tell.

    aiokafka hears a refusal always; kafka-python loses it where it reads it together with the end of the connection,
    over TLS mostly, and tries again until BOOTSTRAP_MS are over.
    """
    if not settings.security_protocol.startswith("SASL"):
        return
    from aiokafka.errors import KafkaError as AiokafkaError  # here: `streamer.client` does without aiokafka
    from aiokafka.errors import SaslAuthenticationFailed

    _require_token(settings)
    try:
        asyncio.run(_log_in(settings, _listening(settings)))
    except SaslAuthenticationFailed as exc:
        raise _refused(settings, exc) from exc
    except (AiokafkaError, OSError) as exc:
        log.debug("no login", reason=repr(exc))


async def _log_in(settings: Settings, address: str) -> None:
    from aiokafka.conn import create_conn

    options = aiokafka_options(settings)
    del options["bootstrap_servers"]
    host, _, port = address.rpartition(":")
    connection = await create_conn(host.strip("[]"), int(port), **options, request_timeout_ms=BOOTSTRAP_MS)
    await connection.close()


def _listening(settings: Settings) -> str:
    """The first bootstrap address that takes a connection. Raises _NoAnswerError with the last reason when none does.

    Asked first because it costs nothing: kafka-python retries in the background and hides the reason.
    """
    reason = ""
    for name, address in zip(_names(settings), addresses(settings), strict=True):
        try:
            socket.create_connection(address, timeout=PROBE_S).close()
        except OSError as exc:
            reason = exc.strerror or str(exc)
        else:
            return name
    raise _NoAnswerError(reason)


class _Reasons(logging.Handler):
    """Keeps why kafka-python could not connect: it logs that, and what it raises in the end is a time-out without it.

    Time-outs say nothing, and refused credentials are not forgotten for what the next attempt meets.
    """

    last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(self.last, SaslAuthenticationFailedError):
            return
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, Exception) and not isinstance(argument, KafkaTimeoutError | RequestTimedOutError):
                self.last = argument


@contextmanager
def _reasons() -> Iterator[_Reasons]:
    """Listen to kafka-python's log, and keep it from being printed, while we connect."""
    logger, handler = logging.getLogger("kafka"), _Reasons(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def _connect(settings: Settings) -> KafkaAdminClient:
    """One attempt at an admin client. Raises _NoAnswerError with the reason, BrokerError for refused credentials."""
    _require_token(settings)
    made: list[AdminConnection] = []

    def keep(**config: Any) -> AdminConnection:
        made.append(AdminConnection(**config))
        return made[-1]

    options = kafka_python_options(settings) | {"bootstrap_servers": [_listening(settings)]}
    with _reasons() as reasons:
        try:
            return KafkaAdminClient(kafka_client=keep, **options)
        except KafkaError as exc:
            for client in made:  # a client that fails to start leaves its thread and sockets behind
                with suppress(KafkaError):
                    client.close()
            reason = reasons.last or exc
            if isinstance(reason, SaslAuthenticationFailedError):
                raise _refused(settings, reason) from exc
            hangs = ", or it starts or hangs" if isinstance(reason, KafkaTimeoutError) else ""
            raise _NoAnswerError(
                f"something listens, but not with STREAMER_SECURITY_PROTOCOL={settings.security_protocol}"
                f"{_or_refuses(settings)}{hangs} ({reason})"
            ) from exc


def _require_token(settings: Settings) -> None:
    """Have a token first, where there has to be one: the libraries would only say that they could not connect."""
    if _has_tokens(settings):
        try:
            oauth.tokens(settings).token()
        except oauth.RefusedError:
            raise
        except oauth.TokenError as exc:
            raise _NoAnswerError(str(exc)) from exc


def _or_refuses(settings: Settings) -> str:
    """A broker says no and hangs up: kafka-python loses the words where it reads both at once, over TLS mostly."""
    return f", or it refuses {_who(settings)}" if settings.security_protocol.startswith("SASL") else ""


def _who(settings: Settings) -> str:
    if settings.sasl_mechanism == "OAUTHBEARER":
        return f"the token of client {settings.sasl_oauth_client_id!r}"
    return f"user {settings.sasl_username!r} ({settings.sasl_mechanism})"


def _refused(settings: Settings, reason: Exception) -> BrokerError:
    check = "STREAMER_SASL_USERNAME, STREAMER_SASL_PASSWORD and STREAMER_SASL_MECHANISM"
    if settings.sasl_mechanism == "OAUTHBEARER":
        check = "STREAMER_SASL_OAUTH_SCOPE, and which tokens the brokers take"
    return BrokerError(f"{settings.brokers} refuses {_who(settings)}: {reason}. Check {check}")
