"""The embedded broker's data directory: whose it is, who uses it, and on which ports.

    streamer-kafka.json   our note: cluster, client port, version of Kafka
    streamer-kafka.lock   locked by the broker's processes while any of them lives; holds their owner's process id
    logs/                 Kafka's log.dirs; absent until it is completely formatted
    kafka.log             the broker's log, with the one before as kafka.log.1
    server.properties     written anew at each start

No Java here: `kafka.py` runs the broker.
"""

import base64
import errno
import fcntl
import os
import shutil
import socket
import time
import uuid
from pathlib import Path
from random import SystemRandom

import msgspec

from streamer.errors import BrokerError, DataDirError
from streamer.tools.kafka_jars import KAFKA_VERSION

HOST = "127.0.0.1"  # loopback only: the broker has no passwords
NOTE = "streamer-kafka.json"
LOCK = "streamer-kafka.lock"
PORTS = range(20_000, 32_000)  # below what systems hand out to outgoing connections: still free at the next start
FREE_BYTES = 128 << 20  # an empty broker takes 2 MB; less than this is gone in the first minute of a demo
HANDOVER_S = 40.0  # the broker of an owner that was killed stops within its grace of 30 s
POLL_S = 0.1


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a directory ours."""

    cluster_id: str
    port: int
    kafka: str


class DataDir:
    """A locked data directory of a broker of `version`. Raises DataDirError with what to do when it cannot be used."""

    def __init__(self, path: Path, version: str = KAFKA_VERSION) -> None:
        self.path, self._version = path.absolute(), version
        self.logs = self.path / "logs"
        self.lock_fd = -1

    def open(self) -> Note:
        """Lock the directory and say whose it is; a new one gets a cluster id, and port 0."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._leave_strangers_alone()
            self._lock()
            return self._checked_note()
        except OSError as exc:
            self.close()
            raise self.unusable(exc) from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up our part of the lock; the broker's processes hold theirs until they end."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def save(self, note: Note) -> None:
        """Replace the note in one step."""
        draft = self.path / f"{NOTE}.new"
        try:
            draft.write_bytes(msgspec.json.encode(note))
            draft.replace(self.path / NOTE)
        except OSError as exc:
            raise self.unusable(exc) from exc

    def unusable(self, exc: OSError) -> DataDirError:
        """The error for what the operating system said."""
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        todo = "free some space on its disk" if full else "make it a directory that this user can write"
        return DataDirError(
            f"{self.path} cannot be Kafka's data directory: {exc.strerror or exc}: {todo}, "
            "or choose another one with --data-dir"
        )

    def _leave_strangers_alone(self) -> None:
        found = {entry.name for entry in self.path.iterdir()} - {LOCK, f"{NOTE}.new"}
        if found and NOTE not in found:
            names = ", ".join(sorted(found)[:3])
            raise DataDirError(f"{self.path} holds something else ({names}): choose an empty directory with --data-dir")

    def _lock(self) -> None:
        self.lock_fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + HANDOVER_S
        while not self._try_lock():
            owner = self._owner()
            if _is_alive(owner) or time.monotonic() > deadline:
                raise DataDirError(
                    f"{self.path} is in use by another broker (started by process {owner}): stop that one first, "
                    "or choose another directory with --data-dir"
                )
            time.sleep(POLL_S)
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, str(os.getpid()).encode(), 0)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _owner(self) -> int:
        return int(os.pread(self.lock_fd, 20, 0) or b"0")

    def _checked_note(self) -> Note:
        if shutil.disk_usage(self.path).free < FREE_BYTES:
            raise OSError(errno.ENOSPC, f"less than {FREE_BYTES >> 20} MiB free")
        file = self.path / NOTE
        if not file.exists():
            return self._new_note()
        try:
            note = msgspec.json.decode(file.read_bytes(), type=Note)
        except msgspec.DecodeError as exc:
            raise DataDirError(
                f"{file} is not readable by this version ({exc}): upgrade streamer, or choose another "
                "directory with --data-dir"
            ) from None
        self._check(note)
        return note

    def _new_note(self) -> Note:
        note = Note(cluster_id=_new_cluster_id(), port=0, kafka=self._version)
        self.save(note)
        return note

    def _check(self, note: Note) -> None:
        if _numbers(note.kafka) > _numbers(self._version):
            raise DataDirError(
                f"{self.path} was written by Kafka {note.kafka}, this is {self._version}: upgrade streamer, or choose "
                "another directory with --data-dir"
            )
        cluster = self._cluster_of_logs()
        if cluster not in {None, note.cluster_id}:
            raise DataDirError(
                f"{self.logs} belongs to another cluster ({cluster}, not {note.cluster_id}): put this broker's own "
                "logs back, or choose another directory with --data-dir"
            )

    def _cluster_of_logs(self) -> str | None:
        if not self.logs.exists():
            return None
        lines = (self.logs / "meta.properties").read_text("utf-8").splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), "unknown")


def choose_port(wanted: int, noted: int) -> int:
    """`wanted`, or for 0 the noted one if it is still free, else any. Raises BrokerError when `wanted` is taken."""
    if wanted:
        reason = _why_taken(wanted)
        if reason:
            raise BrokerError(
                f"port {wanted} on {HOST} cannot be used ({reason}): stop the program that has it, "
                "or choose another with --port (0 takes any free one)"
            )
        return wanted
    if noted and not _why_taken(noted):
        return noted
    return any_port()


def any_port() -> int:
    """A port that is free now."""
    for port in SystemRandom().sample(PORTS, 100):
        if not _why_taken(port):
            return port
    raise BrokerError(f"100 ports between {PORTS.start} and {PORTS.stop} are all taken: stop some programs")


def _why_taken(port: int) -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as exc:
            return exc.strerror or str(exc)
    return ""


def _new_cluster_id() -> str:
    """22 characters, as Kafka's own; the format tool would take one that starts with a dash for an option."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()
        if not cluster_id.startswith("-"):
            return cluster_id


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
