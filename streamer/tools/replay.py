"""`streamer replay`: event lines into the topics, in the order of the files, as fast as it goes or at a given rate."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.engine.kafka_clients import wait_for_broker
from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.lines import BadLine, Line, newest_ts, open_events, parse, raw_lines, read
from streamer.tools.load import ITEMS, Loader, Summary, summarise
from streamer.tools.stopping import stopped_within

TICK_S = 0.02  # with a rate limit, handfuls of events leave this far apart: fifty flushes a second at the most
PROGRESS_LINES = 2_000  # between two moves of the bar: some thirty a second
NAMED_BAD_LINES = 50  # a person reads no more; the rest is counted


class Pace:
    """When the n-th event may leave: `rate` a second from the first on; None is without limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tick = max(1, int(rate * TICK_S)) if rate else 0
        self._count = 0
        self._start_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Count one event that is to leave at `now_s` (any clock that runs); how many seconds it is too early."""
        if not self._rate:
            return 0.0
        if self._count == 0:
            self._start_s = now_s
        count, self._count = self._count, self._count + 1
        if count % self._tick:
            return 0.0
        return max(0.0, self._start_s + count / self._rate - now_s)


class Reading(NamedTuple):
    """Who is told while files are read: each bad line with its file, and how many bytes of the files are behind us."""

    on_bad: Callable[[Path, BadLine], None]
    on_bytes: Callable[[int], None]


def run(settings: Settings, *, files: Sequence[Path], rate: float | None = None, shift_to_now: bool = False) -> Summary:
    """Send all lines of `files` at `rate` user events a second (None: as fast as it goes) and say what was sent.

    `shift_to_now` adds to every `ts` what makes the newest of all files the present. Bad lines are named on stderr and
    skipped. Raises EventFileError, and BrokerError and TopicsError as `Loader` does.
    """
    if rate is not None and rate <= 0:
        raise StreamerError(f"--rate {rate:g}: give a number of events a second above 0, or leave it out")
    for path in files:
        open_events(path).close()
    wait_for_broker(settings)
    shift_ms = shift_for(files, time.time_ns() // 1_000_000) if shift_to_now else 0
    return asyncio.run(_run(settings, files, rate, shift_ms))


def shift_for(files: Sequence[Path], now_ms: int) -> int:
    """What to add to every `ts` so that the newest of all files is `now_ms`; 0 where no line has one."""
    newest = newest_ts(chain.from_iterable(read(path, lambda _: None) for path in files))
    return 0 if newest is None else now_ms - newest


async def send_files(
    loader: Loader, files: Sequence[Path], pace: Pace, reading: Reading, stop: asyncio.Event, *, shift_ms: int = 0
) -> None:
    """Send the lines of `files` until they end or `stop` is set; all of them are acknowledged on return."""
    for line in _lines(files, reading, shift_ms):
        wait_s = pace.wait_s(time.monotonic()) if line.topic != ITEMS else 0.0
        if wait_s:
            await loader.flush()
            await stopped_within(stop, wait_s)
        if stop.is_set():
            break
        await loader.send(line.topic, line.key, line.value)
    await loader.flush()


def _lines(files: Sequence[Path], reading: Reading, shift_ms: int) -> Iterator[Line]:
    before = 0
    for path in files:
        with open_events(path) as file:
            for line in parse(raw_lines(file, path), partial(reading.on_bad, path), shift_ms=shift_ms):
                if line.number % PROGRESS_LINES == 0:
                    reading.on_bytes(before + file.tell())
                yield line
            before += file.tell()
            reading.on_bytes(before)


async def _run(settings: Settings, files: Sequence[Path], rate: float | None, shift_ms: int) -> Summary:
    started = time.monotonic()
    console = Console(stderr=True)
    bad = BadLines(console)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=sum(path.stat().st_size for path in files))
        reading = Reading(bad, lambda done: progress.update(bar, completed=done))
        async with Loader(settings) as loader:
            await send_files(loader, files, Pace(rate), reading, asyncio.Event(), shift_ms=shift_ms)
    bad.close()
    return summarise(loader.sent, skipped=bad.count, seconds=time.monotonic() - started)


class BadLines:
    """Names bad lines to a person by file and number, the first 50, and counts all."""

    def __init__(self, console: Console) -> None:
        self.count = 0
        self._console = console

    def __call__(self, path: Path, bad: BadLine) -> None:
        """Take note of one."""
        self.count += 1
        if self.count <= NAMED_BAD_LINES:
            self._say(f"{path.name}, line {bad.number} skipped: {bad.reason}")

    def close(self) -> None:
        """Say how many there were beyond those that were named."""
        if self.count > NAMED_BAD_LINES:
            self._say(f"{self.count - NAMED_BAD_LINES} more lines skipped")

    def _say(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
