"""The demo's worker: a process of its own, watched from outside through its HTTP API and its log."""

import http.client
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from streamer.errors import StreamerError
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools import kafka_guard

STOP_S = 30.0  # a worker drains within this, or is ended by force
ANSWER_S = 2.0  # on loopback: longer and the next look is due
LOG_LINES = 25  # of the log are shown when the worker died: enough for a traceback
USER_EVENTS = frozenset(kind.name for kind in KINDS)


class Counts(NamedTuple):
    """What a worker has taken in since it started: user events whatever became of them, and rejects of all kinds."""

    events: int = 0
    rejected: int = 0


class WorkerProcess:
    """`streamer worker` under a guard that stops it when we are gone, however we end."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.url = f"http://{_reachable(settings.http_host)}:{settings.http_port}"
        self._log = log
        guard = [sys.executable, str(kafka_guard.__file__), str(os.getpid()), str(STOP_S)]
        with log.open("wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*guard, sys.executable, "-m", "streamer", "worker"],
                env=os.environ | environment(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for us: we stop the worker in our own order
            )

    def check(self) -> None:
        """Raise StreamerError with the end of the log when the worker has ended."""
        code = self._process.poll()
        if code is not None:
            raise StreamerError(
                f"the worker ended by itself with exit code {code}. The end of its log:\n{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """The last lines of the log, indented."""
        lines = self._log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (empty)"

    def is_ready(self) -> bool:
        """Whether it answers for its partitions."""
        return self._get("/readyz") is not None

    def counts(self) -> Counts | None:
        """From its metrics; None when it does not answer just now."""
        text = self._get("/metrics")
        return None if text is None else parse_counts(text)

    def stop(self) -> int:
        """SIGTERM, then force after STOP_S; the exit code. Stopping twice is fine."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # the guard's sign; SIGTERM to it as well would reach the worker twice
        try:
            return self._process.wait(STOP_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=ANSWER_S) as answer:  # noqa: S310 - our own address
                body: bytes = answer.read()
        except (OSError, http.client.HTTPException):  # an HTTP error (not ready, say) is an OSError too
            return None
        return body.decode()


def parse_counts(text: str) -> Counts:
    """Counts from a worker's metrics in Prometheus' text form."""
    outcomes: Counter[tuple[bool, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "streamer_events_total":
                outcomes[sample.labels["type"] in USER_EVENTS, sample.labels["outcome"]] += int(sample.value)
    events = sum(count for (of_user, _), count in outcomes.items() if of_user)
    return Counts(events, outcomes[True, "rejected"] + outcomes[False, "rejected"])


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables; secrets, and what is not set, a worker finds where we found them."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {
        f"STREAMER_{name.upper()}": str(value)
        for name, value in values.items()
        if value is not None and not isinstance(value, SecretStr)
    }


def free_port(host: str, wanted: int) -> int:
    """`wanted` where nobody listens on it, else any free port."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just given up is free
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StreamerError(f"no port is free on {host}: set STREAMER_HTTP_HOST to an address of this machine")


def _reachable(host: str) -> str:
    """How a browser here reaches a worker that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
