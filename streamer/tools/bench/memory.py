"""Memory: what a user takes, and that many more users than the cache holds take no more of it."""

import time
import tracemalloc
from pathlib import Path

import msgspec

from streamer.engine.cache import UserCache
from streamer.pipeline.layout import Shape
from streamer.settings import Settings
from streamer.tools.bench.peer import Peer
from streamer.tools.bench.stage import Stage, progress_of
from streamer.tools.demo_worker import free_port

LOOK_S = 0.5  # resident memory changes slowly
POINTS = 20  # of the curve that is shown
SAMPLE_USERS = 10_000


class Resident(msgspec.Struct, frozen=True):
    """A worker's memory while it takes in events of so many users: `curve` has events committed and MiB resident."""

    users: int
    cache_users: int
    events: int
    peak_mb: float
    end_mb: float
    disk_bytes_per_user: float
    events_per_second: float
    curve: list[tuple[int, float]]


def resident(stage: Stage, name: str, cache_users: int) -> Resident:
    """Run a worker over the whole backlog."""
    settings = stage.peer(name, cache_users=cache_users, http_port=free_port(stage.settings.http_host, 0))
    curve: list[tuple[int, float]] = []
    with (
        progress_of(settings) as progress,
        Peer(["streamer", "worker"], settings, stage.home / f"{name}.log", stage.cores.peer) as peer,
    ):
        start_s, events = time.monotonic(), 0
        while events < stage.world.events:
            peer.check()
            time.sleep(LOOK_S)
            events = progress.events()
            if events:
                curve.append((events, round(peer.resident_mb(), 1)))
            else:
                start_s = time.monotonic()
        seconds = time.monotonic() - start_s
    return Resident(
        users=stage.world.users,
        cache_users=cache_users,
        events=events,
        peak_mb=max(mb for _, mb in curve),
        end_mb=curve[-1][1],
        disk_bytes_per_user=round(_size(settings.data_dir) / stage.world.users),
        events_per_second=round(events / seconds),
        curve=curve[:: max(len(curve) // POINTS, 1)],
    )


def bytes_per_user(settings: Settings) -> int:
    """Of a user in the cache, all included: columns, key, index."""
    shape = Shape(settings.recent_items, settings.seen_ids, settings.vector_dim)
    _filled(shape, 2)  # loads the kernels, whose code is not to be counted
    tracemalloc.start()
    try:
        cache = _filled(shape, SAMPLE_USERS)
        return round(tracemalloc.get_traced_memory()[0] / len(cache))
    finally:
        tracemalloc.stop()


def _filled(shape: Shape, users: int) -> UserCache:
    cache = UserCache(users, shape)
    cache.slots(0, [b"user-%d" % i for i in range(users)], lambda missing: [None] * len(missing))
    return cache


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
