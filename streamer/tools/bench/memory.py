"""Memory over a long run: many more users than the cache holds take no more of it."""

import time
from typing import NamedTuple

import msgspec

from streamer.tools.bench.peer import PATIENCE_S, WORKER, Peer
from streamer.tools.bench.stage import Stage, fill, progress_of
from streamer.tools.bench.world import World
from streamer.tools.demo_worker import free_port

LOOK_S = 0.5  # resident memory changes slowly
POINTS = 40  # of the curve that is shown


class Size(NamedTuple):
    """`few` and `many` users share a cache of `cache_users`, which the few fill already."""

    few: World
    many: World
    cache_users: int


class Resident(msgspec.Struct, frozen=True):
    """A worker's memory while it takes in events of so many users: `curve` has events committed and MiB resident."""

    users: int
    cache_users: int
    events: int
    peak_mb: float
    end_mb: float
    events_per_second: float
    curve: list[tuple[int, float]]


class Memory(msgspec.Struct, frozen=True):
    """The same worker with few and with many users; `ratio` is the peak with many over the peak with few."""

    few: Resident
    many: Resident
    ratio: float


def measure(stage: Stage, size: Size) -> Memory:
    """Both runs. Raises StreamerError when a worker dies or stalls."""
    few, many = (_resident(stage, world, size.cache_users) for world in (size.few, size.many))
    return Memory(few, many, round(many.peak_mb / few.peak_mb, 3))


def _resident(stage: Stage, world: World, cache_users: int) -> Resident:
    """Run a worker over the whole backlog."""
    name = f"memory{world.users}"
    stage = stage.topics(f"{name}-")
    run = stage.peer(name, cache_users=cache_users, http_port=free_port(stage.settings.http_host, 0))
    fill(run, world)
    curve: list[tuple[int, float]] = []
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / f"{name}.log", stage.cores.peer) as peer:
        give_up_s = time.monotonic() + PATIENCE_S
        start_s, events = time.monotonic(), 0
        while events < world.events and time.monotonic() < give_up_s:
            peer.check()
            time.sleep(LOOK_S)
            events = progress.events()
            if events:
                curve.append((events, round(peer.resident_mb(), 1)))
            else:
                start_s = time.monotonic()
        seconds = time.monotonic() - start_s
    peak_mb = max(mb for _, mb in curve)
    stage.say(f"{world.users:,} users, {cache_users:,} in the cache: {peak_mb:,.0f} MiB at most")
    return Resident(
        users=world.users,
        cache_users=cache_users,
        events=events,
        peak_mb=peak_mb,
        end_mb=curve[-1][1],
        events_per_second=round(events / seconds),
        curve=curve[:: max(len(curve) // POINTS, 1)],
    )
