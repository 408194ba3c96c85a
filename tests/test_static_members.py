"""Static group membership: who is back within the session time-out finds everything as it was, and so do the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from streamer.errors import SettingsError
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed, deployed
from tests.fleet import share
from tests.worker_process import WorkerProcess

SOME = 300  # events


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    """A session lasts longer than a restart, however busy the machine."""
    with deployed(kafka.brokers, tmp_path, publish_within_ms=1000, seen_ids=1, session_timeout_ms=120_000) as own:
        yield own


def partitions_of(process: WorkerProcess) -> list[int]:
    answer = process.get("/v1/status")
    assert answer is not None
    return [each["partition"] for each in msgspec.json.decode(answer[1])["partitions"]]


def crash(process: WorkerProcess) -> None:
    process.crash()


def stop(process: WorkerProcess) -> None:
    assert process.stop() == 0, process.said


@pytest.mark.parametrize("end", [crash, pytest.param(stop, marks=pytest.mark.slow)])
def test_restart_within_the_session_time_out_moves_no_partition(
    deployment: Deployment, end: Callable[[WorkerProcess], None]
) -> None:
    one, two = (deployment.worker(name, instance_id=name) for name in ("one", "two"))
    share(deployment, one, two)
    with Feed(deployment, rate=300):
        for restarted, other in ((one, two), (two, one)):  # one of the two leads the group
            before = partitions_of(restarted), partitions_of(other), other.metric("streamer_rebalances_total")
            end(restarted)
            restarted.start().wait_ready()
            after = partitions_of(restarted), partitions_of(other), other.metric("streamer_rebalances_total")
            assert after == before
            deployment.wait_progress(SOME)
    deployment.check_profiles()
    stop(one)
    stop(two)


def test_second_worker_with_an_instance_id_ends_and_says_so_and_the_first_goes_on(deployment: Deployment) -> None:
    first = deployment.worker("first", instance_id="twin").wait_ready()
    second = deployment.worker("second", instance_id="twin")
    assert second.exit_code() == SettingsError.exit_code
    assert "STREAMER_INSTANCE_ID=twin is another worker's" in second.said
    second.kill()
    with Feed(deployment, rate=300):
        deployment.wait_progress(SOME)
    stop(first)
