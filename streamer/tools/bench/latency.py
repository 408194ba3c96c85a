"""Latency at a steady rate: from the broker's append of an event to its append of the profile that the event changed.

The topics of events and profiles have the broker's own timestamps (LogAppendTime), so both ends are read off one clock.
A profile names the event that caused it. A change too small to be published at once waits an hour here, longer than
the benchmark takes: how late those come is a setting. A reader of committed records sees a profile when its transaction
is committed, some milliseconds after its append.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import numpy as np

from streamer.engine.kafka_clients import admin_client
from streamer.engine.topics import topic_specs
from streamer.errors import StreamerError
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools.bench.peer import WORKER, Peer, has_learned, until
from streamer.tools.bench.reading import records
from streamer.tools.bench.stage import EVENT_TOPICS, Progress, Stage, fill, progress_of
from streamer.tools.bench.world import Line, World, events
from streamer.tools.demo_worker import free_port
from streamer.tools.load import Loader

TICK_S: Final = 0.01  # events of so long are sent at once
SETTLE_S: Final = 2.0  # of each rate are not counted
WAIT_MS: Final = 3_600_000  # of what is not urgent


class Size(NamedTuple):
    """Users known before it begins, events a second, and how long each rate is held."""

    users: int
    rates: tuple[int, ...]
    seconds: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds at one rate; `events_per_second` is what was really sent."""

    events_per_second: float
    profiles: int
    p50: float
    p90: float
    p99: float
    max: float


class _Profile(msgspec.Struct):
    cause: str


class _Event(msgspec.Struct):
    event_id: str


class _Sent(NamedTuple):
    """What went out at one rate: numbers of the events, and how long it took."""

    rate: int
    first: int
    end: int
    seconds: float


def measure(stage: Stage, size: Size) -> dict[str, Latency]:
    """By rate. Raises StreamerError when the worker dies, stalls, or publishes nothing at once."""
    stage = stage.topics("latency-")
    run = stage.peer("worker", http_port=free_port(stage.settings.http_host, 0), publish_within_ms=WAIT_MS)
    _create_topics(run)
    known = World(users=size.users, items=5_000, events=3 * size.users, tour=True, step_ms=1_000)
    fill(run, known)
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / "latency.log", stage.cores.peer) as peer:
        _wait(peer, progress, known.events)
        sent = list(_send(run, size, known, lambda number: _wait(peer, progress, number)))
    delays = asyncio.run(_delays(run))
    latencies = {str(run.rate): _latency(run, delays) for run in sent}
    for rate, at in latencies.items():
        stage.say(f"{rate} events a second: p50 {at.p50:.0f} ms, p99 {at.p99:.0f} ms")
    return latencies


def _send(run: Settings, size: Size, known: World, wait: Callable[[int], None]) -> Iterator[_Sent]:
    """Each rate after the other, when the worker is through with the one before."""
    total = round(sum(size.rates) * size.seconds)
    live = events(known._replace(events=total, tour=False, at=known.events))
    first = known.events
    for rate in size.rates:
        end = first + round(rate * size.seconds)
        yield _Sent(rate, first, end, asyncio.run(feed(run, islice(live, end - first), rate)))
        wait(end)
        first = end


async def feed(settings: Settings, lines: Iterator[Line], rate: int) -> float:
    """Send lines at so many a second; returns the seconds that it took."""
    start_s, sent, left = time.monotonic(), 0, True
    async with Loader(settings) as loader:
        while left:
            due = round((time.monotonic() - start_s) * rate) - sent
            batch = list(islice(lines, max(due, 1)))
            for topic, key, value in batch:
                await loader.send(topic, key, value)
            await loader.flush()
            sent, left = sent + len(batch), bool(batch)
            await asyncio.sleep(max(start_s + sent / rate + TICK_S - time.monotonic(), 0))
    return time.monotonic() - start_s


def _wait(peer: Peer, progress: Progress, number: int) -> None:
    until(peer, lambda: progress.events() >= number and has_learned(peer))


def _create_topics(settings: Settings) -> None:
    """Those with the broker's own timestamps; the others are made with the rest."""
    names = {settings.topic(name) for name in (*EVENT_TOPICS, "profiles")}
    wanted = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": spec.replication,
            "configs": {**spec.configs, "message.timestamp.type": "LogAppendTime"},
        }
        for spec in topic_specs(settings)
        if spec.name in names
    }
    with admin_client(settings) as admin:
        admin.create_topics(wanted)
        admin.wait_for_topics(list(wanted))


async def _delays(settings: Settings) -> list[tuple[int, int]]:
    """Of every profile: the number of the event that caused it, and ms from its append to the profile's."""
    appended: dict[str, int] = {}
    decode_event = msgspec.json.Decoder(_Event).decode
    async for record in records(settings, [settings.topic(kind.topic) for kind in KINDS]):
        appended[decode_event(record.value).event_id] = record.timestamp
    decode_profile = msgspec.json.Decoder(_Profile).decode
    found = []
    async for record in records(settings, [settings.topic("profiles")]):
        profile = decode_profile(record.value)
        found.append((int(profile.cause.removeprefix("e")), record.timestamp - appended[profile.cause]))
    return found


def _latency(sent: _Sent, delays: list[tuple[int, int]]) -> Latency:
    first = sent.first + SETTLE_S * sent.rate
    counted = [ms for number, ms in delays if first <= number < sent.end]
    if not counted:
        raise StreamerError("no profile was published at once: nothing to take a latency of")
    p50, p90, p99 = np.percentile(counted, [50, 90, 99]).tolist()
    return Latency(
        events_per_second=round((sent.end - sent.first) / sent.seconds, 1),
        profiles=len(counted),
        p50=round(p50, 1),
        p90=round(p90, 1),
        p99=round(p99, 1),
        max=float(max(counted)),
    )
