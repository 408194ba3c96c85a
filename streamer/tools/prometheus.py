"""A Prometheus of our own, where the program is installed, and questions to any: for demo, dashboard and tests.

Debian and Ubuntu have it as the package `prometheus`.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self, cast

import msgspec

from streamer.errors import StreamerError
from streamer.tools import kafka_guard
from streamer.tools.kafka_dir import HOST, any_port

ANSWER_S: Final = 30.0
START_S: Final = 60.0  # it takes one, on a machine with nothing else to do
GRACE_S: Final = 10.0
POLL_S: Final = 0.05


class Series(NamedTuple):
    """One series of an answer: its labels, and (Unix seconds, value) in order of time."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]


class _Result(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: tuple[tuple[float, str], ...] = ()


class _Data(msgspec.Struct):
    result: tuple[_Result, ...]


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


def ask(url: str, query: str) -> list[Series]:
    """What a query says now. Raises StreamerError for a Prometheus that does not answer, or not this."""
    return _ask(url, "query", {"query": query})


def ask_range(url: str, query: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
    """What a query said between two times (Unix seconds). Raises as `ask`."""
    return _ask(url, "query_range", {"query": query, "start": start_s, "end": end_s, "step": step_s})


def _ask(url: str, what: str, parameters: Mapping[str, object]) -> list[Series]:
    address = f"{url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S) as response:  # noqa: S310 - what the caller gave us
            body = response.read()
    except urllib.error.HTTPError as exc:
        body = exc.read()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise StreamerError(f"no Prometheus answers at {url} ({exc}): start one, or say where it is") from None
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError:
        raise StreamerError(f"what answers at {url} is not Prometheus: {body[:200]!r}") from None
    if answer.data is None:
        raise StreamerError(f"Prometheus cannot answer {parameters['query']}: {answer.error}")
    return [_series(each) for each in answer.data.result]


def _series(result: _Result) -> Series:
    points = result.values or ((result.value,) if result.value is not None else ())
    return Series(result.metric, [(at, float(value)) for at, value in points])


def is_installed() -> bool:
    """Whether the program is there."""
    return shutil.which("prometheus") is not None


class Prometheus:
    """Prometheus as a context manager: it scrapes every second inside the block, and does not outlive us.

    Args:
        home: an empty directory for its data.
        targets: host:port of workers.
        rules: a file of recording and alerting rules.
    """

    def __init__(self, home: Path, targets: Sequence[str], rules: Path | None = None) -> None:
        self._home = home
        self._port = any_port()
        self._config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules.resolve())] if rules else [],
            "scrape_configs": [{"job_name": "streamer", "static_configs": [{"targets": list(targets)}]}],
        }
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        config = self._home / "prometheus.yml"
        config.write_text(json.dumps(self._config), "utf-8")  # JSON is YAML
        with (self._home / "prometheus.log").open("wb") as log:
            self._guard = subprocess.Popen(  # noqa: S603 - our own guard, and the program that is asked for
                [
                    *(sys.executable, "-I", "-S", kafka_guard.__file__, str(os.getpid()), str(GRACE_S)),
                    *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._home / 'data'}"),
                    f"--web.listen-address={HOST}:{self._port}",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, query: str) -> list[Series]:
        """What a query says now."""
        return ask(self.url, query)

    def _stop(self) -> None:
        cast("IO[bytes]", self._guard.stdin).close()
        self._guard.wait()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._guard.poll() is not None or time.monotonic() > deadline:
                log = (self._home / "prometheus.log").read_text("utf-8", "replace")
                raise StreamerError(f"Prometheus did not start. The end of its log:\n{log[-2000:]}")
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=ANSWER_S).close()  # noqa: S310 - our own address
        except (OSError, http.client.HTTPException):
            return False
        return True
