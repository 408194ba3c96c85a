"""Checks of doors: TLS to the brokers, our own certificate, the HTTP port, and variables that nobody reads."""

import socket
import ssl
import time
from collections.abc import Iterator
from difflib import get_close_matches
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final

import msgspec

from streamer.engine.kafka_clients import addresses, kafka_python_options
from streamer.errors import SettingsError
from streamer.serving.access import require_protection
from streamer.settings import Settings, unknown_variables
from streamer.tools.doctor.finding import Finding, error, note, ok, warning
from streamer.tools.doctor.machine import holder
from streamer.upstream import certificate_of

PROBE_S: Final = 3.0
DAY_S: Final = 86_400
SOON_S: Final = 30 * DAY_S  # certificates are commonly renewed a month ahead: by then somebody forgot

# OpenSSL's verify codes (X509_V_ERR_…) into what to do.
UNTRUSTED: Final = "set STREAMER_SSL_CAFILE to the certificate of the authority that signed the broker's"
NAMES: Final = "connect by a name that is in the certificate, or have one made for the name that you use"
REMEDIES: Final = {
    9: "it begins later: compare the clocks (`date`), or wait",
    10: "have the broker's certificate renewed",
    18: UNTRUSTED,
    19: UNTRUSTED,
    20: UNTRUSTED,
    21: UNTRUSTED,
    62: NAMES,
    64: NAMES,
}


def variables(_settings: Settings) -> Iterator[Finding]:
    """STREAMER_… variables that no setting reads."""
    known = [f"STREAMER_{name.upper()}" for name in Settings.model_fields]
    for name in unknown_variables():
        near = get_close_matches(name, known, n=1)
        yield warning(
            f"{name} is not a setting",
            "it does nothing: the default is in force in place of what was meant",
            f"did you mean {near[0]}?" if near else "take it out; `streamer config show` lists all settings",
        )
    if not unknown_variables():
        yield ok("every STREAMER_ variable is a setting")


def tls(settings: Settings) -> Iterator[Finding]:
    """A handshake with each bootstrap broker, and how long all certificates last."""
    if not settings.security_protocol.endswith("SSL"):
        local = all(host in ("localhost", "127.0.0.1", "::1") for host, _ in addresses(settings))
        yield (
            ok("no TLS")
            if local
            else note(
                f"no TLS ({settings.security_protocol}) to {settings.brokers}",
                "profiles and passwords cross the network readable",
                "set STREAMER_SECURITY_PROTOCOL=SSL or SASL_SSL where the network is not yours alone",
            )
        )
        return
    context: ssl.SSLContext = kafka_python_options(settings)["ssl_context"]
    if settings.ssl_certfile is not None:
        ours = certificate_of(settings.ssl_certfile)
        yield from _lasts(f"our certificate {settings.ssl_certfile}", ours, "we")
    for address in addresses(settings):
        yield from _handshake(address, context)


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> Iterator[Finding]:
    name = f"{address[0]}:{address[1]}"
    try:
        with (
            socket.create_connection(address, timeout=PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as secure,
        ):
            certificate = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as exc:
        remedy = REMEDIES.get(exc.verify_code, UNTRUSTED)
        yield error(f"{name}: certificate refused: {exc.verify_message}", "no client of ours connects", remedy)
    except ssl.SSLError as exc:
        yield error(
            f"{name}: no TLS handshake ({exc.reason or exc})",
            "that port speaks something else, as plain Kafka, or wants a certificate of ours",
            "take the port of the SSL listener; for mutual TLS set STREAMER_SSL_CERTFILE and STREAMER_SSL_KEYFILE",
        )
    except OSError as exc:
        yield error(f"{name} cannot be reached ({exc.strerror or exc})", "one bootstrap broker less", "see `broker`")
    else:
        yield from _lasts(f"the certificate of {name}", certificate, "the broker")


def _lasts(what: str, certificate: dict[str, Any], who: str) -> Iterator[Finding]:
    until = str(certificate.get("notAfter", ""))
    left_s = ssl.cert_time_to_seconds(until) - time.time() if until else SOON_S
    if left_s <= 0:
        yield error(f"{what} expired on {until}", f"{who} will not be believed", "renew it and restart")
    elif left_s < SOON_S:
        yield warning(
            f"{what} expires on {until}, in {left_s / DAY_S:.0f} days", "then nothing connects", "renew it and restart"
        )
    else:
        yield ok(f"{what} is good until {until}")


def http(settings: Settings) -> Iterator[Finding]:
    """Page, API and metrics: who can reach them, under which address, and what the worker there says of itself."""
    wildcard = settings.http_host in ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
    if wildcard and not settings.advertised_url:
        yield error(
            f"STREAMER_HTTP_HOST={settings.http_host} without STREAMER_ADVERTISED_URL",
            "other workers are told that address for our users, and it leads them to themselves",
            "set STREAMER_ADVERTISED_URL to what they reach us by, as http://worker-0.streamer:6066",
        )
    try:
        require_protection(settings)
    except SettingsError as exc:
        yield error(str(exc), "a worker does not start so (exit code 2)", "set it, the same in all workers")
    host = "localhost" if wildcard else settings.http_host
    if holder(settings.data_dir) is None:
        yield from _free(host, settings.http_port)
    else:
        yield from _health(host, settings)


def _free(host: str, port: int) -> Iterator[Finding]:
    try:
        socket.create_connection((host, port), timeout=PROBE_S).close()
    except OSError:
        yield ok(f"port {port} is free")
        return
    yield error(
        f"something listens on {host}:{port}, and no worker of this data directory runs",
        "a worker would not start (exit code 2)",
        "stop it, or set STREAMER_HTTP_PORT",
    )


def _health(host: str, settings: Settings) -> Iterator[Finding]:
    port = settings.http_port
    connection = _connection(host, settings)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        told = msgspec.json.decode(answer.read())
    except (OSError, ValueError, HTTPException) as exc:
        yield warning(
            f"the worker does not answer on {host}:{port} ({exc!r})",
            "it starts, hangs, or listens elsewhere",
            "look at its log; a worker that hangs ends by itself after STREAMER_STALL_MS",
        )
        return
    finally:
        connection.close()
    if answer.status == HTTPStatus.OK:
        yield ok(f"the worker on {host}:{port} is ready")
    else:
        yield note(f"the worker on {host}:{port} is not ready: {told.get('reason') or told.get('detail')}")


def _connection(host: str, settings: Settings) -> HTTPConnection:
    """To our own port, whose certificate is for the name that others use."""
    if settings.http_tls_cert is None:
        return HTTPConnection(host, settings.http_port, timeout=PROBE_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection(host, settings.http_port, timeout=PROBE_S, context=context)
