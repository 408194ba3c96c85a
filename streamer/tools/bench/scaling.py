"""Two workers of one group on two sets of partitions, and what more cores would give.

This machine has two cores and the broker needs one of them, so two workers can be shown in two ways only: both on one
core, which shows what being two costs, and one on each core, where the second shares with the broker.
"""

from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from streamer.settings import Settings
from streamer.tools.bench.peer import WORKER, Peer, total, until
from streamer.tools.bench.speed import WARM
from streamer.tools.bench.stage import Stage, fill, progress_of, renew_outputs
from streamer.tools.bench.window import moment
from streamer.tools.bench.world import World
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
    stage = stage.topics("scaling-")
    fill(stage.peer("one"), size.world)
    return Scaling(
        _arrangement(stage, size.world, "one", [peer]),
        _arrangement(stage, size.world, "same", [peer, peer]),
        _arrangement(stage, size.world, "both", [peer, broker]),
    )


def _arrangement(stage: Stage, backlog: World, name: str, cores: list[int | None]) -> Arrangement:
    group = stage.peer(name)
    renew_outputs(group)
    with ExitStack() as stack:
        progress = stack.enter_context(progress_of(group))
        peers = [stack.enter_context(_worker(stage, group, n, core)) for n, core in enumerate(cores)]
        first = peers[0]

        def shared() -> bool:
            """Whether each worker has its part of the partitions, and the group is in its stride."""
            for peer in peers[1:]:
                peer.check()
            owned = [total(peer.samples(), "streamer_partitions_owned") for peer in peers]
            return owned == [group.partitions / len(peers)] * len(peers) and progress.events() >= WARM * backlog.events

        until(first, shared)
        before = [moment(peer, stage.broker_pid) for peer in peers]
        until(first, lambda: progress.events() == backlog.events)
        after = [moment(peer, stage.broker_pid) for peer in peers]
    events = sum(m.applied for m in after) - sum(m.applied for m in before)
    cpu_s = sum(m.cpu_s for m in after) - sum(m.cpu_s for m in before)
    rate = events / (after[0].at_s - before[0].at_s)
    broker_us = 1e6 * (after[0].broker_cpu_s - before[0].broker_cpu_s) / events
    stage.say(f"{name}: {rate:,.0f} events a second")
    return Arrangement(round(rate, 1), round(1e6 * cpu_s / events, 3), round(broker_us, 3))


def _worker(stage: Stage, group: Settings, number: int, core: int | None) -> Peer:
    changes = {
        "data_dir": stage.home / f"{group.app_id}-{number}",
        "http_port": free_port(group.http_host, 0),
    }
    log = stage.home / f"{group.app_id}-{number}.log"
    return Peer(WORKER, group.model_copy(update=changes), log, core)
