"""A stretch of a worker's run, seen from outside: what an event cost in it, and where the time went."""

import time
from typing import Final, NamedTuple

import msgspec
import psutil

from streamer.errors import StreamerError
from streamer.tools.bench.peer import Peer, Samples, total, until

SAMPLE_S: Final = 0.2  # between two looks at a worker's metrics: an answer takes 2 ms of its core
STAGE_SECONDS: Final = "streamer_stage_seconds_total"
WAITING: Final = ("send", "commit")  # stages that mostly wait for the broker, several partitions at a time


class Moment(NamedTuple):
    """A worker and its broker at one point in time; CPU seconds since their start, memory in MiB."""

    at_s: float
    cpu_s: float
    broker_cpu_s: float
    resident_mb: float
    samples: Samples

    @property
    def applied(self) -> int:
        """User events applied so far."""
        return int(sum(total(self.samples, "streamer_events_total", type=kind) for kind in ("click", "purchase")))


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What an event cost, on average. `cpu_us` and `broker_cpu_us` are the CPU that worker and broker used in all.

    `stages` are µs an event by the worker's own clock: those of WAITING mostly wait and do not add up with the rest;
    `other` is what `cpu_us` has beyond all stages but these: fetch, event loop, what sending costs.
    """

    events: int
    events_per_second: float
    cpu_us: float
    broker_cpu_us: float
    rows: float
    profiles: float
    misses: float
    seconds_between_checkpoints: float  # of a partition
    stages: dict[str, float]


def moment(peer: Peer, broker_pid: int) -> Moment:
    """Now: when the worker has answered. While it does not, there are no samples."""
    samples = peer.samples()
    return Moment(time.monotonic(), peer.cpu_s(), process_cpu_s(broker_pid), peer.resident_mb(), samples)


def reach(peer: Peer, broker_pid: int, events: int) -> Moment:
    """The first moment that is seen at which so many events are applied. Raises StreamerError when it does not come."""
    seen: list[Moment] = []

    def reached() -> bool:
        seen[:] = [moment(peer, broker_pid)]
        return seen[0].applied >= events

    until(peer, reached, look_s=SAMPLE_S)
    return seen[0]


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def cost(before: Moment, after: Moment, partitions: int) -> Cost:
    """Between two moments. Raises StreamerError where no event was applied between them."""
    events, seconds = after.applied - before.applied, after.at_s - before.at_s
    if events <= 0:
        raise StreamerError("no event between two looks at the worker: the backlog is too short for this machine")

    def grown(name: str, **labels: str) -> float:
        return total(after.samples, name, **labels) - total(before.samples, name, **labels)

    cpu_us = 1e6 * (after.cpu_s - before.cpu_s) / events
    names = sorted({dict(labels)["stage"] for name, labels in after.samples if name == STAGE_SECONDS})
    stages = {name: round(1e6 * grown(STAGE_SECONDS, stage=name) / events, 3) for name in names}
    busy = sum(spent for name, spent in stages.items() if name not in WAITING)
    return Cost(
        events=events,
        events_per_second=round(events / seconds, 1),
        cpu_us=round(cpu_us, 3),
        broker_cpu_us=round(1e6 * (after.broker_cpu_s - before.broker_cpu_s) / events, 3),
        rows=round(grown("streamer_checkpoint_rows_total") / events, 4),
        profiles=round(grown("streamer_profiles_published_total") / events, 4),
        misses=round(grown("streamer_cache_misses_total") / events, 4),
        seconds_between_checkpoints=round(seconds * partitions / max(grown("streamer_checkpoint_seconds_count"), 1), 3),
        stages={**stages, "other": round(cpu_us - busy, 3)},
    )
