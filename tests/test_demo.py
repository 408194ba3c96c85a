import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from streamer.errors import StreamerError
from streamer.events import KINDS
from streamer.profile import Activity, Change, Interest, Profile
from streamer.settings import Settings
from streamer.tools.demo_view import profile_line
from streamer.tools.demo_worker import Counts, WorkerProcess, environment, free_port, parse_counts

DEMO = [sys.executable, "-m", "streamer", "demo", "--json"]


def test_the_demo_takes_events_in_publishes_profiles_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run([*DEMO, "--seconds", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() == {"events", "profiles_published", "users", "rejected", "events_per_second", "seconds"}
    assert report["events"] > 10_000
    assert report["profiles_published"] >= report["users"] > 400
    assert report["rejected"] == 0
    assert "http://127.0.0.1:" in done.stderr
    assert list(tmp_path.glob("streamer-demo-*")) == []


def test_the_demo_replays_a_file_and_rejects_what_is_bad_in_it(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = tmp_path / "events.jsonl"
    good = [
        {"type": "item", "item_id": "tent", "title": "Tent", "tags": ["outdoor"]},
        *({"type": "click", "event_id": f"e{n}", "user_id": f"u{n}", "item_id": "tent", "ts": n} for n in range(9)),
        {"type": "click", "event_id": "bad", "user_id": "u1", "item_id": "tent", "ts": "noon"},
    ]
    path.write_text("\n".join(map(json.dumps, good)) + "\noops\n")
    done = subprocess.run([*DEMO, "--seconds", "4", "--data", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["events"], report["rejected"], report["users"]) == (10, 1, 9)
    assert "events.jsonl, line 12 skipped: malformed JSON" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_with_its_summary(tmp_path: Path, monkeypatch, number: signal.Signals):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        for line in demo.stderr:
            if line.startswith("page"):
                break
        demo.send_signal(number)
        out, said = demo.communicate()
    assert demo.returncode == 0, said
    assert json.loads(out)["seconds"] >= 0
    assert list(tmp_path.glob("streamer-demo-*")) == []


def test_a_missing_data_file_is_named_before_anything_starts(tmp_path: Path):
    done = subprocess.run([*DEMO, "--data", str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stdout == ""


def test_a_worker_that_ends_is_reported_with_its_code_and_its_log(tmp_path: Path):
    settings = Settings(brokers="127.0.0.1:1", broker_wait_ms=1, data_dir=tmp_path / "data", http_port=0)
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    worker._process.wait()
    with pytest.raises(StreamerError, match=r"(?s)exit code 3.*127\.0\.0\.1:1"):
        worker.check()
    assert worker.stop() == 3


def test_counts_are_of_user_events_and_rejects_are_of_all_kinds():
    text = "# TYPE streamer_events_total counter\n" + "".join(
        f'streamer_events_total{{outcome="{outcome}",type="{kind}"}} {float(count)}\n'
        for kind, outcome, count in [
            *((kind.name, "applied", 100) for kind in KINDS),
            ("click", "rejected", 7),
            ("item", "applied", 1000),
            ("item", "rejected", 3),
        ]
    )
    assert parse_counts(text) == Counts(events=100 * len(KINDS) + 7, rejected=10)


def test_a_worker_that_has_seen_nothing_has_counted_nothing():
    assert parse_counts("") == Counts(0, 0)


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
