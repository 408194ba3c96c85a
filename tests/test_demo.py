import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr

from streamer.errors import StreamerError
from streamer.profile import Activity, Change, Interest, Profile
from streamer.settings import Settings
from streamer.tools import supervisor
from streamer.tools.demo_view import profile_line
from streamer.tools.demo_worker import DEATHS, WorkerProcess, environment, free_port
from streamer.tools.prometheus import is_installed
from tests.worker_process import until

DEMO = [sys.executable, "-m", "streamer", "demo", "--json"]
PATIENCE_S = 120  # what takes longer is broken, however busy the machine
USERS, EVENTS = 199, 40_000  # no divisor in common with the next two: everybody has good events
BAD_EVERY, REPEATED_EVERY = 100, 50  # every 100th event is bad, every 50th comes twice


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each demo leaves nothing behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert list(tmp_path.glob("streamer-demo-*")) == []


@contextmanager
def running_demo(*options: str, **settings: Any) -> Iterator["subprocess.Popen[str]"]:
    """A demo, ended by force when the test fails."""
    variables = {f"STREAMER_{name.upper()}": str(value) for name, value in settings.items()}
    with subprocess.Popen(
        [*DEMO, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def said(demo: "subprocess.Popen[str]", pattern: str) -> str:
    """What the pattern's group caught in the first line that has it."""
    seen = []
    for line in demo.stderr:
        seen.append(line)
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"no {pattern!r} in {seen}")


def ended(demo: "subprocess.Popen[str]") -> tuple[dict[str, Any], str]:
    """The summary, and what people read that `said` did not."""
    out, log = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, log
    return json.loads(out), log


def summary(demo: "subprocess.Popen[str]") -> dict[str, Any]:
    return ended(demo)[0]


def test_the_demo_takes_events_in_publishes_profiles_and_ends_in_time():
    with running_demo("--seconds", "2", partitions=4) as demo:
        assert said(demo, r"^page +(http://127.0.0.1:\d+/)")
        report, log = ended(demo)
    assert ("  Partitions owned\n" in log) == is_installed(), "where Prometheus is, the demo ends with the dashboard"
    assert report.keys() == {"events", "profiles_published", "users", "rejected", "events_per_second", "seconds"}
    assert report["events"] > 10_000
    assert report["profiles_published"] >= report["users"] > 400
    assert report["rejected"] == 0


def test_a_demo_that_is_stopped_before_its_worker_is_ready_ends_in_order(tmp_path: Path):
    with running_demo(partitions=4) as demo:
        said(demo, "^(topics) +ready")
        until(lambda: list(tmp_path.glob("streamer-demo-*/worker.log")), "the worker was started")
        demo.send_signal(signal.SIGTERM)
        assert summary(demo)["seconds"] >= 0


def lines() -> Iterator[str]:
    """An item, events of which some are bad and some come twice, and a line that is no event."""
    yield json.dumps({"type": "item", "item_id": "tent", "title": "Tent", "tags": ["outdoor"]})
    for n in range(EVENTS):
        event = {"event_id": f"e{n}", "user_id": f"u{n % USERS}", "item_id": "tent", "ts": n}
        kind = {"type": "purchase", "price": 2.5, "currency": "EUR"} if n % 7 == 0 else {"type": "click"}
        bad = {"ts": "noon"} if n % BAD_EVERY == 0 else {}
        yield json.dumps(kind | event | bad)
        if n % REPEATED_EVERY == 1:
            yield json.dumps(kind | event)
    yield "oops"


async def test_a_worker_that_is_killed_comes_back_and_every_figure_adds_up(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines()))
    bad, repeated = EVENTS // BAD_EVERY, EVENTS // REPEATED_EVERY
    # Small batches make a worker slow enough to be killed in the middle; what is held back comes out at once.
    with running_demo("--data", str(path), batch_records=50, publish_within_ms=100, partitions=4) as demo:
        brokers = said(demo, r"--brokers (\S+)")
        pid = int(said(demo, r"kill -9 (\d+)"))
        await kill_in_the_middle(pid, brokers, EVENTS + repeated)
        assert said(demo, r"worker (\d+) was killed \(signal 9\): starting another") == str(pid)
        await asyncio.wait_for(until_counted(brokers, EVENTS - bad), PATIENCE_S)
        demo.send_signal(signal.SIGINT)
        report = summary(demo)
    assert (report["events"], report["rejected"], report["users"]) == (EVENTS + repeated, bad, USERS)


