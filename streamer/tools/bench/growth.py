"""What size costs: an event's cost with more and more users in the cache and items in the catalogue, what a miss in
the cache costs, a user's memory, and how long a worker takes to come back, with its state on disk and without.

With each number of users, and of items: a tour that meets them all (the items in every partition: the first meeting
costs a row that names the item, and comes once), then a stretch of events of ACTIVE of the users, spread over all, and
one of events of anybody. In the first, rows and profiles an event are the same however many users
there are, so its cost is what the number of users itself costs; the second has about a row an event, and together they
give the cost of a row. Then the worker with the most users starts again with an empty, smaller cache, so that every
event is a miss, and once more without its state.
"""

import shutil
import time
from typing import NamedTuple

import msgspec
import numpy as np

from streamer.settings import Settings
from streamer.tools.bench.peer import FROZEN_MS, WORKER, Peer, Samples, has_learned, total, until
from streamer.tools.bench.stage import Progress, Stage, fill, load, progress_of
from streamer.tools.bench.window import Cost, cost, moment, process_cpu_s
from streamer.tools.bench.world import SPAN_MS, World, events
from streamer.tools.demo_worker import free_port

ACTIVE = 10_000
SPARE_USERS = 20_000  # of the cache over all users


class Size(NamedTuple):
    """How many users and items; events a stretch; the size of the small cache."""

    users: tuple[int, ...]
    items: tuple[int, ...]
    stretch: int
    small_cache: int


class Users(msgspec.Struct, frozen=True, kw_only=True):
    """A worker with so many users in its cache. `seconds` for the first meeting of all."""

    users: int
    resident_mb: float
    active: Cost
    anybody: Cost


class Items(msgspec.Struct, frozen=True):
    """A worker with so many items in its catalogue."""

    items: int
    cost: Cost


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """A worker with so many users comes back. Seconds are from the start of its process."""

    users: int
    restart_seconds: float
    restore_seconds: float
    restored_rows: int
    restore_rows_per_second: float
    missing: Cost
    miss_us: float


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The curves. `flatness` is the dearest event of a curve over the cheapest; `bytes_per_user` all included."""

    users: list[Users]
    items: list[Items]
    users_flatness: float
    items_flatness: float
    bytes_per_user: int
    disk_bytes_per_user: int
    us_per_event: float
    us_per_row: float
    back: Return


def measure(stage: Stage, size: Size) -> Growth:
    """All of it. Raises StreamerError when a worker dies or stalls."""
    items = [_items(stage, size, number) for number in size.items]
    users = [_users(stage, size, number) for number in size.users]
    us_per_event, us_per_row = per_event_and_row([cost for point in users for cost in (point.active, point.anybody)])
    few, many = users[-2:]
    disk, back = _back(stage, size, many)
    return Growth(
        users=users,
        items=items,
        users_flatness=_spread([point.active for point in users]),
        items_flatness=_spread([point.cost for point in items]),
        bytes_per_user=round((many.resident_mb - few.resident_mb) * 2**20 / (many.users - few.users)),
        disk_bytes_per_user=disk,
        us_per_event=us_per_event,
        us_per_row=us_per_row,
        back=back,
    )


def per_event_and_row(costs: list[Cost]) -> tuple[float, float]:
    """CPU µs of an event and of a row, least squares over all stretches: `cpu_us = event + row · rows`."""
    rows = np.array([[1.0, cost.rows] for cost in costs])
    solved = np.linalg.lstsq(rows, np.array([cost.cpu_us for cost in costs]), rcond=None)[0]
    return round(float(solved[0]), 3), round(float(solved[1]), 3)


def _spread(costs: list[Cost]) -> float:
    each = [cost.cpu_us for cost in costs]
    return round(max(each) / min(each), 3)


def _items(stage: Stage, size: Size, number: int) -> Items:
    stage = stage.topics(f"items{number}-")
    active = _parts(size, ACTIVE, number).active
    partitions = stage.settings.partitions
    tour = active._replace(at=0, active=0, events=number * partitions, rounds=partitions)
    active = active._replace(at=tour.events)
    changes = {"http_port": free_port(stage.settings.http_host, 0), "session_timeout_ms": FROZEN_MS}
    run = stage.peer("worker", **changes)
    fill(run, tour)
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / f"items{number}.log", stage.cores.peer) as peer:
        _wait(peer, progress, tour.events)
        spent = _stretch(peer, progress, stage, run, active)
    stage.say(f"{number:,} items: {spent.cpu_us:.1f} µs an event")
    return Items(number, spent)


class _Parts(NamedTuple):
    """The tour, the two stretches, and what comes after the restart."""

    tour: World
    active: World
    anybody: World
    later: World


def _parts(size: Size, users: int, items: int) -> _Parts:
    met = max(users, items)
    step_ms = max(SPAN_MS // (met + 3 * size.stretch), 1)
    part = World(users=users, items=items, events=size.stretch, step_ms=step_ms)
    return _Parts(
        part._replace(events=met, tour=True),
        part._replace(at=met, active=min(ACTIVE, users)),
        part._replace(at=met + size.stretch),
        part._replace(at=met + 2 * size.stretch),
    )


def _run_of(stage: Stage, number: int, cache_users: int) -> tuple[Stage, Settings]:
    stage = stage.topics(f"users{number}-")
    port = free_port(stage.settings.http_host, 0)
    changes = {"cache_users": cache_users, "http_port": port, "session_timeout_ms": FROZEN_MS}
    return stage, stage.peer(f"users{number}", **changes)


def _users(stage: Stage, size: Size, number: int) -> Users:
    stage, run = _run_of(stage, number, number + SPARE_USERS)
    parts = _parts(size, number, size.items[0])
    fill(run, parts.tour)
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / f"users{number}.log", stage.cores.peer) as peer:
        _wait(peer, progress, parts.tour.events)
        active, anybody = (_stretch(peer, progress, stage, run, part) for part in (parts.active, parts.anybody))
        resident_mb = peer.resident_mb()
    stage.say(f"{number:,} users: {active.cpu_us:.1f} µs an event of a few, {anybody.cpu_us:.1f} of anybody")
    return Users(users=number, resident_mb=round(resident_mb, 1), active=active, anybody=anybody)


def _stretch(peer: Peer, progress: Progress, stage: Stage, run: Settings, part: World) -> Cost:
    """The cost of a part's events, from the first until all that comes of them is committed."""
    before = moment(peer, stage.broker_pid)
    with peer.frozen():
        load(run, events(part))
    before = before._replace(at_s=time.monotonic(), broker_cpu_s=process_cpu_s(stage.broker_pid))
    _wait(peer, progress, part.at + part.events)
    return cost(before, moment(peer, stage.broker_pid), run.partitions)


