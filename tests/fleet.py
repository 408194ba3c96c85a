"""A fleet of workers to do harm to, and the harm: for the tests in test_faults_*.py.

Every event has an id of its own and workers remember one id a user only (`seen_ids`), so that an event that is applied
twice is seen. `check` compares, after each fault, profiles with an independent replay of the source topics, versions
with 1, 2, 3, … and every RocksDB with the changelog.

| fault | where |
|---|---|
| workers that come and go in order; many rounds; the stock agent as the control | `_scale`, `_rounds`, `_stock` |
| kill -9 in rotation | `_rounds` |
| a crash between any two steps of a checkpoint | `_steps`, `_rounds` |
| a broker that restarts, clean or hard; one of three killed; one that hangs | `_brokers` |
| a worker frozen beyond the session time-out that wakes | `_steps` (inside a transaction), `_rounds` |
| a rebalance during recovery and during a revoke | `_scale` |
| a disk that is lost or old; a changelog cut off, empty, made anew; withdrawn transactions | `_disk`, test_positions |
| random orders of fetches and completions | `_orders`, test_merge |
| holes in the offsets of a source | `_sources` |
| what is produced is refused or times out | `_steps`, `_brokers` |
| poison, oversized and truncated records; an exception in a batch | test_bad_input, `_sources`, `_steps` |
| SIGTERM under load | `_scale` |
| an idle worker takes over | `_scale` |
| soak | `_soak` |
| Kafka 3.9; state of an older layout | `_brokers`; test_layout |
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deployment import Deployment, deployed
from tests.worker_process import WorkerProcess

STEPS = ("after_cut", "after_begin", "after_send", "after_acks", "after_offsets", "after_commit")  # of a checkpoint
KILLED, UNEXPECTED, FENCED = -9, 70, 75  # exit codes
RATE = 300.0  # events a second: some in every checkpoint, and cheap to replay
SOME = 300  # events: a second's worth


@contextmanager
def fleet_on(brokers: str, root: Path, **options: Any) -> Iterator[Deployment]:
    """A deployment whose workers are started again when they end; `ends` has their exit codes."""
    common = {"publish_within_ms": 1000, "seen_ids": 1, "batch_records": 100}
    with deployed(brokers, root, **common | options) as deployment:
        deployment.ends = []
        yield deployment


def named(fleet: Deployment, name: str) -> WorkerProcess:
    """A worker that keeps its place in the group while it is away: it is back before others take over."""
    return fleet.worker(name, instance_id=name)


def check(fleet: Deployment) -> None:
    """Once all that was sent is read: everybody's profile is right, and every store."""
    fleet.check_profiles()
    for process in fleet.workers:
        if process.is_wanted:
            assert process.stop() == 0, process.said
    assert fleet.check_stores() >= fleet.settings.partitions


def owned(process: WorkerProcess) -> float:
    """Partitions that a worker has open."""
    status, _ = (process.get("/readyz") if process.is_running else None) or (0, b"")
    return process.metric_if_it_answers("streamer_partitions_owned") or 0 if status == 200 else 0


def share(fleet: Deployment, *workers: WorkerProcess) -> None:
    """Wait until these workers have all partitions, and each of them some."""
    partitions = fleet.settings.partitions

    def shared() -> bool:
        have = [owned(process) for process in workers]
        return sum(have) == partitions and min(have) > 0

    fleet.until(shared, lambda: f"{len(workers)} workers sharing: {[owned(process) for process in workers]}")


def fail_at(fleet: Deployment, process: WorkerProcess, step: str, action: str = "kill") -> None:
    """Wait until a worker has failed at a step, and unless it only froze, has ended."""
    assert fleet.ends is not None
    ends = len(fleet.ends)
    process.fail_at(step, action)
    fleet.until(lambda: process.has_failed, f"a worker that comes to {step}")
    fleet.until(lambda: action == "freeze" or len(fleet.ends or ()) > ends, "the end of the process")


def freeze_until_others_took_over(fleet: Deployment, process: WorkerProcess) -> None:
    """SIGSTOP beyond the session time-out, then SIGCONT."""
    others = [other for other in fleet.workers if other is not process]
    process.freeze()
    share(fleet, *others)
    process.wake()


def lose_disk(process: WorkerProcess) -> None:
    """A crash that takes the disk along."""
    process.crash()
    shutil.rmtree(process.data_dir)
