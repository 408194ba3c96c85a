"""The demo's worker: a process that comes back when it is killed, watched from outside through its HTTP API."""

import asyncio
import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.supervisor import Supervisor, worker_command

ANSWER_S = 2.0  # on loopback: longer is no answer
SILENT_S = 3.0  # a busy machine may miss one answer; after more than that people want to know
LOOK_S = 0.2  # between two questions: as exact as one can read the answer
DEATHS = 3  # without being ready in between: the next one would not come back either
LOG_LINES = 25  # of the log are shown when the worker died: enough for a traceback


class WorkerProcess:
    """`streamer worker` under a supervisor, as an async context manager: it runs inside the block.

    `say` gets a line for people when it ends and is started again, falls silent, and is ready again.
    """

    def __init__(self, settings: Settings, log: Path, say: Callable[[str], object]) -> None:
        self.url = f"http://{reachable(settings.http_host)}:{settings.http_port}"
        self._settings = settings
        self._log = log
        self._say = say
        self._stop = asyncio.Event()
        self._restarts_when_ready = 0

    async def __aenter__(self) -> Self:
        self._output = self._log.open("ab")
        self._supervisor = Supervisor(
            worker_command(),
            self._say,
            environment=os.environ | environment(self._settings),
            output=self._output,
            also_after=frozenset({0}),  # people who try `kill PID` without -9 mean the same
        )
        self._running = asyncio.create_task(self._supervisor.run(self._stop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            self._output.close()

    @property
    def pid(self) -> int:
        """Of the process that runs now or ran last; 0 before the first."""
        return self._supervisor.pid

    def check(self) -> None:
        """Raise StreamerError with the end of the log when the worker has ended for good or cannot come back."""
        if self._running.done():
            raise self._ended(f"ended by itself with exit code {self._running.result()}")
        deaths = self._supervisor.restarts - self._restarts_when_ready
        if deaths >= DEATHS:
            raise self._ended(f"ended {deaths} times without being ready in between")

    def log_tail(self) -> str:
        """The last lines of the log, indented."""
        lines = self._log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (empty)"

    async def is_ready(self) -> bool:
        """Whether it answers for its partitions."""
        ready = await asyncio.to_thread(_answers, f"{self.url}/readyz")
        if ready:
            self._restarts_when_ready = self._supervisor.restarts
        return ready

    async def attend(self) -> None:
        """Once it was ready: say when it falls silent, and when it or another one is ready again. Cancel it to end."""
        pid, ready_s, silent = self.pid, time.monotonic(), False
        while True:
            await asyncio.sleep(LOOK_S)
            ready, now_s = await self.is_ready(), time.monotonic()
            if ready and (silent or self.pid != pid):
                self._say(f"worker {self.pid} is ready: {now_s - ready_s:.1f} s without one")
            if ready:
                pid, ready_s, silent = self.pid, now_s, False
            elif self.pid == pid and now_s - ready_s > SILENT_S and not silent:
                self._say(f"worker {pid} does not answer")
                silent = True

    async def stop(self) -> int:
        """Drain it, by force where that takes too long; the exit code. Stopping twice is fine."""
        self._stop.set()
        return await self._running

    def _ended(self, how: str) -> StreamerError:
        return StreamerError(f"the worker {how}. The end of its log:\n{self.log_tail()}")


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=ANSWER_S).close()  # noqa: S310 - our own address
    except (OSError, http.client.HTTPException):  # an HTTP error (not ready, say) is an OSError too
        return False
    return True


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


def reachable(host: str) -> str:
    """How a browser here reaches a worker that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
