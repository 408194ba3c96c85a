"""Brokers that die, stand still or are of another version."""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from streamer.tools.kafka import EmbeddedKafka
from tests.cluster import NODES, Cluster
from tests.deployment import Feed
from tests.fleet import FENCED, KILLED, RATE, SOME, STEPS, check, fail_at, fleet_on, lose_disk, named, share

OLDEST = Path(__file__).with_name("oldest_kafka_jars.lock")
HANG_S = 35  # longer than the 30 s after which the worker's requests time out

# kafka-python leaves the socket behind when a connection is refused.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def _left_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """They go while the filter above is in force: no log record keeps the exception that keeps them."""
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


# ---- a broker that goes away
@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        yield broker


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(EmbeddedKafka.stop, id="clean", marks=pytest.mark.slow),
        pytest.param(EmbeddedKafka.kill, id="killed"),
    ],
)
def test_broker_that_restarts_under_load_costs_no_event(
    own_kafka: EmbeddedKafka, tmp_path: Path, end: Callable[[EmbeddedKafka], None]
) -> None:
    with fleet_on(own_kafka.brokers, tmp_path) as fleet:
        process = fleet.worker().wait_ready()
        with Feed(fleet, RATE) as feed:
            fleet.until(lambda: feed.sent > SOME, "events on their way")
            end(own_kafka)
            own_kafka.start()
            at = feed.sent
            fleet.until(lambda: feed.sent > at + SOME, "events after the restart")
        check(fleet)
        assert set(fleet.ends or ()) <= {FENCED}, process.log.read_text()
        assert "Traceback" not in process.log.read_text()


# ---- several brokers
@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as brokers:
        yield brokers


def in_sync(admin: KafkaAdminClient) -> bool:
    """Whether every partition, also of Kafka's own topics, has all its replicas."""
    try:
        topics = admin.describe_topics()
    except KafkaError:
        return False
    return all(len(partition["isr_nodes"]) == NODES for topic in topics for partition in topic["partitions"])


@pytest.mark.slow
def test_killed_broker_of_three_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with fleet_on(cluster.brokers, tmp_path, replication=3) as fleet:
        one, two = fleet.worker("one"), fleet.worker("two")
        share(fleet, one, two)
        admin = KafkaAdminClient(bootstrap_servers=cluster.brokers)
        with Feed(fleet, RATE):
            for node in cluster.nodes:
                fleet.until(lambda: in_sync(admin), "all replicas in sync")
                node.kill()
                fleet.wait_progress(SOME)
                node.start()
                fleet.wait_progress(SOME)
        admin.close()
        check(fleet)
        assert set(fleet.ends or ()) <= {FENCED}


# ---- a broker that does not answer
@pytest.mark.slow
def test_broker_that_answers_nothing_for_long_costs_nothing(own_kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with fleet_on(own_kafka.brokers, tmp_path) as fleet:
        named(fleet, "w").wait_ready()
        with Feed(fleet, RATE):
            fleet.wait_progress(SOME)
            os.kill(own_kafka.pid, signal.SIGSTOP)
            try:
                time.sleep(HANG_S)  # no wait for something: this is the fault
            finally:
                os.kill(own_kafka.pid, signal.SIGCONT)
            fleet.wait_progress(SOME)
        check(fleet)
        assert set(fleet.ends or ()) <= {FENCED}


# ---- other versions
@pytest.mark.slow
def test_oldest_kafka_that_we_promise_costs_nothing_either(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka", lock=OLDEST) as kafka, fleet_on(kafka.brokers, tmp_path) as fleet:
        assert kafka.version.startswith("3.9.")
        one, two = named(fleet, "one"), fleet.worker("two")
        share(fleet, one, two)
        with Feed(fleet, RATE):
            for step in STEPS:
                fail_at(fleet, one, step)
            fleet.wait_progress(SOME)
            lose_disk(one)
            share(fleet, one, two)
            two.freeze()
            share(fleet, one)
            two.wake()
            share(fleet, one, two)
            fleet.wait_progress(SOME)
        check(fleet)
        assert set(fleet.ends or ()) <= {KILLED, FENCED}
