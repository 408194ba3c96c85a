"""Two workers of one group on two sets of partitions, and what more cores would give.

This machine has two cores and the broker needs one of them, so two workers can be shown in two ways only: both on one
core, which shows what being two costs, and one on each core, where the second shares with the broker.
"""

import time
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from streamer.settings import Settings
from streamer.tools.bench.peer import FROZEN_MS, WORKER, Peer, has_learned, total, until
from streamer.tools.bench.stage import Stage, fill, load, progress_of
from streamer.tools.bench.window import process_cpu_s
from streamer.tools.bench.world import World, events
from streamer.tools.demo_worker import free_port


class Size(NamedTuple):
    """The backlog that each arrangement works through."""

    world: World


class Arrangement(msgspec.Struct, frozen=True):
    """Events a second of all workers together, and CPU µs an event of all workers and of the broker."""

    events_per_second: float
    cpu_us: float
    broker_cpu_us: float


class Scaling(msgspec.Struct, frozen=True):
    """One worker on its core; two on that same core; two on a core each, one of them the broker's."""

    one: Arrangement
    two_on_one_core: Arrangement
    two_on_two_cores: Arrangement


def measure(stage: Stage, size: Size) -> Scaling:
    """The three arrangements. Raises StreamerError when a worker dies or stalls."""
    peer, broker = stage.cores.peer, stage.cores.broker
    return Scaling(
        _arrangement(stage, size.world, "one", [peer]),
        _arrangement(stage, size.world, "same", [peer, peer]),
        _arrangement(stage, size.world, "both", [peer, broker]),
    )


def _arrangement(stage: Stage, backlog: World, name: str, cores: list[int | None]) -> Arrangement:
    stage = stage.topics(f"scaling-{name}-")
    group = stage.peer(name, session_timeout_ms=FROZEN_MS)
    fill(group, backlog._replace(events=0))
    with ExitStack() as stack:
        progress = stack.enter_context(progress_of(group))
        peers = [stack.enter_context(_worker(stage, group, n, core)) for n, core in enumerate(cores)]
        until(peers[0], lambda: _have_parts(peers, group.partitions))
        with ExitStack() as frozen:
            for peer in peers:
                frozen.enter_context(peer.frozen())
            load(group, events(backlog))
        before = _used(stage, peers)
        until(peers[0], lambda: progress.events() == backlog.events)
        until(peers[0], lambda: all(has_learned(peer) for peer in peers))
        spent = [end - start for start, end in zip(before, _used(stage, peers), strict=True)]
    seconds, worker_s, broker_s = spent
    rate = backlog.events / seconds
    stage.say(f"{name}: {rate:,.0f} events a second")
    a_million = 1e6 / backlog.events
    return Arrangement(round(rate, 1), round(a_million * worker_s, 3), round(a_million * broker_s, 3))


def _have_parts(peers: list[Peer], partitions: int) -> bool:
    """Whether each worker has its part of the partitions, and answers for it."""
    for peer in peers:
        peer.check()
    samples = [peer.samples() for peer in peers]
    owned = {total(of_peer, "streamer_partitions_owned") for of_peer in samples}
    return owned == {partitions / len(peers)} and all(total(of_peer, "streamer_ready") for of_peer in samples)


def _used(stage: Stage, peers: list[Peer]) -> tuple[float, float, float]:
    """Seconds: the clock, CPU of all workers, CPU of the broker."""
    return time.monotonic(), sum(peer.cpu_s() for peer in peers), process_cpu_s(stage.broker_pid)


def _worker(stage: Stage, group: Settings, number: int, core: int | None) -> Peer:
    changes = {
        "data_dir": stage.home / f"{group.app_id}-{number}",
        "http_port": free_port(group.http_host, 0),
    }
    log = stage.home / f"{group.app_id}-{number}.log"
    return Peer(WORKER, group.model_copy(update=changes), log, core)
