"""`streamer demo`: a Kafka, topics, a worker, events and a page in one command; nothing of it is left at the end.

Everything lives in a temporary directory (only Kafka's downloads are kept, elsewhere). People read stderr; with
`as_json` stdout gets one JSON object.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.console import Console
from rich.text import Text

from streamer.engine.topics import create_topics
from streamer.errors import StreamerError
from streamer.events import KINDS, Item, UserEvent
from streamer.settings import Settings
from streamer.tools.demo_view import ProfileReader, profile_line, progress_line, show
from streamer.tools.demo_worker import Counts, WorkerProcess, free_port
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.lines import open_events
from streamer.tools.load import Loader
from streamer.tools.replay import BadLines, Pace, Reading, send_files
from streamer.tools.simulate import feed
from streamer.tools.stopping import signals_unwind, stop_on_signals, stopped_within
from streamer.tools.visits import Simulation

USERS, ITEMS, SEED = 500, 1000, 1  # a town in which one meets the same people again within a minute
RATE = 200.0  # events a second: everybody does something every few seconds, so that one can watch them change
HISTORY_MS = 14 * 86_400_000  # what people did before the demo: profiles are rich from the first second
HISTORY_EVENTS = 40 * USERS  # about as many of each as a profile has recent items
AWAKE_MS = 30_000  # of the history at the demo's own rate: visits begin and end evenly when it is shown
LOOK_S = 2.0  # between two looks at the worker: as fast as one can read
POLL_S = 0.1  # between two questions whether it is ready, or has taken in the rest
READY_S = 180.0  # a first start compiles the model, some ten seconds; a slow machine with cold caches needs far more
SETTLE_S = 10.0  # at the end, for events on their way: under a second at any rate that keeps up


class Report(msgspec.Struct, frozen=True):
    """The demo in numbers: `seconds` is how long events came in, `events_per_second` their mean rate in that time."""

    events: int
    profiles_published: int
    users: int
    rejected: int
    events_per_second: float
    seconds: float


def run(settings: Settings, *, seconds: float | None = None, data: Path | None = None, as_json: bool = False) -> int:
    """Run the demo until Ctrl-C or SIGTERM, or for `seconds` from when it is ready. Returns the exit code, 0.

    `data` is a file of event lines to replay instead of simulated people. Raises StreamerError when a part cannot
    start or the worker dies; whatever was started is stopped first.
    """
    console = Console(stderr=True)
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # it complains of young topics; what it gives up, it raises
    if data is not None:
        open_events(data).close()
    with signals_unwind(), ExitStack() as started:
        home = Path(started.enter_context(TemporaryDirectory(prefix="streamer-demo-")))
        settings = _start_kafka(settings, home, started, console)
        worker = WorkerProcess(settings, home / "worker.log")
        started.callback(worker.stop)
        report = asyncio.run(Demo(settings, worker, console, seconds, data).run())
    _tell(report, console, as_json=as_json)
    return 0


def _start_kafka(settings: Settings, home: Path, started: ExitStack, console: Console) -> Settings:
    """Kafka and its topics; the settings by which all parts of the demo find each other."""
    kafka = EmbeddedKafka(home / "kafka")
    started.callback(kafka.stop)
    with _timed(console, "Kafka"):
        kafka.start()
    ours = settings.model_copy(
        update={
            "brokers": kafka.brokers,
            "security_protocol": "PLAINTEXT",
            "replication": -1,
            "data_dir": home / "worker",
            "http_port": free_port(settings.http_host, settings.http_port),
            "advertised_url": "",
        }
    )
    with _timed(console, "topics"):
        create_topics(ours)
    return ours


class Demo:
    """What happens once Kafka and the worker are started: events go in, people see profiles, all ends in order."""

    def __init__(
        self, settings: Settings, worker: WorkerProcess, console: Console, seconds: float | None, data: Path | None
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._console = console
        self._seconds = seconds
        self._data = data
        self._counts = Counts()
        self._said = (0, 0)  # events and profiles of the last line
        self._ready = False
        self._first_s = self._last_s = time.monotonic()  # when the worker was ready, when events last came in

    async def run(self) -> Report:
        """From the first event to the last profile. The worker is stopped at the end."""
        with stop_on_signals() as stop:
            async with ProfileReader(self._settings) as reader:
                async with Loader(self._settings) as loader:
                    feeding = asyncio.create_task(self._feed(loader, stop))
                    try:
                        await self._watch(feeding, reader, stop)
                    finally:
                        stop.set()
                        await asyncio.gather(feeding, return_exceptions=True)
                feeding.result()
                await self._settle(sum(loader.sent[kind.topic] for kind in KINDS))
                await asyncio.to_thread(self._worker.stop)
                await reader.finish()
        return self._report(reader)

    async def _feed(self, loader: Loader, stop: asyncio.Event) -> None:
        if self._data is None:
            await feed(loader, _town(time.time_ns() // 1_000_000), stop)
            return
        bad = BadLines(self._console)
        await send_files(loader, [self._data], Pace(None), Reading(bad, lambda _: None), stop)
        bad.close()
        show(self._console, f"replay       {self._data.name} is read: {loader.sent.total():,} records")

    async def _watch(self, feeding: asyncio.Task[None], reader: ProfileReader, stop: asyncio.Event) -> None:
        """Until `stop`, or until time is up. Raises what ended the worker or the feeding."""
        if not await self._until_ready(feeding, stop):
            return
        ends_s = self._first_s + self._seconds if self._seconds is not None else float("inf")
        while (now_s := time.monotonic()) < ends_s:
            if await stopped_within(stop, min(LOOK_S, ends_s - now_s)):
                return
            _check(self._worker, feeding)
            before = self._counts.events
            await self._count()
            self._say(reader, (self._counts.events - before) / (time.monotonic() - now_s))

    async def _until_ready(self, feeding: asyncio.Task[None], stop: asyncio.Event) -> bool:
        """Whether the worker got ready before `stop`."""
        with _timed(self._console, "worker"):
            give_up_s = time.monotonic() + READY_S
            while not await asyncio.to_thread(self._worker.is_ready):
                _check(self._worker, feeding)
                if time.monotonic() > give_up_s:
                    tail = self._worker.log_tail()
                    raise StreamerError(f"the worker is not ready after {READY_S:g} s. The end of its log:\n{tail}")
                if await stopped_within(stop, POLL_S):
                    return False
        until = "Ctrl-C ends it" if self._seconds is None else f"for {self._seconds:g} s"
        show(self._console, Text.assemble("page         ", (f"{self._worker.url}/", "bold underline"), f"   ({until})"))
        self._ready, self._first_s = True, time.monotonic()
        return True

    async def _count(self) -> None:
        counts = await asyncio.to_thread(self._worker.counts)
        if counts is not None and counts != self._counts:
            self._counts, self._last_s = counts, time.monotonic()

    async def _settle(self, sent: int) -> None:
        """Give a worker that was ready time to take in what was sent."""
        give_up_s = time.monotonic() + SETTLE_S
        await self._count()
        while self._ready and self._counts.events < sent and time.monotonic() < give_up_s:
            self._worker.check()
            await asyncio.sleep(POLL_S)
            await self._count()

    def _say(self, reader: ProfileReader, per_second: float) -> None:
        """A line and a few people; nothing when nothing happened."""
        if (self._counts.events, reader.published) == self._said:
            return
        self._said = self._counts.events, reader.published
        seconds = time.monotonic() - self._first_s
        show(self._console, progress_line(seconds, per_second, self._counts.events, reader))
        for profile in reader.latest():
            show(self._console, profile_line(profile))

    def _report(self, reader: ProfileReader) -> Report:
        seconds = max(0.0, self._last_s - self._first_s)
        return Report(
            events=self._counts.events,
            profiles_published=reader.published,
            users=len(reader.users),
            rejected=self._counts.rejected,
            events_per_second=round(self._counts.events / seconds, 1) if seconds > 0 else 0.0,
            seconds=round(seconds, 2),
        )


def _town(now_ms: int) -> Iterator[UserEvent | Item]:
    """The catalogue, two weeks of history, then the present in real time."""
    town = Simulation(SEED, USERS, ITEMS, now_ms - HISTORY_MS)
    history = town.events(HISTORY_EVENTS / HISTORY_MS * 1000, now_ms - AWAKE_MS)
    return chain(town.catalogue(), history, town.events(RATE))


def _check(worker: WorkerProcess, feeding: asyncio.Task[None]) -> None:
    worker.check()
    if feeding.done():
        feeding.result()


@contextmanager
def _timed(console: Console, what: str) -> Iterator[None]:
    """A spinner on a terminal while `what` starts, then a line that says how long it took."""
    start_s = time.monotonic()
    with console.status(f"{what} starts …"):
        yield
    show(console, f"{what:<12} ready after {time.monotonic() - start_s:.1f} s")


def _tell(report: Report, console: Console, *, as_json: bool) -> None:
    show(
        console,
        f"{report.events:,} events in {report.seconds:.0f} s ({report.events_per_second:,.0f} a second): "
        f"{report.profiles_published:,} profiles of {report.users:,} people published, {report.rejected:,} rejected",
    )
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
