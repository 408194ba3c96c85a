"""The embedded broker: what it keeps, how it stops, and what it says when it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from streamer.errors import BrokerError, DataDirError
from streamer.tools import kafka_jars
from streamer.tools.kafka import EmbeddedKafka, run_foreground
from streamer.tools.kafka_dir import NOTE, any_port
from streamer.tools.kafka_jars import KAFKA_VERSION
from streamer.tools.kafka_java import archive_options

FOREGROUND = """
import sys
from pathlib import Path
from streamer.errors import StreamerError
from streamer.tools.kafka import run_foreground
try:
    sys.exit(run_foreground(0, Path(sys.argv[1])))
except StreamerError as exc:
    sys.exit(f"{exc}")
"""

FORKING_OWNER = """
import os, signal, sys
from pathlib import Path
from streamer.tools.kafka import EmbeddedKafka
kafka = EmbeddedKafka(Path(sys.argv[1]))
kafka.start()
if os.fork():
    print("ready", flush=True)
signal.pause()
"""


def create_topic(brokers: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    admin.close()


def produce(brokers: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
    for value in values:
        producer.send(topic, value)
    producer.flush()
    producer.close()


def read(brokers: str, topic: str, *, isolation: str = "read_committed") -> list[bytes]:
    """Everything up to the end of partition 0."""
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=brokers, isolation_level=isolation, auto_offset_reset="earliest")
    consumer.assign([partition])
    end, found = consumer.end_offsets([partition])[partition], []
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=200).values():
            found += [record.value for record in records]
    consumer.close()
    return found


def write_note(data_dir: Path, **changes: object) -> None:
    note = {"cluster_id": "b3VyIG93biBjbHVzdGVyLg", "port": 0, "kafka": KAFKA_VERSION, **changes}
    (data_dir / NOTE).write_text(json.dumps(note))


@contextmanager
def owner(script: str, data_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A script in a process of its own, as a terminal starts it, with the line that it prints when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def java_of(process: "subprocess.Popen[str]") -> int:
    """The broker's process id."""
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child.pid for child in children if child.name() == "java")


def test_topics_and_records_outlive_a_clean_stop_and_a_kill(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path / "dürer, 1")
    with kafka:
        brokers = kafka.brokers
        create_topic(brokers, "kept")
        produce(brokers, "kept", [b"%d" % n for n in range(100)])
    assert not psutil.pid_exists(kafka.pid)
    kafka.start()
    assert kafka.brokers == brokers
    produce(brokers, "kept", [b"100"])
    kafka.kill()
    assert not psutil.pid_exists(kafka.pid)
    with kafka:
        assert read(kafka.brokers, "kept") == [b"%d" % n for n in range(101)]
    kafka.stop()


async def test_a_transaction_is_read_whole_or_not_at_all(kafka: EmbeddedKafka, prefix: str) -> None:
    topic = f"{prefix}in-transactions"
    create_topic(kafka.brokers, topic)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.brokers, transactional_id=f"{prefix}writer")
    async with producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"withdrawn")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept")
    assert read(kafka.brokers, topic) == [b"kept"]
    assert read(kafka.brokers, topic, isolation="read_uncommitted") == [b"withdrawn", b"kept"]


@pytest.mark.parametrize("to_group", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_the_foreground_broker_stops_cleanly_when_asked(tmp_path: Path, *, to_group: bool) -> None:
    with owner(FOREGROUND, tmp_path) as (process, line):
        java = java_of(process)
        if to_group:  # as a terminal sends it: to all processes of the group
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        assert process.wait() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert line.startswith(f"Kafka {KAFKA_VERSION} ready on 127.0.0.1:")
    assert line.endswith(f" (data in {tmp_path}, log in {tmp_path / 'kafka.log'})\n")
    assert not psutil.pid_exists(java)
    assert (tmp_path / "logs" / ".kafka_cleanshutdown").exists()


def test_no_java_outlives_a_killed_owner_even_if_a_fork_of_it_does(tmp_path: Path) -> None:
    with owner(FORKING_OWNER, tmp_path) as (process, _):
        java = java_of(process)
        process.kill()
        process.wait()
        with EmbeddedKafka(tmp_path):  # waits for the orphan's end instead of disturbing it
            assert not psutil.pid_exists(java)


def test_a_broker_that_hangs_is_killed_at_the_end_of_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamer.tools.kafka_java.GRACE_S", 0.1)
    kafka = EmbeddedKafka(tmp_path)
    kafka.start()
    os.kill(kafka.pid, signal.SIGSTOP)
    kafka.stop()
    assert not psutil.pid_exists(kafka.pid)
    assert "did not stop in time and was killed" in capsys.readouterr().out


def test_the_foreground_broker_says_why_it_ended_by_itself(tmp_path: Path) -> None:
    with owner(FOREGROUND, tmp_path) as (process, _):
        os.kill(java_of(process), signal.SIGKILL)
        _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith("Kafka ended by itself (exit code 137). The end of ")
    assert "INFO" in error


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*--port"):
            run_foreground(port, tmp_path)


def test_a_kept_port_that_was_taken_since_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host, port = other.getsockname()
        write_note(tmp_path, port=port)
        with EmbeddedKafka(tmp_path) as kafka:
            assert kafka.brokers != f"{host}:{port}"


def test_a_second_broker_on_the_same_directory_is_told_who_has_it(kafka: EmbeddedKafka) -> None:
    with pytest.raises(DataDirError, match=f"in use by another broker .*process {os.getpid()}"):
        EmbeddedKafka(kafka.data_dir).start()


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataDirError, match=r"holds something else \(thesis.tex\).*--data-dir"):
        EmbeddedKafka(tmp_path).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_logs_of_another_cluster_are_refused(tmp_path: Path) -> None:
    write_note(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "meta.properties").write_text("version=1\ncluster.id=theirs\nnode.id=1\n")
    with pytest.raises(DataDirError, match=r"another cluster \(theirs, not b3VyIG93biBjbHVzdGVyLg\)"):
        EmbeddedKafka(tmp_path).start()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kafka": "99.0.0"}, "written by Kafka 99.0.0, this is .*: upgrade streamer"),
        ({"layout": "of the future"}, "not readable by this version .*: upgrade streamer"),
    ],
)
def test_a_directory_of_a_newer_version_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_note(tmp_path, **changes)
    with pytest.raises(DataDirError, match=message):
        EmbeddedKafka(tmp_path).start()


