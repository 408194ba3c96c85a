"""Questions at a steady rate to one worker, in a process of its own: `python -m streamer.tools.bench.http_load …`.

The rate is held whatever the answers do (an open loop), and the time of an answer counts from when its question was
due, not from when it could be sent: a server that stands still for a second makes all questions of that second late.
Prints the times as JSON.
"""

import argparse
import asyncio
import os
import random
import selectors
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

CONNECTIONS: Final = 32  # kept open: what waits for a free one is late as well
SEED: Final = 1


class Asked(msgspec.Struct, frozen=True):
    """Milliseconds of each answer, in the order of their questions' ends, and how many were no 200."""

    ms: list[float]
    refused: int


class Load(NamedTuple):
    """Profiles of `users`, picked at random, for so long; answers to questions of the first `settle_s` do not count."""

    host: str
    port: int
    users: int
    rate: float
    seconds: float
    settle_s: float


class Connection(asyncio.Protocol):
    """One question at a time. Reads just as much HTTP as it takes to see where an answer ends."""

    def __init__(self, answered: Callable[["Connection", int], None]) -> None:
        self._answered, self._read = answered, b""
        self.due_s = 0.0  # of the question that is asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open."""
        self._transport = transport

    def ask(self, question: bytes, due_s: float) -> None:
        """Send a question that was due at this time."""
        self.due_s = due_s
        self._transport.write(question)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            self._read = b""
            self._answered(self, int(head[9:12]))


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


class _Run:
    """The questions of one run."""

    def __init__(self, load: Load) -> None:
        self._load, self._random = load, random.Random(SEED)  # noqa: S311 - which profile is asked for is no secret
        self._free: list[Connection] = []
        self._late: deque[float] = deque()
        self._left = round(load.rate * load.seconds)
        self.ms: list[float] = []
        self.refused = 0
        self._done = asyncio.Event()

    async def run(self) -> Asked:
        loop, load = asyncio.get_running_loop(), self._load
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: Connection(self._answered), load.host, load.port)
            self._free.append(connection)
        self._start = loop.time()
        for number in range(self._left):
            due_s = self._start + number / load.rate
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            self._ask(due_s)
        await self._done.wait()
        return Asked(self.ms, self.refused)

    def _ask(self, due_s: float) -> None:
        if not self._free:
            self._late.append(due_s)
            return
        user, load = self._random.randrange(self._load.users), self._load
        question = f"GET /v1/users/user-{user}/profile HTTP/1.1\r\nHost: {load.host}:{load.port}\r\n\r\n"
        self._free.pop().ask(question.encode(), due_s)

    def _answered(self, connection: Connection, status: int) -> None:
        self._free.append(connection)
        self._left -= 1
        self.refused += status != 200
        if connection.due_s >= self._start + self._load.settle_s:
            self.ms.append((asyncio.get_running_loop().time() - connection.due_s) * 1000)
        if self._late:
            self._ask(self._late.popleft())
        if not self._left:
            self._done.set()


def ask(load: Load) -> Asked:
    """Ask for the whole time."""
    # epoll waits in whole milliseconds, as long as an answer takes; select in microseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        return loop.run_until_complete(_Run(load).run())
    finally:
        loop.close()


def _go_first() -> None:
    """Where the system lets us, wait for nobody on the core that broker and sender of events share with us.

    Our own wait for the processor would count as the worker's.
    """
    if hasattr(os, "sched_setscheduler"):
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def command(load: Load) -> list[str]:
    """The command line that does it."""
    return [sys.executable, "-m", __name__, *map(str, load)]


def main() -> None:
    """Ask, and print what came."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name, kind in Load.__annotations__.items():
        parser.add_argument(name, type=kind)
    _go_first()
    sys.stdout.buffer.write(msgspec.json.encode(ask(Load(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
