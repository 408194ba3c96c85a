"""TLS as settings: the server's side, and ours where we ask another worker.

With STREAMER_HTTP_TLS_CLIENT_CA a client may show a certificate of that authority. It is not asked for in the handshake
of everyone, but by `access.check` for what is personal: an orchestrator's probes and Prometheus have none.
"""

import ssl

from streamer.errors import SettingsError
from streamer.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """How we listen; None without TLS. Raises SettingsError for files that are no certificate or key."""
    if settings.http_tls_cert is None:
        return None
    context = _with_certificate(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), settings)
    if settings.http_tls_client_ca is not None:
        _trust(context, settings)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """How we ask another worker, which has settings like ours; None without TLS. Raises SettingsError."""
    if settings.http_tls_cert is None:
        return None
    context = _with_certificate(ssl.create_default_context(), settings)
    if settings.http_tls_client_ca is not None:
        _trust(context, settings)  # beside the system's: one authority of our own commonly signs both sides
    return context


def _with_certificate(context: ssl.SSLContext, settings: Settings) -> ssl.SSLContext:
    cert, key = settings.http_tls_cert, settings.http_tls_key
    try:
        context.load_cert_chain(str(cert), str(key))
    except OSError as exc:  # ssl.SSLError is one
        raise SettingsError(
            f"STREAMER_HTTP_TLS_CERT={cert} and STREAMER_HTTP_TLS_KEY={key} are no certificate and its key ({exc})"
        ) from None
    return context


def _trust(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        context.load_verify_locations(str(settings.http_tls_client_ca))
    except OSError as exc:
        raise SettingsError(
            f"STREAMER_HTTP_TLS_CLIENT_CA={settings.http_tls_client_ca} holds no certificates ({exc})"
        ) from None
