"""The worker: a Faust app whose agents take batches from our own ingest, and everything around it."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import structlog
import uvloop
from faust.app.base import BootStrategy

from streamer import __version__, metrics
from streamer.engine import warmup
from streamer.engine.backup_service import Backups
from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.descriptors import raise_limit
from streamer.engine.ends import Ends
from streamer.engine.engine import Engine
from streamer.engine.exit import keep_count, leave, note_end
from streamer.engine.fetching import Batch, Group
from streamer.engine.gauges import Gauges
from streamer.engine.ingest import CHANNEL_BATCHES, Handlers, Ingest
from streamer.engine.kafka_clients import wait_for_broker
from streamer.engine.ranking import Renewal
from streamer.engine.shared import shared_state
from streamer.engine.store import DataDir
from streamer.engine.topics import rejected_bytes, require_topics
from streamer.engine.view import View
from streamer.engine.watchdog import Watchdog, work_of
from streamer.errors import SettingsError
from streamer.events import KINDS
from streamer.serving.access import require_protection
from streamer.serving.feed import Feed
from streamer.serving.http import faust_options, install
from streamer.settings import Settings

log = structlog.get_logger(__name__)

STOP_S = 25.0  # SIGTERM to exit: orchestrators commonly kill after 30 s
# Objects between two collections of each generation. A batch makes thousands that die with it and are in no cycle:
# with Python's own numbers (700, 10, 10) looking for cycles took a third of a cut's time.
GARBAGE = (50_000, 20, 50)


class Boot(BootStrategy):
    """Faust without its consumer, producer, conductor, tables and leader: those are ours."""

    enable_kafka = False


class App(faust.App):
    """A Faust app of this kind."""

    BootStrategy = Boot

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own


def run_worker(settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C; returns 0. Raises StreamerError for what keeps a worker from starting."""
    data_dir = DataDir(settings.data_dir)
    ends = Ends(settings.data_dir)
    keep_count(ends)
    try:
        raise_limit(settings.partitions)
        require_protection(settings)
        _require_port(settings)
        wait_for_broker(settings)
        require_topics(settings)
        largest = rejected_bytes(settings)
        warmup.compile_kernels(settings)
        ends.tell()
        gc.set_threshold(*GARBAGE)
        log.info("worker starts", version=__version__, brokers=settings.brokers, data_dir=str(settings.data_dir))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, largest))
        log.info("worker stopped")
        return note_end(None)
    except BaseException as exc:
        note_end(exc)
        raise
    finally:
        data_dir.close()


def _require_port(settings: Settings) -> None:
    """Raise SettingsError when somebody else listens where the page and the API are to be."""
    try:
        with socket.create_server((settings.http_host, settings.http_port), family=_family(settings.http_host)):
            pass
    except OSError as exc:
        raise SettingsError(
            f"page and API cannot listen on {settings.http_host}:{settings.http_port} ({exc.strerror}):"
            " stop what does, or set STREAMER_HTTP_PORT (and STREAMER_HTTP_HOST) to another place"
        ) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def _serve(settings: Settings, rejected_bytes: int) -> None:
    """Start the app, wait for a signal, drain, stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = build(settings, rejected_bytes)
    app.finalize()
    await app.start()
    log.info("page and API", url=f"http://{settings.http_host}:{settings.http_port}")
    crashed = asyncio.ensure_future(app.wait_until_stopped())
    await asyncio.wait([crashed, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if app.crash_reason is not None:
        leave("the app crashed", app.crash_reason)
    log.info("stopping: last checkpoint, then leave the group")
    try:
        async with asyncio.timeout(STOP_S):
            await app.stop()
    except TimeoutError as exc:
        leave(f"stopping took more than {STOP_S:.0f} s", exc)


def build(settings: Settings, rejected_bytes: int) -> faust.App:
    """The app with its services, agents and web server. `rejected_bytes`: what the topic takes in one record."""
    app = App(
        settings.app_id,
        broker="kafka://" + settings.brokers.replace(",", ";"),
        store="memory://",
        datadir=settings.data_dir / "faust",
        topic_disable_leader=True,
        stream_wait_empty=False,
        **faust_options(settings),
    )
    shared = shared_state(settings)
    feed = Feed()
    reader = CatalogueReader(settings, shared)
    engine = Engine(settings, shared, reader, feed.publish, rejected_bytes)

    async def release() -> None:
        feed.move_users()
        await engine.release()

    events, items, signals = (app.channel(maxsize=CHANNEL_BATCHES) for _ in range(3))
    groups = [
        Group(tuple(kind.topic for kind in KINDS), events),
        Group(("items",), items),
        Group(("item-signals",), signals, patience=2.0),
    ]
    handlers = Handlers(engine.acquire, release, lambda: engine.epoch)
    ingest = Ingest(app, settings, groups, handlers)
    metrics.REGISTRY.register(Gauges(engine, ingest))
    watchdog = Watchdog(settings.stall_ms / 1000, lambda: work_of(engine, ingest))
    app.service(watchdog)
    app.service(reader)
    if shared.ranking:
        app.service(Renewal(shared.ranking, reader.loaded))
    app.service(ingest)
    app.service(Backups(settings, engine))
    _agent(app, "events", events, engine.take_events)
    _agent(app, "items", items, engine.take_items)
    _agent(app, "signals", signals, engine.take_signals)
    install(app, View(settings, engine, ingest, feed, watchdog), settings)
    return app


def _agent(app: faust.App, name: str, channel: Any, take: Callable[[Batch], Awaitable[None]]) -> None:
    """An agent that hands every batch of a channel on. Concurrency 1: batches of a partition stay in order."""

    async def agent(stream: Any) -> None:
        async for batch in stream:
            try:
                await take(batch)
                batch.done()
            except Exception as exc:
                leave("an agent failed", exc)  # Faust would restart the agent and drop the batch
            await asyncio.sleep(0)  # a channel that is never empty would not let checkpoints and heartbeats in

    app.agent(channel, name=name)(agent)
