"""How many workers, partitions, bytes: a model over what deploy/BENCHMARKS.md measured, for planning.

    cores   = events a second x (EVENT_US + rows an event x ROW_US) + partitions x TRANSACTION_MS / REST_MS
    workers = cores / BUSY, and enough that each one's cache fits into MEMORY_BYTES

Worked number: 100,000 events a second with a row each cost 3.3 cores, 48 partitions with four transactions a second 1.0
more; 4.3 cores make 8 workers that are 60 % busy at most, with six partitions each.
"""

from math import ceil
from typing import Final

import msgspec

from streamer.engine.fetching import LONGEST_REST
from streamer.settings import Settings
from streamer.tools.doctor.machine import USER_BYTES, memory_bytes

EVENT_US: Final = 7.2  # CPU of an event without its row
ROW_US: Final = 26.0  # CPU of a row written, beside a busy broker
ROWS_AN_EVENT: Final = 1.0  # of many users nearly each event has a row of its own; few active ones share (0.3)
TRANSACTION_MS: Final = 5.0  # CPU of a batch and its checkpoint, however small: at 1,000 events a second half of a core
REST_MS: Final = LONGEST_REST * Settings.model_fields["checkpoint_ms"].default
BROKER_US: Final = 4.0  # the broker's CPU of an event, for one copy
COPIES: Final = 3
BUSY: Final = 0.6  # the rest is for peaks, for catching up, and for the partitions of a worker that is away
MEMORY_BYTES: Final = 6 << 30  # for one worker's cache: beyond it a restart warms up for long
USER_ON_DISK_BYTES: Final = 2200  # of some 90 events, compressed and compacted; newcomers take 221
COMPACTION: Final = 2  # old and new tables stand side by side while RocksDB compacts
RESTORE_ROWS_A_SECOND: Final = 235_000
SPARE: Final = 4  # partitions a worker: they are for ever, and the most that the fleet can grow to
SMALLEST: Final = 12  # partitions, and then twice as many until it is enough: evenly over most numbers of workers


class Size(msgspec.Struct, frozen=True):
    """A deployment for so many users and events. Bytes are of one worker."""

    users: int
    events_per_second: int
    workers: int
    partitions: int
    cache_users: int
    memory_gib: float
    disk_gib: float
    restore_seconds: int
    broker_cores: float


def size(users: int, events_per_second: int, cached: float = 0.1) -> Size:
    """The smallest even deployment. `cached` is the share of users who come again while they are still in memory."""
    by_memory = ceil(users * cached * USER_BYTES / MEMORY_BYTES)
    cores = events_per_second * (EVENT_US + ROWS_AN_EVENT * ROW_US) / 1e6
    workers, partitions = _fleet(cores, max(by_memory, 2))
    of_worker = max(ceil(users * cached / workers), 10_000)
    settings = Settings.model_construct(partitions=partitions // workers, cache_users=of_worker)
    return Size(
        users=users,
        events_per_second=events_per_second,
        workers=workers,
        partitions=partitions,
        cache_users=of_worker,
        memory_gib=round(memory_bytes(settings) / 2**30, 1),
        disk_gib=round(users / workers * USER_ON_DISK_BYTES * COMPACTION / 2**30 + 1, 1),
        restore_seconds=ceil(users / workers / RESTORE_ROWS_A_SECOND),
        broker_cores=round(events_per_second * BROKER_US * COPIES / 1e6, 1),
    )


def _fleet(cores: float, least: int) -> tuple[int, int]:
    """Workers and partitions for events that take so many cores."""
    partitions = SMALLEST
    while True:
        busy = cores + partitions * TRANSACTION_MS / REST_MS
        workers = max(ceil(busy / BUSY), least)
        if SPARE * workers <= partitions:
            return _even(workers, partitions), partitions
        partitions *= 2


def _even(workers: int, partitions: int) -> int:
    """The next number of workers that all have as many partitions."""
    return next(number for number in range(workers, partitions + 1) if partitions % number == 0)
