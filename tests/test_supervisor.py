import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from streamer.tools import supervisor
from streamer.tools.supervisor import Supervisor, worker_command
from tests.serving_world import free_port

# Stands where a worker stands: says its process id, then ends as the plan says for this start.
PROGRAM = """
import os, signal, sys
starts, plan = sys.argv[1], sys.argv[2:]
with open(starts, "a+") as file:
    file.write("x")
    file.flush()
    file.seek(0)
    end = plan[len(file.read()) - 1]
def drain(*_):
    os.write(1, b"drained\\n")  # print would fail inside the print that it interrupts
    os._exit(0)
if end == "drain":
    signal.signal(signal.SIGTERM, drain)
if end == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
if end.startswith("-"):
    os.kill(os.getpid(), -int(end))
if end.isdigit():
    sys.exit(int(end))
while True:
    signal.pause()
"""
KEEP = "import sys; from streamer.tools.supervisor import supervise; sys.exit(supervise(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)


def command(directory: Path, *plan: str | int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PROGRAM, str(directory / "starts"), *map(str, plan)]


def starts(directory: Path) -> int:
    return len((directory / "starts").read_text())


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """What a worker says, and where it says it."""
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb")) as said, closing(os.fdopen(writing, "wb")) as output:
        yield said, output


async def test_a_worker_that_crashes_or_is_killed_is_followed_by_another_with_a_line(tmp_path: Path):
    lines: list[str] = []
    code = await Supervisor(command(tmp_path, 70, 75, -9, 0), lines.append).run(asyncio.Event())
    assert (code, starts(tmp_path)) == (0, 4)
    assert [line.split(":")[0].split(" ", 2)[2] for line in lines] == [
        "failed (exit code 70)",
        "failed (exit code 75)",
        "was killed (signal 9)",
    ]
    assert all(line.endswith("; it goes on from its own state") for line in lines)


@pytest.mark.parametrize("code", range(8))
async def test_an_end_that_is_for_people_ends_the_supervisor_with_the_same_code(tmp_path: Path, code: int):
    lines: list[str] = []
    assert await Supervisor(command(tmp_path, code), lines.append).run(asyncio.Event()) == code
    assert (lines, starts(tmp_path)) == ([], 1)


async def test_a_broker_that_went_away_while_we_ran_is_waited_for_again(tmp_path: Path):
    lines: list[str] = []
    assert await Supervisor(command(tmp_path, 75, 3, 3, 4), lines.append).run(asyncio.Event()) == 4
    assert ["lost its broker" in line for line in lines] == [False, True, True]


async def test_further_codes_can_be_followed_by_another_worker(tmp_path: Path):
    keeper = Supervisor(command(tmp_path, 0, 0, 5), [].append, also_after=frozenset({0}))
    assert await keeper.run(asyncio.Event()) == 5
    assert keeper.restarts == 2


@pytest.mark.parametrize(("how", "code"), [("drain", 0), ("unready", 0), ("deaf", 137)])
async def test_stopping_drains_a_worker_and_ends_a_deaf_one_by_force(tmp_path: Path, monkeypatch, pipe, how, code):
    monkeypatch.setattr(supervisor, "STOP_S", 0.3 if how == "deaf" else 30)
    (said, output), stop = pipe, asyncio.Event()
    running = asyncio.create_task(Supervisor(command(tmp_path, how), [].append, output=output).run(stop))
    await asyncio.to_thread(said.readline)
    stop.set()
    assert await running == code
    if how == "drain":
        assert said.readline() == b"drained\n"


async def test_a_stop_between_two_workers_starts_no_other(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 60)
    stop = asyncio.Event()
    assert await Supervisor(command(tmp_path, 70), lambda _: stop.set()).run(stop) == 0
    assert starts(tmp_path) == 1


async def test_a_killed_guard_takes_its_worker_with_it_and_another_follows(tmp_path: Path, pipe):
    (said, output), lines = pipe, []
    keeper = Supervisor(command(tmp_path, "drain", 0), lines.append, output=output)
    running = asyncio.create_task(keeper.run(asyncio.Event()))
    pid = int(await asyncio.to_thread(said.readline))
    os.kill(os.getpgid(pid), signal.SIGKILL)
    assert await running == 0
    output.close()
    assert f"worker {pid} was killed (signal 9)" in lines[0]
    assert len(said.read().splitlines()) == 1  # the second worker's id, and the end: nobody is left who could write


def test_no_worker_outlives_a_supervisor_that_is_killed(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", KEEP, *command(tmp_path, "drain")], stderr=subprocess.PIPE) as keeper:
        assert int(keeper.stderr.readline()) != keeper.pid
        keeper.kill()
        assert keeper.stderr.read() == b"drained\n"  # up to the end, which comes when the last process is gone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_drains_the_worker(tmp_path: Path, number: signal.Signals):
    with subprocess.Popen([sys.executable, "-c", KEEP, *command(tmp_path, "drain")], stderr=subprocess.PIPE) as keeper:
        keeper.stderr.readline()
        keeper.send_signal(number)
        assert keeper.stderr.read() == b"drained\n"
    assert keeper.returncode == 0


def test_a_command_line_names_the_options_that_were_given():
    assert worker_command(brokers="b:1", data_dir=None, http_port=7)[-3:] == [
        "worker",
        "--brokers=b:1",
        "--http-port=7",
    ]


def test_streamer_worker_restart_keeps_a_real_worker_with_its_options(tmp_path: Path):
    broker = f"127.0.0.1:{free_port()}"
    options = ["--restart", "--brokers", broker, "--data-dir", str(tmp_path)]
    environment = os.environ | {"STREAMER_BROKER_WAIT_MS": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "streamer", "worker", *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as keeper:
        assert broker in wait_for("no broker yet", keeper.stderr)
        pid = int((tmp_path / "LOCK").read_text())
        os.kill(pid, signal.SIGKILL)
        assert f"worker {pid} was killed (signal 9): starting another" in keeper.stderr.readline()
        keeper.terminate()
        rest = keeper.stderr.read()
    assert keeper.returncode == 0, rest


def wait_for(text: str, lines: IO[str]) -> str:
    seen = []
    for line in lines:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in {seen}")
