"""The watchdog: what stands still with work to do is ended, and nothing else is."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.failpoint import Failpoint
from streamer.engine.opening import Opening
from streamer.engine.partition import Partition
from streamer.engine.shared import shared_state
from streamer.engine.store import shared_cache
from streamer.engine.watchdog import GRACE_S, LOOK_S, Watchdog, Work
from streamer.settings import load
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import deployed, made_up

LIMIT_S = 10.0
TEMPORARY = 75


class Watched:
    """A watchdog over one unit, that notes the reason for which it would end the process."""

    def __init__(self) -> None:
        self.work: dict[str, Work] = {}
        self.ended: list[str] = []
        self.dog = Watchdog(LIMIT_S, lambda: self.work, self.ended.append)

    def look(self, seconds: float, *work: Work) -> None:
        """So many seconds in which the work stays as it is."""
        self.work = {f"unit {n}": each for n, each in enumerate(work)}
        for _ in range(int(seconds / LOOK_S)):
            self.dog.look()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_work_without_progress_fails_liveness_and_then_ends_the_process(watched: Watched) -> None:
    watched.look(LIMIT_S, Work("9 records wait", mark=1))
    assert watched.dog.stalled == ""
    watched.look(1, Work("9 records wait", mark=1))
    assert watched.dog.stalled == "9 records wait; no step forward for 10 s"
    watched.look(GRACE_S - 1, Work("9 records wait", mark=1))
    assert watched.ended == []
    watched.look(1, Work("9 records wait", mark=1))
    assert watched.ended == ["9 records wait; no step forward for 25 s"]


def test_slow_progress_is_progress(watched: Watched) -> None:
    for step in range(20):
        watched.look(LIMIT_S, Work("a restore", mark=step))
    assert (watched.dog.stalled, watched.ended) == ("", [])


def test_idle_time_does_not_count(watched: Watched) -> None:
    for _ in range(10):
        watched.look(1000)
        watched.look(LIMIT_S, Work("9 records wait", mark=1))
    assert watched.dog.stalled == ""


def test_liveness_comes_back_when_something_moves(watched: Watched) -> None:
    watched.look(LIMIT_S + 2, Work("9 records wait", mark=1))
    assert watched.dog.stalled
    watched.look(LIMIT_S, Work("8 records wait", mark=2))
    assert (watched.dog.stalled, watched.ended) == ("", [])


def test_one_that_moves_does_not_hide_one_that_stands_still(watched: Watched) -> None:
    for step in range(int(LIMIT_S) + 2):
        watched.look(1, Work("this moves", mark=step), Work("that does not", mark=0))
    assert watched.dog.stalled.startswith("that does not")


def test_what_others_hold_up_is_waited_for_longer(watched: Watched) -> None:
    watched.look(LIMIT_S + 60, Work("rebalancing", mark=1, patience_s=60))
    assert watched.dog.stalled == ""
    watched.look(1, Work("rebalancing", mark=1, patience_s=60))
    assert watched.dog.stalled


async def test_event_loop_that_does_not_answer_ends_the_process() -> None:
    ended, reasons = threading.Event(), []

    def end(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    dog = Watchdog(LOOK_S, dict, end)
    await dog.start()
    assert ended.wait(60), "blocks the loop until the thread of the watchdog notices"
    assert "the event loop does not answer" in reasons[0]
    await dog.stop()


def test_restore_is_slow_or_stands_still(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, failpoints=False)
    shared = shared_state(settings)
    reader = CatalogueReader(settings, shared)
    opening = Opening(settings, reader, {0: Partition(0, shared)}, shared_cache(8), Failpoint(settings))
    opening.restored(10, 100)
    before = opening.steps
    opening.restored(10, 100)
    assert opening.steps == before
    opening.restored(11, 100)
    assert opening.steps > before
    assert opening.doing.startswith("restoring 1 partitions, 11 %, 89 rows left, about ")


def test_a_catalogue_that_is_loaded_and_goes_on_is_no_step_of_a_restore_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count()
    monkeypatch.setattr(CatalogueReader, "records_read", property(lambda _: next(read)))
    settings = load(data_dir=tmp_path, failpoints=False)
    shared = shared_state(settings)
    reader = CatalogueReader(settings, shared)
    opening = Opening(settings, reader, {0: Partition(0, shared)}, shared_cache(8), Failpoint(settings))
    assert opening.steps < opening.steps
    reader.loaded.set()
    assert opening.steps == opening.steps


# ---- on a real broker
@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of this test's own, to do things to."""
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        yield broker


def test_broker_that_freezes_with_work_to_do_ends_the_worker_and_a_restart_goes_on(
    own_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    options = {"publish_within_ms": 1000, "seen_ids": 1, "batch_records": 20, "checkpoint_ms": 500}
    with deployed(own_kafka.brokers, tmp_path, **options) as deployment:
        process = deployment.worker(stall_ms=5000).wait_ready()
        events = made_up(users=50, items=5)
        deployment.send(next(events) for _ in range(20_000))
        deployment.until(lambda: sum(deployment.committed().values()) > 500, "the first checkpoints")
        os.kill(own_kafka.pid, signal.SIGSTOP)
        try:
            deployment.until(lambda: (process.get("/healthz") or (0,))[0] == 503, "liveness that fails")
            answer = process.get("/healthz")
            assert answer is not None
            assert "no step forward for" in json.loads(answer[1])["detail"]
            assert process.metric("streamer_stalls_total") == 1
            assert process.exit_code() == TEMPORARY, process.said
        finally:
            os.kill(own_kafka.pid, signal.SIGCONT)
        assert "no progress: leaving without a commit" in process.said
        process.start().wait_ready()
        deployment.check_profiles()
        assert process.stop() == 0
        assert deployment.check_stores() == deployment.settings.partitions
