"""A process under test: on its own core, under a guard that ends it when we are gone, watched from outside."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self, cast

import psutil
from prometheus_client.parser import text_string_to_metric_families

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools import kafka_guard
from streamer.tools.bench.cores import pinned
from streamer.tools.demo_worker import LOG_LINES, environment

STOP_S = 30.0  # the worker drains within this, or is ended by force
PATIENCE_S = 600.0  # for a whole backlog: twenty times what it takes
FROZEN_MS = 120_000  # session time-out of a worker that is frozen while its backlog is loaded: some seconds
LOOK_S = 0.05  # between two questions: a few milliseconds of the broker's core each
ANSWER_S = 10.0  # a busy event loop answers between two batches
Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def python(module: str, *arguments: str) -> list[str]:
    """A command line of one of our modules."""
    return [sys.executable, "-m", module, *arguments]


WORKER = python("streamer", "worker")


class Peer:
    """A command with `settings`, and `variables` more, as its environment; stdout and stderr go to `log`.

    At the end it gets SIGTERM, and when it has not ended `stop_s` later, SIGKILL.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        log: Path,
        core: int | None,
        variables: Mapping[str, str] = MappingProxyType({}),
        stop_s: float = STOP_S,
    ) -> None:
        self._log, self._settings, self._stop_s = log, settings, stop_s
        assignments = [f"{name}={value}" for name, value in {**environment(settings), **variables}.items()]
        guard = [sys.executable, str(kafka_guard.__file__), str(os.getpid()), str(stop_s)]
        with log.open("wb") as file, pinned(core):
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*guard, "env", *assignments, *command],  # `env` becomes the command: the process id stays
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        with cast("IO[bytes]", self._process.stdout) as pipe:
            self.pid = int(pipe.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast("IO[bytes]", self._process.stdin).close()
        try:
            self._process.wait(self._stop_s + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still inside; Kafka waits for it as long as its `session_timeout_ms`."""
        process = psutil.Process(self.pid)
        process.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def check(self) -> None:
        """Raise StreamerError with the end of the log when it has ended badly."""
        code = self._process.poll()
        if code:
            lines = "\n".join(f"  {line}" for line in self.log().splitlines()[-LOG_LINES:])
            raise StreamerError(f"the process under test ended with exit code {code}. The end of its log:\n{lines}")

    def ended(self) -> bool:
        """Whether it is done. Raises StreamerError when it ended badly."""
        self.check()
        return self._process.poll() is not None

    def log(self) -> str:
        """All that it printed so far."""
        return self._log.read_text("utf-8", "replace")

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far; NaN once it has ended."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.NoSuchProcess:
            return float("nan")
        return float(times.user + times.system)

    def resident_mb(self) -> float:
        """Resident memory in MiB; NaN once it has ended."""
        try:
            return float(psutil.Process(self.pid).memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            return float("nan")

    def samples(self) -> Samples:
        """The worker's metrics by name and labels; empty while its HTTP server does not answer."""
        url = f"http://{self._settings.http_host}:{self._settings.http_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
                text = answer.read().decode()
        except (OSError, HTTPException):
            return {}
        families = text_string_to_metric_families(text)
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def wait_for(peer: Peer, pattern: str, patience_s: float) -> re.Match[str]:
    """The first match in what a peer prints. Raises StreamerError when it ends or takes longer."""
    give_up_s = time.monotonic() + patience_s
    while (found := re.search(pattern, peer.log())) is None:
        if peer.ended() or time.monotonic() > give_up_s:
            raise StreamerError(f"{pattern!r} was not printed. The log:\n{peer.log()}")
        time.sleep(0.02)
    return found


def until(peer: Peer, done: Callable[[], bool], patience_s: float = PATIENCE_S, look_s: float = LOOK_S) -> None:
    """Ask again and again. Raises StreamerError when the peer ends badly or it takes longer."""
    give_up_s = time.monotonic() + patience_s
    while not done():
        peer.check()
        if time.monotonic() > give_up_s:
            raise StreamerError(f"no end after {patience_s:.0f} s. The log:\n{peer.log()}")
        time.sleep(look_s)


def has_learned(peer: Peer) -> bool:
    """Whether a worker has learned from every signal that there is. It commits that seconds later, with its items."""
    samples = peer.samples()
    return bool(samples) and total(samples, "streamer_lag_records", topic="item-signals") == 0


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over all samples with these labels."""
    return sum(v for (n, have), v in samples.items() if n == name and labels.items() <= dict(have).items())