@pytest.mark.parametrize("parent", ["a file", "/proc"])
def test_a_directory_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path, parent: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(DataDirError, match=r"cannot be Kafka's data directory: .*--data-dir"):
        EmbeddedKafka(tmp_path / parent / "kafka").start()


def test_a_full_disk_is_noticed_before_it_hurts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.tools.kafka_dir.FREE_BYTES", 1 << 62)
    with pytest.raises(DataDirError, match="free some space"):
        EmbeddedKafka(tmp_path).start()


# The cache of jars, with a repository on this machine that serves the very jars of the real cache.


class Repository(ThreadingHTTPServer):
    """A Maven repository that counts what it is asked for; `damaged` files are served cut in half."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: Counter[str] = Counter()
        self.damaged: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(SimpleHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        jar = kafka_jars.jar_dir() / name
        self.server.asked[name] += 1
        if not jar.exists():  # checksum files
            self.send_error(404)
            return
        body = jar.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if name in self.server.damaged else body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def repository() -> Iterator[Repository]:
    kafka_jars.install()
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A complete cache: the real one's jars, linked."""
    home = kafka_jars.jar_dir(tmp_path)
    home.mkdir(parents=True)
    for jar in kafka_jars.install():
        os.link(jar, home / jar.name)
    return tmp_path


def replace(jar: Path, content: bytes) -> None:
    """Not through the link: that would damage the real cache."""
    jar.unlink()
    jar.write_bytes(content)


NO_NETWORK = {"nowhere": f"http://127.0.0.1:{any_port()}"}


def test_a_complete_cache_needs_no_network(cache: Path) -> None:
    assert all(jar.exists() for jar in kafka_jars.install(cache, NO_NETWORK))


@pytest.mark.parametrize("damage", ["cut short", "altered", "missing"])
def test_a_damaged_jar_is_fetched_again_and_only_that(cache: Path, repository: Repository, damage: str) -> None:
    jar = kafka_jars.install(cache)[1]
    good = jar.read_bytes()
    replace(jar, {"cut short": good[:1000], "altered": good[:-1] + b"!", "missing": b""}[damage])
    if damage == "missing":
        jar.unlink()
    kafka_jars.install(cache, {"local": repository.url})
    assert jar.read_bytes() == good
    assert {name for name in repository.asked if name.endswith(".jar")} == {jar.name}


def test_a_damaged_cache_without_network_says_what_to_do(cache: Path) -> None:
    jar = kafka_jars.install(cache)[1]
    replace(jar, b"half a jar")
    with pytest.raises(BrokerError, match=r"cannot download Apache Kafka .*connect this machine"):
        kafka_jars.install(cache, NO_NETWORK)
    assert not (jar.parent / "staging").exists()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, repository: Repository) -> None:
    last = kafka_jars.locked_jars()[-1].file_name
    repository.damaged.add(last)
    with pytest.raises(BrokerError, match="cannot download"):
        kafka_jars.install(tmp_path, {"local": repository.url})
    repository.damaged.clear()
    asked_before = Counter(repository.asked)
    kafka_jars.install(tmp_path, {"local": repository.url})
    assert {name for name in repository.asked - asked_before if name.endswith(".jar")} == {last}


def test_two_that_start_at_once_share_one_download(tmp_path: Path, repository: Repository) -> None:
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: kafka_jars.install(tmp_path, {"local": repository.url}), range(2))
    assert first == second
    assert {count for name, count in repository.asked.items() if name.endswith(".jar")} == {1}


def test_java_without_a_startup_archive_is_asked_for_one_once(cache: Path) -> None:
    jars, asked = kafka_jars.install(cache), []
    for _ in range(2):
        assert archive_options(jars, asked.append) == []
    assert len(asked) == 1


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(DataDirError, match="XDG_CACHE_HOME"):
        kafka_jars.install(tmp_path / "a file")
