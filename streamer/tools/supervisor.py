"""`streamer worker --restart`: a worker as a child process that is started again when it crashes or is killed.

Between us and the worker stands a guard (kafka_guard): it stops the worker when we are gone, however we end. What a
worker needs to go on is on its disk and in Kafka: nothing is handed over here.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

import structlog

from streamer.engine.exit import SOFTWARE, TEMPORARY
from streamer.errors import BrokerError
from streamer.tools import kafka_guard
from streamer.tools.stopping import stop_on_signals, stopped_within

log = structlog.get_logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # hardly a gap for those who wait; gentle on a cluster in trouble
HEALTHY_S = 60.0  # who lived so long was well: the next pause is the first one again
STOP_S = 30.0  # a worker drains within this, or is ended by force
GUARD_GRACE_S = STOP_S + 5  # while we live, we end it ourselves
SIGNALLED = 128  # + N: signal N ended it
CRASHES = frozenset({SOFTWARE, TEMPORARY})


class Supervisor:
    """Keeps one worker running. Other ends than crashes and kills are for people and end the supervisor too.

    Args:
        command: starts a worker, in the foreground.
        say: gets a line for each restart.
        environment: of the worker; None: ours.
        output: where the worker's output goes; None: to our standard error.
        also_after: further exit codes after which a worker is started again.
    """

    def __init__(
        self,
        command: Sequence[str],
        say: Callable[[str], object],
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        also_after: frozenset[int] = frozenset(),
    ) -> None:
        self.pid = 0  # of the worker that runs, or ran last
        self.restarts = 0
        self._command = command
        self._say = say
        self._environment = environment
        self._output = output
        self._again_after = CRASHES | also_after

    async def run(self, stop: asyncio.Event) -> int:
        """Until `stop`, which drains the worker (by force after STOP_S), or until one ends for good; its exit code.

        128 + N stands for the end by signal N; 0 also for a worker that our SIGTERM met before it could drain anything.
        """
        pause_s = 0.0
        while True:
            start_s = time.monotonic()
            code = await self._run_one(stop)
            if stop.is_set():
                return 0 if code == SIGNALLED + signal.SIGTERM else code
            if not self._goes_on_after(code):
                return code
            pause_s = pause_after(time.monotonic() - start_s, pause_s)
            self.restarts += 1
            self._say(f"worker {self.pid} {_end(code)}: starting another{_in(pause_s)}; it goes on from its own state")
            if await stopped_within(stop, pause_s):
                return 0

    def _goes_on_after(self, code: int) -> bool:
        """A broker that is not there is for people when we start, and trouble that passes when it was there before."""
        lost_broker = code == BrokerError.exit_code and self.restarts > 0
        return code > SIGNALLED or code in self._again_after or lost_broker

    async def _run_one(self, stop: asyncio.Event) -> int:
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", kafka_guard.__file__, str(os.getpid()), str(GUARD_GRACE_S), *self._command),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._output,
            start_new_session=True,  # Ctrl-C is for us: we stop the worker in our own order
        )
        stopping, ended = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(guard.wait())
        try:
            self.pid = int(await _stdout(guard).readline() or 0)
            await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            code = await _stop(guard)
        return code


def pause_after(lived_s: float, before_s: float) -> float:
    """Seconds until the next start, after a worker that lived `lived_s` and was itself started after `before_s`.

    >>> pause_after(1.0, 0.0), pause_after(1.0, 0.5), pause_after(1.0, 8.0), pause_after(60.0, 8.0)
    (0.5, 1.0, 10.0, 0.5)
    """
    return FIRST_PAUSE_S if lived_s >= HEALTHY_S else min(max(FIRST_PAUSE_S, 2 * before_s), LONGEST_PAUSE_S)


def supervise(command: Sequence[str]) -> int:
    """Keep a worker running until SIGTERM, Ctrl-C or an end that is for people; the exit code."""
    return asyncio.run(_supervise(command))


async def _supervise(command: Sequence[str]) -> int:
    with stop_on_signals() as stop:
        return await Supervisor(command, log.warning).run(stop)


def worker_command(**options: object) -> list[str]:
    """The command line of a worker with these options, without those that are None."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    return [sys.executable, "-m", "streamer", "worker", *given]


async def _stop(guard: asyncio.subprocess.Process) -> int:
    """Let the guard stop the worker, by force after STOP_S; the exit code. Does no harm when both have ended."""
    if guard.stdin is not None:
        guard.stdin.close()  # the guard's sign; SIGTERM to it as well would reach the worker twice
    try:
        code = await asyncio.wait_for(guard.wait(), STOP_S)
    except TimeoutError:
        _kill_all(guard)
        code = await guard.wait()
    if code < 0:  # a guard that was killed leaves its worker behind
        _kill_all(guard)
    return code if code >= 0 else SIGNALLED - code


def _kill_all(guard: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of the dead
        os.killpg(guard.pid, signal.SIGKILL)


def _stdout(guard: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if guard.stdout is None:
        raise RuntimeError("the guard was started without a pipe")
    return guard.stdout


def _end(code: int) -> str:
    if code > SIGNALLED:
        return f"was killed (signal {code - SIGNALLED})"
    if code == BrokerError.exit_code:
        return "lost its broker"
    return "was stopped" if code == 0 else f"failed (exit code {code})"


def _in(pause_s: float) -> str:
    return f" in {pause_s:g} s" if pause_s > FIRST_PAUSE_S else ""