async def kill_in_the_middle(pid: int, brokers: str, events: int) -> None:
    """Kill the worker once it has committed something, before it has committed all."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        while (done := await committed(admin)) == 0:
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
        assert done < events, "all was taken in before the kill: take more events"
    finally:
        await admin.close()


async def committed(admin: AIOKafkaAdminClient) -> int:
    positions = await admin.list_consumer_group_offsets("streamer")
    return sum(at.offset for place, at in positions.items() if place.topic in ("clicks", "purchases"))


async def until_counted(brokers: str, events: int) -> None:
    """Read profiles until the latest of all people count so many events together, and never more."""
    consumer = AIOKafkaConsumer(
        "profiles", bootstrap_servers=brokers, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    latest: dict[bytes, int] = {}
    await consumer.start()
    try:
        while (counted := sum(latest.values())) < events:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                activities = [(record.key, json.loads(record.value)["activity"]) for record in records]
                latest |= {key: activity["clicks"] + activity["purchases"] for key, activity in activities}
        assert counted == events
    finally:
        await consumer.stop()


def test_a_missing_data_file_is_named_before_anything_starts(tmp_path: Path):
    done = subprocess.run([*DEMO, "--data", str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stdout == ""


async def test_a_worker_that_ends_for_good_is_reported_with_its_code_and_its_log(tmp_path: Path):
    settings = Settings(brokers="127.0.0.1:1", broker_wait_ms=1, data_dir=tmp_path / "data", http_port=0)
    async with WorkerProcess(settings, tmp_path / "worker.log", [].append) as worker:
        await worker._running
        with pytest.raises(StreamerError, match=r"(?s)exit code 3.*127\.0\.0\.1:1"):
            worker.check()
        assert await worker.stop() == 3


async def test_a_worker_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)
    told: list[str] = []
    settings = Settings(brokers="127.0.0.1:1", broker_wait_ms=0, data_dir=tmp_path / "data", http_port=0)
    async with WorkerProcess(settings, tmp_path / "worker.log", told.append) as worker:
        pid = 0
        while len(told) < DEATHS:
            worker.check()
            if worker.pid != pid:
                pid = worker.pid
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
        with pytest.raises(StreamerError, match=f"ended {DEATHS} times"):
            worker.check()


def test_the_environment_carries_settings_but_no_secrets():
    variables = environment(Settings(brokers="b:1", http_port=7, http_token=SecretStr("hush")))
    assert (variables["STREAMER_BROKERS"], variables["STREAMER_HTTP_PORT"]) == ("b:1", "7")
    assert not {"STREAMER_HTTP_TOKEN", "STREAMER_SASL_PASSWORD"} & variables.keys()


def test_the_wanted_port_is_taken_when_it_is_free_and_another_one_when_not():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) not in (0, port)
    assert free_port("127.0.0.1", port) == port


def profile(*changed: Change) -> Profile:
    interests = (Interest("tent", 3.0, 0.41, 0.5, 2.0, 3.0, 1000), Interest("kite", 1.0, 0.22, 0.1, 1.0, 1.0, 900))
    activity = Activity(3, 1, {}, 1, 2, (0,) * 24)
    return Profile("ada-lovelace-0", 7, 1, 2, interests, "", 0, "m", activity, (), changed, "e1")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            [Change("interest_shifted", "tent", 0.3, 0.41), Change("interest_added", "kite", 0.0, 0.02)],
            "tent 30% → 41%",
        ),
        ([Change("interest_added", "kite", 0.0, 0.22), Change("vector_moved", None, 1.0, 0.8)], "+ kite"),
        ([Change("interest_dropped", "vase", 0.02, 0.0)], "- vase"),
        ([Change("interest_added", "tent", 0.0, 0.41), Change("first_profile")], "is new"),
        ([Change("vector_moved", None, 1.0, 0.8)], "vector moved"),
    ],
)
def test_a_line_about_a_person_tells_interests_and_the_largest_change(changed: list[Change], said: str):
    line = profile_line(profile(*changed)).plain
    assert "ada-lovelace-0" in line
    assert "tent 41%, kite 22%" in line
    assert line.endswith(said)
