"""`streamer simulate`: the simulated people's events into Kafka in real time, or into a file as fast as it goes.

A file is the same, byte for byte, for the same arguments: it starts at a fixed time (`replay --shift-to-now` moves it).
What the people truly care for, and since when, stands beside it in `<file>.truth.jsonl`.
"""

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
from rich.console import Console
from rich.progress import Progress

from streamer.engine.kafka_clients import wait_for_broker
from streamer.errors import StreamerError
from streamer.events import Item, UserEvent
from streamer.settings import Settings
from streamer.tools.lines import LINE_TYPES, TYPE_OF_STRUCT, encode_line
from streamer.tools.load import Loader, Summary, summarise
from streamer.tools.population import Truth
from streamer.tools.stopping import stop_on_signals, stopped_within
from streamer.tools.visits import generate

__all__ = ["feed", "generate", "run"]

FILE_START_MS = 1_735_689_600_000  # 2025-01-01T00:00Z
PROGRESS_EVENTS = 5_000  # between two moves of the bar: some ten a second
TICK_S = 0.02  # events are sent in handfuls this far apart: fifty flushes a second at the most
KEY_FIELDS = {struct: LINE_TYPES[name] for struct, name in TYPE_OF_STRUCT.items()}
_encode = msgspec.json.Encoder().encode


def run(
    settings: Settings,
    *,
    users: int = 500,
    items: int = 1000,
    rate: float = 50.0,
    seed: int = 1,
    seconds: float | None = None,
    to_file: Path | None = None,
    truth_file: Path | None = None,
) -> Summary:
    """Simulate `users` people at `rate` events a second for `seconds` (None: until Ctrl-C; not for a file).

    Raises StreamerError for arguments that cannot work, BrokerError and TopicsError as `Loader` does.
    """
    _check(users, items, rate, seconds, to_file)
    if to_file is not None:
        truth_file = truth_file or to_file.with_name(to_file.name + ".truth.jsonl")
    with _truth_writer(truth_file) as on_truth:
        start_ms = _now_ms() if to_file is None else FILE_START_MS
        until_ms = None if seconds is None else start_ms + int(seconds * 1000)
        events = generate(seed, users, items, rate, start_ms, until_ms=until_ms, on_truth=on_truth)
        if to_file is not None:
            return _to_file(to_file, events, until_ms or FILE_START_MS)
        wait_for_broker(settings)
        with Console(stderr=True).status(f"{users} people make {rate:g} events a second (Ctrl-C ends it)"):
            return asyncio.run(_to_kafka(settings, events, seconds))


async def feed(loader: Loader, events: Iterable[UserEvent | Item], stop: asyncio.Event) -> None:
    """Send events when the clock reaches their `ts` (past ones at once), until they end or `stop` is set."""
    for event in events:
        ahead_s = 0.0 if isinstance(event, Item) else event.ts / 1000 - time.time()
        if ahead_s > 0:
            await loader.flush()
            if await stopped_within(stop, max(TICK_S, ahead_s)):
                return
        elif stop.is_set():
            return
        line_type = KEY_FIELDS[type(event)]
        await loader.send(line_type.topic, getattr(event, line_type.key_field).encode(), _encode(event))
    await loader.flush()


async def _to_kafka(settings: Settings, events: Iterable[UserEvent | Item], seconds: float | None) -> Summary:
    started = time.monotonic()
    with stop_on_signals() as stop:
        async with Loader(settings) as loader:
            await feed(loader, events, stop)
            if seconds is not None:
                await stopped_within(stop, seconds - (time.monotonic() - started))
    return summarise(loader.sent, skipped=0, seconds=time.monotonic() - started)


def _to_file(path: Path, events: Iterable[UserEvent | Item], until_ms: int) -> Summary:
    started, written = time.monotonic(), Counter[str]()
    with _whole_file(path) as file:
        for event in _with_progress(events, until_ms):
            file.write(encode_line(event))
            written[KEY_FIELDS[type(event)].topic] += 1
    return summarise(written, skipped=0, seconds=time.monotonic() - started)


def _with_progress(events: Iterable[UserEvent | Item], until_ms: int) -> Iterator[UserEvent | Item]:
    """The same events, with a bar on a terminal that shows how much of the time is simulated."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("simulate", total=until_ms - FILE_START_MS)
        for number, event in enumerate(events):
            if number % PROGRESS_EVENTS == 0 and not isinstance(event, Item):
                progress.update(bar, completed=event.ts - FILE_START_MS)
            yield event


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole; zipped, without a time of its own, when named .gz."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as raw, _zipped(raw) if path.suffix == ".gz" else nullcontext(raw) as file:
            yield file
        part.replace(path)
    except OSError as exc:
        raise StreamerError(f"cannot write {path}: {exc.strerror}: choose another place") from None
    finally:
        part.unlink(missing_ok=True)


def _zipped(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile("", "wb", 6, raw, mtime=0))


@contextmanager
def _truth_writer(path: Path | None) -> Iterator[Callable[[Truth], None]]:
    """Takes truths and writes a line for each, at once: a simulation into Kafka may be stopped at any time."""
    if path is None:
        yield lambda _: None
        return
    try:
        file = path.open("wb", buffering=0)
    except OSError as exc:
        raise StreamerError(f"cannot write {path}: {exc.strerror}: choose another place") from None

    def write(truth: Truth) -> None:
        file.write(_encode(truth) + b"\n")

    with file:
        yield write


def _check(users: int, items: int, rate: float, seconds: float | None, to_file: Path | None) -> None:
    if users < 1 or items < 1 or rate <= 0 or (seconds is not None and seconds <= 0):
        raise StreamerError("a simulation needs at least one user and one item, and --rate and --seconds above 0")
    if to_file is not None and seconds is None:
        raise StreamerError("--to-file needs --seconds: the simulation itself never ends")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
