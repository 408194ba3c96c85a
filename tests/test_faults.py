"""Workers that are killed, frozen, scaled and robbed of their disks under load: nothing is lost, nothing counts twice.

Every event has an id of its own and workers remember one id a user only (`seen_ids`), so that an event that is applied
twice is seen. After each fault: profiles against an independent replay of the source topics, versions without a gap,
and every RocksDB against the changelog.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed, deployed
from tests.worker_process import WorkerProcess

STEPS = ("after_cut", "after_begin", "after_send", "after_acks", "after_offsets", "after_commit")
KILLED, FENCED = -9, 75
RATE = 300.0  # events a second: some in every checkpoint, and cheap to replay
SOME = 300  # events: a second's worth


@pytest.fixture
def fleet(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment whose workers are started again when they end."""
    with deployed(kafka.brokers, tmp_path, publish_within_ms=1000, seen_ids=1, batch_records=100) as deployment:
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
    answer = process.get("/readyz") if process.is_running else None
    return process.metric("streamer_partitions_owned") if answer is not None and answer[0] == 200 else 0


def share(fleet: Deployment, *workers: WorkerProcess) -> None:
    """Wait until these workers have all partitions, and each of them some."""
    partitions = fleet.settings.partitions

    def shared() -> bool:
        have = [owned(process) for process in workers]
        return sum(have) == partitions and min(have) > 0

    fleet.until(shared, lambda: f"{len(workers)} workers sharing: {[owned(process) for process in workers]}")


def fail_at(fleet: Deployment, process: WorkerProcess, step: str, action: str = "kill") -> None:
    """Wait until a worker has failed at a step of a checkpoint."""
    assert fleet.ends is not None
    ends = len(fleet.ends)
    process.fail_at(step, action)
    fleet.until(lambda: process.has_failed, f"a checkpoint that comes to {step}")
    fleet.until(lambda: action == "freeze" or len(fleet.ends or ()) > ends, "the end of the process")


def test_kill_between_any_two_steps_of_a_checkpoint_costs_nothing(fleet: Deployment) -> None:
    process = named(fleet, "w").wait_ready()
    with Feed(fleet, RATE):
        for step in STEPS:
            fail_at(fleet, process, step)
            fleet.wait_progress(SOME)
    assert fleet.ends == [KILLED] * len(STEPS)
    check(fleet)


def test_killed_workers_partitions_move_to_the_others(fleet: Deployment) -> None:
    one, two = fleet.worker("one"), fleet.worker("two")
    share(fleet, one, two)
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        one.kill()
        share(fleet, two)
        fleet.wait_progress(SOME)
    check(fleet)


def test_workers_that_come_and_go_in_order_cost_nothing(fleet: Deployment) -> None:
    one = fleet.worker("one").wait_ready()
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        two = fleet.worker("two")
        share(fleet, one, two)
        fleet.wait_progress(SOME)
        assert one.stop() == 0, one.said
        share(fleet, two)
        fleet.wait_progress(SOME)
    check(fleet)
    assert fleet.ends == []


@pytest.mark.parametrize("step", ["after_offsets", pytest.param("after_acks", marks=pytest.mark.slow)])
def test_worker_that_wakes_inside_a_transaction_of_the_past_cannot_commit_it(fleet: Deployment, step: str) -> None:
    one, two = fleet.worker("one"), fleet.worker("two")
    share(fleet, one, two)
    with Feed(fleet, RATE):
        fail_at(fleet, one, step, "freeze")
        share(fleet, two)
        fleet.wait_progress(SOME)
        one.wake()
        fleet.until(lambda: bool(fleet.ends), "the end of the worker that woke")
        share(fleet, one, two)
        fleet.wait_progress(SOME)
    assert fleet.ends == [FENCED]
    assert "another worker took our partition over" in one.log.read_text()
    check(fleet)


def test_lost_disk_costs_nothing(fleet: Deployment) -> None:
    process = named(fleet, "w").wait_ready()
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        process.crash()
        shutil.rmtree(process.data_dir)
        fleet.wait_progress(SOME)
    assert fleet.ends == [KILLED]
    check(fleet)


# ---- long rounds
ROUNDS = 20


def crash(fleet: Deployment, process: WorkerProcess) -> None:
    process.crash()


def lose_disk(fleet: Deployment, process: WorkerProcess) -> None:
    process.crash()
    shutil.rmtree(process.data_dir)


def freeze(fleet: Deployment, process: WorkerProcess) -> None:
    """Beyond the session time-out: the others take over while it stands still."""
    others = [other for other in fleet.workers if other is not process]
    process.freeze()
    share(fleet, *others)
    process.wake()


def restart(fleet: Deployment, process: WorkerProcess) -> None:
    assert process.stop() == 0, process.said
    fleet.wait_progress(SOME)
    process.start()


def fail_somewhere(fleet: Deployment, process: WorkerProcess) -> None:
    fail_at(fleet, process, random.choice(STEPS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", [crash, lose_disk, freeze, restart, fail_somewhere])
def test_many_rounds_of_a_fault_cost_nothing(
    fleet: Deployment, fault: Callable[[Deployment, WorkerProcess], None]
) -> None:
    workers = [fleet.worker(f"w{n}") for n in range(3)]
    share(fleet, *workers)
    with Feed(fleet, RATE):
        for n in range(ROUNDS):
            fault(fleet, workers[n % 3])
            fleet.wait_progress(SOME)
            share(fleet, *workers)
    check(fleet)
    assert fleet.ends is not None
    assert set(fleet.ends) <= {KILLED, FENCED}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_rounds_of_growing_and_shrinking_cost_nothing(fleet: Deployment) -> None:
    one, two, three = (fleet.worker(f"w{n}") for n in range(3))
    share(fleet, one, two, three)
    with Feed(fleet, RATE):
        for _ in range(ROUNDS):
            assert two.stop() == three.stop() == 0
            share(fleet, one)
            fleet.wait_progress(SOME)
            two.start()
            share(fleet, one, two)
            three.start()
            share(fleet, one, two, three)
            fleet.wait_progress(SOME)
    check(fleet)
    assert fleet.ends == []
