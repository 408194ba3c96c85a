"""`streamer worker` as tests run it: a process with settings of its own, watched through its HTTP API and its log."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.serving_world import free_port

T = TypeVar("T")

PATIENCE_S = 180.0  # what takes longer is broken, however busy the machine: a first start compiles for 20 to 60 s
POLL_S = 0.05
ROOT = Path(__file__).parents[1]  # from where Python finds the modules of the tests


def until(condition: Callable[[], T], what: Callable[[], str] | str, within_s: float = PATIENCE_S) -> T:
    """The first true answer of `condition`. After `within_s` the test fails, saying what was awaited."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what() if callable(what) else what}")
        time.sleep(POLL_S)
    return answer


def environment(**settings: Any) -> dict[str, str]:
    """Our environment with these settings in place of any that are set there."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    return ours | {f"STREAMER_{name.upper()}": str(value) for name, value in settings.items()}


class WorkerProcess:
    """One worker. `start` after it ended starts it again with the same settings; the log goes on in the same file.

    `command` is the module that runs, with its arguments.
    """

    def __init__(
        self, data_dir: Path, log: Path, *, command: Sequence[str] = ("streamer", "worker"), **settings: Any
    ) -> None:
        self.data_dir, self.log, self._command = data_dir, log, command
        self.port = free_port()
        self._environment = environment(data_dir=data_dir, http_port=self.port, **{"failpoints": True} | settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0
        self.is_wanted = False  # started, and not stopped or killed since

    def start(self) -> "WorkerProcess":
        """Start it; does not wait."""
        assert not self.is_running, "stop it first"
        self.is_wanted = True
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C in a terminal is for pytest, which stops us
            )
        return self

    # ---- how it is
    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """What it wrote since its last start."""
        return self.log.read_bytes()[self._log_begins :].decode()

    def get(self, path: str) -> tuple[int, bytes] | None:
        """Status and body of a page; None when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, summed over all series that have these labels."""
        value = self.metric_if_it_answers(name, **labels)
        assert value is not None, f"no metrics:\n{self.said}"
        return value

    def metric_if_it_answers(self, name: str, **labels: str) -> float | None:
        """As `metric`; None from a worker that may end at any moment."""
        answer = self.get("/metrics")
        if answer is None:
            return None
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer[1].decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    # ---- waiting
    def wait_ready(self) -> "WorkerProcess":
        """Wait until it answers for its partitions; fails at once when it ends instead."""
        until(self._is_ready, lambda: f"the worker ready\n{self.said}")
        return self

    def _is_ready(self) -> bool:
        assert self.is_running, f"the worker ended with {self.exit_code()}:\n{self.said}"
        answer = self.get("/readyz")
        return answer is not None and answer[0] == 200

    def exit_code(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        assert self._process is not None, "not started"
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {PATIENCE_S:g} s:\n{self.said}") from None

    # ---- what is done to it
    def stop(self) -> int:
        """SIGTERM, as an orchestrator does; the exit code."""
        self.ask_to_stop()
        return self.exit_code()

    def ask_to_stop(self) -> None:
        """SIGTERM; does not wait."""
        self.is_wanted = False
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for good; nothing when it has ended."""
        self.is_wanted = False
        if self.is_running:
            self.crash()

    def crash(self) -> None:
        """SIGKILL, as the kernel does; whoever supervises it starts it again."""
        self.send_signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it stands still and does not know."""
        self.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def fail_at(self, step: str, action: str = "kill") -> None:
        """It kills or freezes itself, raises, or holds, when it comes to a step: see streamer/engine/failpoint.py."""
        draft = self.data_dir / "fail.new"
        draft.write_text(f"{action} {step}")
        draft.rename(self.data_dir / "fail")

    def let_go(self) -> None:
        """End what `fail_at` holds, or take it back."""
        (self.data_dir / "fail").unlink(missing_ok=True)

    @property
    def has_failed(self) -> bool:
        """Whether the step of `fail_at` was reached."""
        return not (self.data_dir / "fail").exists()

    def send_signal(self, number: signal.Signals) -> None:
        """Any signal."""
        assert self._process is not None, "not started"
        assert self._process.poll() is None, f"the worker has ended already:\n{self.said}"
        self._process.send_signal(number)
