"""Failures inside a checkpoint or a batch: crashes, exceptions, brokers that refuse, and workers that stood still."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streamer.engine.failpoint import Failpoint
from streamer.events import Click
from streamer.settings import load
from tests.deployment import Deployment, Feed
from tests.fleet import FENCED, KILLED, RATE, SOME, STEPS, UNEXPECTED, check, fail_at, named, share
from tests.worker_process import WorkerProcess, until

TS = 1_760_000_000_000


@pytest.mark.parametrize("action", ["kill", pytest.param("raise", marks=pytest.mark.slow)])
def test_failure_between_any_two_steps_or_in_a_batch_costs_nothing(fleet: Deployment, action: str) -> None:
    process = named(fleet, "w").wait_ready()
    with Feed(fleet, RATE):
        for step in STEPS:
            fail_at(fleet, process, step, action)
        fail_at(fleet, process, "mid_batch", "raise")
        fleet.wait_progress(SOME)
    raised = 1 if action == "kill" else 1 + len(STEPS)
    assert (fleet.ends or []).count(UNEXPECTED) == raised
    assert (fleet.ends or []).count(KILLED) == 1 + len(STEPS) - raised
    assert process.log.read_text().count("leaving without a commit") == raised
    check(fleet)


BEFORE_COMMIT = [pytest.param(step, marks=[] if step == "after_offsets" else pytest.mark.slow) for step in STEPS[:-1]]


@pytest.mark.parametrize("step", BEFORE_COMMIT)
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
    assert set(fleet.ends or ()) == {FENCED}
    assert "another worker took our partition over" in one.log.read_text()
    check(fleet)


# ---- brokers that do not take what is produced
@contextmanager
def topic_config(fleet: Deployment, topic: str, name: str, value: int, restored: int) -> Iterator[None]:
    """A topic's config has another value inside the block."""
    admin = KafkaAdminClient(bootstrap_servers=fleet.settings.brokers)

    def put(config: int) -> None:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: str(config)})])

    put(value)
    try:
        yield
    finally:
        put(restored)
        admin.close()


def send_until_it_ends(fleet: Deployment, process: WorkerProcess) -> None:
    """New clicks until the worker meets the refusal: the broker takes a moment to know of it."""
    numbers = count()

    def ended() -> bool:
        if process.is_running:
            fleet.send(Click(f"c{n}", f"user-{n % 20}", "mug", TS + n) for n in islice(numbers, 20))
        return not process.is_running

    until(ended, lambda: f"the end of the worker\n{process.said}")


@pytest.mark.parametrize("topic", ["changelog", pytest.param("profiles", marks=pytest.mark.slow)])
def test_what_the_broker_refuses_ends_the_worker_before_a_commit(fleet: Deployment, topic: str) -> None:
    settings = fleet.settings
    process = named(fleet, "w").wait_ready()
    name = settings.changelog_topic if topic == "changelog" else settings.topic(topic)
    with topic_config(fleet, name, "max.message.bytes", 10, 1_048_588):
        send_until_it_ends(fleet, process)
        assert process.exit_code() == FENCED, process.said
        assert "Kafka failed: leaving without a commit" in process.said
    check(fleet)


@pytest.mark.parametrize("failpoints", [True, False])
def test_failpoints_are_inert_unless_they_are_asked_for(tmp_path: Path, failpoints: bool) -> None:
    file = tmp_path / "fail"
    file.write_text("raise after_acks")
    at = Failpoint(load(data_dir=tmp_path, failpoints=failpoints))
    at("after_cut")
    if failpoints:
        with pytest.raises(RuntimeError, match="after_acks"):
            at("after_acks")
    else:
        at("after_acks")
    assert file.exists() is not failpoints
