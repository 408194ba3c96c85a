"""`streamer demo`: a Kafka, topics, a worker, events and a page in one command; nothing of it is left at the end.

Everything lives in a temporary directory (only Kafka's downloads are kept, elsewhere). People read stderr; with
`as_json` stdout gets one JSON object. A worker that is killed is started again, and no figure is a process's own: all
come from what is committed in Kafka.
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
from streamer.tools.demo_prometheus import tell, watched
from streamer.tools.demo_view import Outcome, profile_line, progress_line, show
from streamer.tools.demo_worker import WorkerProcess, free_port
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
STUCK_S = 60.0  # at the end, for events on their way: a worker that was killed just now is back and busy before that


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
        prometheus = started.enter_context(watched(settings, home / "prometheus", console))
        report = asyncio.run(Demo(settings, home / "worker.log", console, seconds, data, prometheus).run())
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
            "instance_id": "demo",  # a worker that comes back need not wait until the group has given up the one before
        }
    )
    with _timed(console, "topics"):
        create_topics(ours)
    return ours


class Demo:
    """What happens once Kafka is started: a worker starts, events go in, people see profiles, all ends in order."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        console: Console,
        seconds: float | None,
        data: Path | None,
        prometheus: str | None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._console = console
        self._seconds = seconds
        self._data = data
        self._prometheus = prometheus  # its URL
        self._said = (0, 0)  # events and profiles of the last line
        self._ready = False
        self._first_s = self._last_s = time.monotonic()  # when the worker was ready, when events last came in

    async def run(self) -> Report:
        """From the first event to the last profile. The worker is stopped at the end."""
        self._worker = WorkerProcess(self._settings, self._log, self._news)
        self._outcome = Outcome(self._settings)
        with stop_on_signals() as stop:
            async with self._worker, self._outcome:
                sent = await self._show(stop)
                stop.clear()
                await self._drain(sent, stop)
                if self._prometheus is not None and self._ready:
                    await asyncio.to_thread(tell, self._prometheus, self._console)
                with self._console.status("the worker stops …"):
                    await self._worker.stop()
                await self._outcome.finish()
        if self._lacks(sent):
            self._news(f"{sent - self._outcome.events:,} events were sent that the worker has not taken in")
        return self._report()

    async def _show(self, stop: asyncio.Event) -> int:
        """Send events while people watch; how many user events were sent."""
        async with Loader(self._settings) as loader:
            feeding = asyncio.create_task(self._feed(loader, stop))
            try:
                await self._watch(feeding, stop)
            finally:
                stop.set()
                await asyncio.gather(feeding, return_exceptions=True)
        feeding.result()
        return sum(loader.sent[kind.topic] for kind in KINDS)

    async def _feed(self, loader: Loader, stop: asyncio.Event) -> None:
        if self._data is None:
            await feed(loader, _town(time.time_ns() // 1_000_000), stop)
            return
        bad = BadLines(self._console)
        await send_files(loader, [self._data], Pace(None), Reading(bad, lambda _: None), stop)
        bad.close()
        show(self._console, f"replay       {self._data.name} is read: {loader.sent.total():,} records")

    async def _watch(self, feeding: asyncio.Task[None], stop: asyncio.Event) -> None:
        """Until `stop`, or until time is up. Raises what ended the feeding, or the worker for good."""
        if not await self._until_ready(feeding, stop):
            return
        ends_s = self._first_s + self._seconds if self._seconds is not None else float("inf")
        attending = asyncio.create_task(self._worker.attend())
        try:
            while (now_s := time.monotonic()) < ends_s:
                if await stopped_within(stop, min(LOOK_S, ends_s - now_s)):
                    return
                self._check(feeding)
                before = self._outcome.events
                await self._count()
                self._say((self._outcome.events - before) / (time.monotonic() - now_s))
        finally:
            attending.cancel()

    async def _until_ready(self, feeding: asyncio.Task[None], stop: asyncio.Event) -> bool:
        """Whether the worker got ready before `stop`."""
        with _timed(self._console, "worker"):
            give_up_s = time.monotonic() + READY_S
            while not await self._worker.is_ready():
                self._check(feeding)
                if time.monotonic() > give_up_s:
                    tail = self._worker.log_tail()
                    raise StreamerError(f"the worker is not ready after {READY_S:g} s. The end of its log:\n{tail}")
                if await stopped_within(stop, POLL_S):
                    return False
        self._ready, self._first_s = True, time.monotonic()
        self._welcome()
        return True

    def _welcome(self) -> None:
        """What one can do now."""
        until = "Ctrl-C ends it" if self._seconds is None else f"for {self._seconds:g} s"
        pid = self._worker.pid
        show(self._console, Text.assemble("page         ", (f"{self._worker.url}/", "bold underline"), f"   ({until})"))
        show(self._console, f"profiles     streamer watch --brokers {self._settings.brokers}")
        show(self._console, f"worker       process {pid}   (kill it, if you like, and all goes on: kill -9 {pid})")

    def _news(self, line: str) -> None:
        show(self._console, Text(line, style="yellow"))

    def _check(self, feeding: asyncio.Task[None]) -> None:
        self._worker.check()
        if feeding.done():
            feeding.result()

    async def _count(self) -> None:
        before = self._outcome.events
        if await self._outcome.look() > before:
            self._last_s = time.monotonic()

    async def _drain(self, sent: int, stop: asyncio.Event) -> None:
        """Let a worker that was ready take in what was sent. Ends early on `stop`, and when it gets no further."""
        start_s = time.monotonic()
        await self._count()
        with self._console.status("the worker takes in what was sent (Ctrl-C ends that) …"):
            while self._lacks(sent) and time.monotonic() < max(start_s, self._last_s) + STUCK_S:
                if await stopped_within(stop, POLL_S):
                    break
                self._worker.check()
                await self._count()

    def _lacks(self, sent: int) -> bool:
        return self._ready and self._outcome.events < sent

    def _say(self, per_second: float) -> None:
        """A line and a few people; nothing when nothing happened."""
        outcome = self._outcome
        if (outcome.events, outcome.published) == self._said:
            return
        self._said = outcome.events, outcome.published
        show(self._console, progress_line(time.monotonic() - self._first_s, per_second, outcome))
        for profile in outcome.latest():
            show(self._console, profile_line(profile))

    def _report(self) -> Report:
        seconds, outcome = max(0.0, self._last_s - self._first_s), self._outcome
        return Report(
            events=outcome.events,
            profiles_published=outcome.published,
            users=len(outcome.users),
            rejected=outcome.rejected,
            events_per_second=round(outcome.events / seconds, 1) if seconds > 0 else 0.0,
            seconds=round(seconds, 2),
        )


def _town(now_ms: int) -> Iterator[UserEvent | Item]:
    """The catalogue, two weeks of history, then the present in real time."""
    town = Simulation(SEED, USERS, ITEMS, now_ms - HISTORY_MS)
    history = town.events(HISTORY_EVENTS / HISTORY_MS * 1000, now_ms - AWAKE_MS)
    return chain(town.catalogue(), history, town.events(RATE))


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