def _wait(peer: Peer, progress: Progress, number: int) -> None:
    until(peer, lambda: progress.events() >= number)
    until(peer, lambda: has_learned(peer))


def _back(stage: Stage, size: Size, known: Users) -> tuple[int, Return]:
    """Bytes a user on disk, and how a worker comes back: with its state, then without."""
    number = known.users
    stage, run = _run_of(stage, number, size.small_cache)
    disk = sum(file.stat().st_size for file in run.data_dir.rglob("*") if file.is_file())
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / "restart.log", stage.cores.peer) as peer:
        restart_s, _ = _ready(peer, run)
        missing = _stretch(peer, progress, stage, run, _parts(size, number, size.items[0]).later)
    stage.say(f"ready {restart_s:.1f} s after a restart; {missing.misses:.2f} misses an event")
    shutil.rmtree(run.data_dir)
    with Peer(WORKER, run, stage.home / "restore.log", stage.cores.peer) as peer:
        restore_s, moments = _ready(peer, run)
    rows, per_second = _restored(moments)
    stage.say(f"restored {rows:,} rows, {per_second:,.0f} a second")
    known_us = known.anybody.cpu_us
    return round(disk / number), Return(
        users=number,
        restart_seconds=round(restart_s, 2),
        restore_seconds=round(restore_s, 2),
        restored_rows=rows,
        restore_rows_per_second=round(per_second),
        missing=missing,
        miss_us=round((missing.cpu_us - known_us) / max(missing.misses - known.anybody.misses, 1e-9), 3),
    )


def _ready(peer: Peer, run: Settings) -> tuple[float, list[tuple[float, Samples]]]:
    """Seconds until a worker that just started is ready, and its metrics on the way."""
    start_s = time.monotonic()
    seen: list[tuple[float, Samples]] = []

    def ready() -> bool:
        samples = peer.samples()
        seen.append((time.monotonic(), samples))
        owned = total(samples, "streamer_partitions_owned")
        return bool(total(samples, "streamer_ready") and owned == run.partitions)

    until(peer, ready)
    return time.monotonic() - start_s, seen


def _restored(seen: list[tuple[float, Samples]]) -> tuple[int, float]:
    """Rows restored, and how many a second: from the last look that saw none."""
    rows = [(at_s, total(samples, "streamer_restore_rows_total")) for at_s, samples in seen]
    start_s = max((at_s for at_s, number in rows if not number), default=rows[0][0])
    at_s, number = rows[-1]
    return int(number), number / (at_s - start_s)
