"""What a worker says and does when what it needs is not there, is wrong, or goes away."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from streamer.events import Item
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed, made_up
from tests.serving_world import free_port
from tests.worker_process import WorkerProcess, until

NO_BROKER, BAD_TOPICS, BAD_DATA_DIR = 3, 4, 5
DISK_BYTES = 48 << 20  # room for the state of three partitions, and no more than a moment to fill


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path) as own:
        yield own


@contextmanager
def worker(data_dir: Path, log: Path, **settings: object) -> Iterator[WorkerProcess]:
    """A worker outside of any deployment."""
    process = WorkerProcess(data_dir, log, **settings).start()
    try:
        yield process
    finally:
        process.kill()


def last_words(process: WorkerProcess, code: int) -> str:
    """What it said before it ended with `code`, in words and not in a traceback."""
    ended_with = process.exit_code()
    assert ended_with == code, process.said
    assert "Traceback" not in process.said
    return process.said


# ---- the broker
def test_without_a_broker_it_says_so_and_gives_up_in_time(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with worker(tmp_path / "w", tmp_path / "log", brokers=address, broker_wait_ms=1500) as process:
        said = last_words(process, NO_BROKER)
    assert "no broker yet, trying again" in said
    assert re.search(rf"error: no broker at {address}: Connection refused .* STREAMER_BROKERS", said)


def test_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with worker(tmp_path / "w", tmp_path / "log", brokers=f"127.0.0.1:{port}") as process:
        until(lambda: "no broker yet" in process.said, "the wait for a broker")
        with EmbeddedKafka(tmp_path / "kafka", port):
            assert "streamer topics create" in last_words(process, BAD_TOPICS)


# ---- the topics
def test_missing_topics_are_named_with_the_command_that_makes_them(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with worker(tmp_path / "w", tmp_path / "log", brokers=kafka.brokers, topic_prefix="nothing-") as process:
        said = last_words(process, BAD_TOPICS)
    assert "nothing-clicks" in said
    assert "nothing-profiles" in said
    assert "streamer topics create" in said


def test_other_number_of_partitions_is_named(deployment: Deployment) -> None:
    said = last_words(deployment.worker(partitions=4), BAD_TOPICS)
    assert "partitions is 3, has to be 4: set STREAMER_PARTITIONS=3" in said


def test_topic_with_too_few_partitions_is_named(kafka: EmbeddedKafka, deployment: Deployment) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.brokers)
    clicks = deployment.settings.topic("clicks")
    admin.delete_topics([clicks])
    until(lambda: clicks not in admin.list_topics(), "the topic deleted")
    admin.create_topics([NewTopic(clicks, num_partitions=1, replication_factor=1)])
    admin.close()
    said = last_words(deployment.worker(), BAD_TOPICS)
    assert f"{clicks}: partitions is 1, has to be 3" in said


# ---- the data directory
def test_second_worker_on_the_same_data_directory_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    first = deployment.worker()
    until(lambda: (first.data_dir / "LOCK").exists() and "preparing" in first.said, "the first one at home")
    with worker(first.data_dir, tmp_path / "second.log", brokers=deployment.settings.brokers) as second:
        said = last_words(second, BAD_DATA_DIR)
    assert f"in use by another worker (process {first.pid})" in said
    assert "STREAMER_DATA_DIR" in said
    assert first.is_running


def test_file_in_place_of_the_data_directory_is_named(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.write_text("not a directory")
    with worker(place, tmp_path / "log", brokers=kafka.brokers) as process:
        said = last_words(process, BAD_DATA_DIR)
    assert f"data directory {place} cannot be written (File exists)" in said


def test_place_where_nothing_can_be_written_is_named(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with worker(Path("/proc/streamer"), tmp_path / "log", brokers=kafka.brokers) as process:
        said = last_words(process, BAD_DATA_DIR)
    assert "data directory /proc/streamer cannot be written" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with DISK_BYTES."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Write until there is no room left; the file to delete for some."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return filler


def test_full_disk_at_the_start_is_named(kafka: EmbeddedKafka, small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "w").mkdir()
    fill(small_disk)
    with worker(small_disk / "w", tmp_path / "log", brokers=kafka.brokers) as process:
        said = last_words(process, BAD_DATA_DIR)
    assert "cannot be written (No space left on device)" in said


def test_disk_that_runs_full_ends_the_worker_and_nothing_is_lost(
    kafka: EmbeddedKafka, small_disk: Path, tmp_path: Path
) -> None:
    with deployed(kafka.brokers, tmp_path, publish_within_ms=1000, seen_ids=1) as deployment:
        process = deployment.worker(data_dir=small_disk / "w").wait_ready()
        filler = fill(small_disk)
        events = made_up(users=50, items=5)
        deployment.send(Item(f"item-{n}", f"Item {n}", (f"tag-{n}",)) for n in range(5))
        deployment.send(next(events) for _ in range(2000))
        said = last_words(process, BAD_DATA_DIR)
        assert "No space left on device" in said
        assert "see to disk and space" in said
        filler.unlink()
        process.start().wait_ready()
        deployment.check_profiles()
        assert process.stop() == 0
        assert deployment.check_stores() == deployment.settings.partitions
