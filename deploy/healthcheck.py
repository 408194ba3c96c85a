"""The image's health check: asks the worker in this container whether it is alive. Exits 0 or 1."""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

PORT = int(os.environ.get("STREAMER_HTTP_PORT", "6066"))
TIMEOUT_S = 4


def connect() -> HTTPConnection:
    """A connection to ourselves. The certificate is for other names than this one, so it is not looked at."""
    if not os.environ.get("STREAMER_HTTP_TLS_CERT"):
        return HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection("127.0.0.1", PORT, timeout=TIMEOUT_S, context=context)


try:
    connection = connect()
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
except (OSError, HTTPException) as exc:
    sys.exit(f"no answer: {exc}")
