"""Workers that come and go under load: in order, by kill -9, in the middle of a recovery or of another rebalance."""

from pathlib import Path

import pytest
from kafka import TopicPartition

from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed
from tests.fleet import FENCED, RATE, SOME, check, fleet_on, lose_disk, owned, share
from tests.worker_process import PATIENCE_S, WorkerProcess


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
    assert set(fleet.ends or ()) <= {FENCED}


# ---- SIGTERM
def applied(process: WorkerProcess) -> float:
    """User events that a worker has applied since its start."""
    return sum(process.metric("streamer_events_total", type=kind, outcome="applied") for kind in ("click", "purchase"))


def read_up_to(fleet: Deployment, committed: dict[TopicPartition, int]) -> int:
    """User events that are committed."""
    events = {fleet.settings.topic(name) for name in ("clicks", "purchases")}
    return sum(offset for tp, offset in committed.items() if tp.topic in events)


def test_worker_that_is_asked_to_stop_under_load_leaves_nothing_to_repeat(fleet: Deployment) -> None:
    process = fleet.worker().wait_ready()
    with Feed(fleet, RATE) as feed:
        fleet.wait_progress(SOME)
        seen = applied(process)
        assert process.stop() == 0, process.said  # a drain that takes longer than its bound ends with another code
        committed = fleet.committed()
        assert read_up_to(fleet, committed) >= seen
        at = feed.sent
        fleet.until(lambda: feed.sent > at + SOME, "events while there is no worker")
        process.start().wait_ready()
        fleet.wait_progress(SOME)
    fleet.wait_drained()
    assert process.metric("streamer_restore_rows_total") == 0
    assert applied(process) == read_up_to(fleet, fleet.committed()) - read_up_to(fleet, committed)
    check(fleet)


# ---- a rebalance that meets something
def test_rebalance_that_meets_a_recovery_or_another_rebalance_costs_nothing(fleet: Deployment) -> None:
    one, two = fleet.worker("one"), fleet.worker("two")
    share(fleet, one, two)
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        three = meet_a_recovery(fleet, one)
        share(fleet, one, two, three)
        fleet.wait_progress(SOME)
        one.fail_at("releasing", "hold")
        three.ask_to_stop()
        fleet.until(lambda: says(one, b"rebalancing"), "a revoke under way")
        assert three.exit_code() in {0, FENCED}, three.said
        three.start()
        fleet.until(lambda: "worker starts" in three.said, "somebody who joins meanwhile")
        one.let_go()
        share(fleet, one, two, three)
        fleet.wait_progress(SOME)
    assert set(fleet.ends or ()) <= {FENCED}
    check(fleet)


def meet_a_recovery(fleet: Deployment, one: WorkerProcess) -> WorkerProcess:
    """A worker that has lost its disk recovers while another joins; the other."""
    lose_disk(one)
    one.data_dir.mkdir()
    one.fail_at("restoring", "hold")
    one.start()
    fleet.until(lambda: says(one, b"opening"), "a recovery under way")
    before = rebalances(one)
    three = fleet.worker("three")
    fleet.until(lambda: rebalances(one) > before, "a rebalance while it is")
    one.let_go()
    return three


@pytest.mark.slow
def test_worker_that_is_asked_to_stop_in_a_revoke_costs_nothing(fleet: Deployment) -> None:
    one, two = fleet.worker("one"), fleet.worker("two")
    share(fleet, one, two)
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        one.fail_at("releasing", "hold")
        three = fleet.worker("three")
        fleet.until(lambda: says(one, b"rebalancing"), "a revoke under way")
        one.ask_to_stop()
        one.let_go()
        assert one.exit_code() in {0, FENCED}, one.said
        share(fleet, two, three)
        fleet.wait_progress(SOME)
    assert set(fleet.ends or ()) <= {FENCED}
    check(fleet)


def rebalances(process: WorkerProcess) -> float:
    """How often it was told which partitions are its own."""
    return process.metric_if_it_answers("streamer_rebalances_total") or 0


def says(process: WorkerProcess, reason: bytes) -> bool:
    """Whether a worker is not ready for this reason."""
    status, why = process.get("/readyz") or (0, b"")
    return status == 503 and reason in why


# ---- idle workers
@pytest.mark.parametrize(
    "seconds",
    [
        7,  # longer than a session time-out
        pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),  # aiokafka gives idle members up at 300
    ],
)
def test_worker_that_was_idle_for_long_takes_over(kafka: EmbeddedKafka, tmp_path: Path, seconds: int) -> None:
    with fleet_on(kafka.brokers, tmp_path, partitions=1) as fleet:
        one = fleet.worker("one").wait_ready()
        idle = fleet.worker("idle").wait_ready()
        with Feed(fleet, RATE):
            fleet.wait_progress(int(seconds * RATE), within_s=seconds + PATIENCE_S)
            assert owned(idle) == 0
            one.kill()
            share(fleet, idle)
            fleet.wait_progress(SOME)
        check(fleet)
        assert set(fleet.ends or ()) <= {FENCED}
