"""The benchmark: what it works on is as from producers, what it prints a program can read. Speed is not tested."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer

from streamer.engine.kafka_clients import kafka_python_options
from streamer.engine.topics import create_topics
from streamer.errors import StreamerError
from streamer.events import KIND_OF_TOPIC, Item
from streamer.settings import Settings
from streamer.tools.bench import kafka_streams, light_job, markdown, world
from streamer.tools.bench.cores import Machine
from streamer.tools.bench.growth import Growth, Items, Return, Users, per_event_and_row
from streamer.tools.bench.http import Answers
from streamer.tools.bench.kafka_streams import MissingPeerError
from streamer.tools.bench.latency import Latency
from streamer.tools.bench.light_job import BLANK, ROW, Event, item_facts, profile, update
from streamer.tools.bench.light_worker import LIGHT
from streamer.tools.bench.memory import Memory, Resident
from streamer.tools.bench.plan import PARTS
from streamer.tools.bench.reading import check_counts
from streamer.tools.bench.report import Report, as_object
from streamer.tools.bench.scaling import Arrangement, Scaling
from streamer.tools.bench.speed import OURS, PEERS, Mark, Speed, between, summarise
from streamer.tools.bench.window import Cost, Moment, cost
from streamer.tools.bench.world import World, events, items
from streamer.tools.kafka import EmbeddedKafka

WORLD = World(users=300, items=120, events=2_000)
COST = Cost(
    events=100,
    events_per_second=50_000.0,
    cpu_us=17.0,
    broker_cpu_us=4.0,
    rows=0.4,
    profiles=0.1,
    misses=0.0,
    seconds_between_checkpoints=0.7,
    stages={"fold": 3.0, "send": 40.0, "other": 14.0},
)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    match value:
        case dict():
            for name, part in value.items():
                yield from numbers(part, f"{path}.{name}")
        case list():
            for part in value:
                yield from numbers(part, path)
        case bool() | str() | None:
            pass
        case _:
            yield path, value


# ---- the backlog
def test_every_run_has_the_same_backlog() -> None:
    assert list(events(WORLD)) == list(events(WORLD))
    assert list(items(WORLD)) == list(items(WORLD))


def test_the_backlog_is_what_producers_send() -> None:
    assert all(msgspec.json.decode(value, type=Item).item_id.encode() == key for _, key, value in items(WORLD))
    decoded = [(msgspec.json.decode(v, type=KIND_OF_TOPIC[t].struct), key) for t, key, v in events(WORLD)]
    assert len({event.event_id for event, _ in decoded}) == WORLD.events
    assert all(event.user_id.encode() == key for event, key in decoded)
    assert {event.item_id.encode() for event, _ in decoded} <= {key for _, key, _ in items(WORLD)}
    assert [event.ts for event, _ in decoded] == sorted(event.ts for event, _ in decoded)
    assert {topic for topic, _, _ in events(WORLD)} == set(KIND_OF_TOPIC)


@pytest.mark.parametrize("backlog", [WORLD, WORLD._replace(tour=True), WORLD._replace(active=30, at=500, step_ms=10)])
def test_counts_are_those_of_the_events(backlog: World) -> None:
    counted = Counter(key for _, key, _ in events(backlog))
    assert {b"user-%d" % user: n for user, n in enumerate(world.counts(backlog).tolist()) if n} == counted


def test_a_tour_meets_every_user() -> None:
    met = {key for _, key, _ in events(WORLD._replace(tour=True, events=WORLD.users))}
    assert met == {b"user-%d" % i for i in range(WORLD.users)}


def test_a_world_goes_on_where_another_ended() -> None:
    parts = [WORLD._replace(step_ms=1_000), WORLD._replace(step_ms=1_000, at=WORLD.events)]
    values = [json.loads(value) for part in parts for _, _, value in events(part)]
    assert len({value["event_id"] for value in values}) == 2 * WORLD.events
    assert [value["ts"] for value in values] == sorted(value["ts"] for value in values)


def test_few_active_users_are_spread_over_all() -> None:
    seen = {int(key.removeprefix(b"user-")) for _, key, _ in events(WORLD._replace(active=30))}
    assert seen == set(range(0, WORLD.users, 10))


# ---- the light job
def row_of(raw: bytes) -> Any:
    return np.frombuffer(raw, ROW)[0]


def test_the_light_job_learns_and_forgets() -> None:
    first = update(BLANK, Event("u", "item-1", 1_000))
    second = update(first, Event("u", "item-1", 1_000))
    later = update(second, Event("u", "item-2", 1_000 + light_job.HALF_LIFE_MS))
    weights = sorted(json.loads(profile("u", later))["tags"].values())
    assert weights == pytest.approx([1.0, 1.0])  # two events, halved, and a new one
    assert json.loads(profile("u", second))["events"] == light_job.events_of(second) == 2


def test_the_light_job_steps_towards_the_item() -> None:
    vector, _ = item_facts("item-1")
    first = update(BLANK, Event("u", "item-1", 1_000))
    assert row_of(first)["vector"] == pytest.approx(light_job.RATE * vector, abs=1e-6)
    second = row_of(update(first, Event("u", "item-1", 1_001)))["vector"]
    before = row_of(first)["vector"]
    step = light_job.RATE * ((1 - before @ vector) * vector - light_job.REGULARISATION * before)
    assert second == pytest.approx(before + step, abs=1e-6)


def test_a_seventeenth_tag_takes_the_place_of_the_weakest() -> None:
    row = update(BLANK, Event("u", "item-10", 1_000))
    for n in [*range(11, 26), *range(11, 26), 99]:
        row = update(row, Event("u", f"item-{n}", 1_000))
    tags = json.loads(profile("u", row))["tags"]
    assert len(tags) == light_job.TAGS
    assert str(item_facts("item-10")[1]) not in tags
    assert tags[str(item_facts("item-99")[1])] == pytest.approx(1.0)


def test_the_light_job_is_made_of_valid_settings() -> None:
    changed = Settings(**LIGHT)
    assert all(getattr(changed, name) == value for name, value in LIGHT.items())


def test_a_peer_that_cannot_be_had_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPeerError, match="there is no javac: install a JDK"):
        kafka_streams.prepare(tmp_path)


# ---- arithmetic
def test_a_rate_is_taken_between_commits_in_full_stride() -> None:
    marks = [Mark(0, 0, 0), Mark(5, 100, 1), Mark(6, 300, 2), Mark(7, 800, 3), Mark(9, 1_000, 4)]
    assert between(marks, 1_000) == (marks[2], marks[3])


def test_a_run_of_few_commits_counts_whole() -> None:
    marks = [Mark(0, 0, 0), Mark(1, 900, 1), Mark(2, 1_000, 2)]
    assert between(marks, 1_000) == (marks[0], marks[2])


def test_ratios_are_of_the_medians() -> None:
    speeds = {name: [Speed(rate, 1.0) for rate in rates] for name, rates in (
        ("streamer", [90.0, 100.0, 500.0]), ("streamer_light", [200.0]), ("floor", [50.0, 25.0, 1.0]),
    )}  # fmt: skip
    result = summarise(WORLD, speeds, {"kafka_streams": "no javac"})
    assert (result.ratios, result.ratios_light) == ({"floor": 4.0}, {"floor": 8.0})
    assert result.left_out == {"kafka_streams": "no javac"}


def test_event_and_row_are_told_apart() -> None:
    costs = [msgspec.structs.replace(COST, rows=rows, cpu_us=5.0 + 3.0 * rows) for rows in (0.1, 0.5, 1.0)]
    assert per_event_and_row(costs) == pytest.approx((5.0, 3.0))


def test_cost_is_what_grew_between_two_moments() -> None:
    def at(second: float, events: int, fold_s: float, send_s: float) -> Moment:
        stage = "streamer_stage_seconds_total"
        samples = {
            ("streamer_events_total", (("outcome", "applied"), ("type", "click"))): float(events),
            (stage, (("stage", "fold"),)): fold_s,
            (stage, (("stage", "send"),)): send_s,
        }
        return Moment(second, 2 * second, second, 100.0, samples)

    spent = cost(at(1, 1_000, 0.1, 1.0), at(2, 3_000, 0.3, 9.0), partitions=12)
    assert (spent.events, spent.events_per_second, spent.cpu_us, spent.broker_cpu_us) == (2_000, 2_000, 1_000, 500)
    assert spent.stages == pytest.approx({"fold": 100.0, "send": 4_000.0, "other": 900.0})
    with pytest.raises(StreamerError, match="too short"):
        cost(at(1, 1_000, 0, 0), at(2, 1_000, 0, 0), partitions=12)


# ---- what is written
def report() -> Report:
    resident = Resident(100, 50, 1_000, 300.0, 290.0, 9_000.0, [(500, 250.0), (1_000, 290.0)])
    arrangement = Arrangement(50_000.0, 17.0, 4.0)
    users = [Users(users=n, resident_mb=n / 10, active=COST, anybody=COST) for n in (1_000, 2_000)]
    back = Return(
        users=2_000,
        restart_seconds=3.0,
        restore_seconds=4.0,
        restored_rows=2_500,
        restore_rows_per_second=100_000.0,
        missing=COST,
        miss_us=9.0,
    )
    return Report(
        machine=Machine("a processor", 2, 23.5, "Linux", pinned=True, load=0.1),
        versions={"streamer": "1", "kafka": "4"},
        quick=True,
        seconds=dict.fromkeys(PARTS, 1.0),
        failed={"none": "but it could"},
        speed=summarise(
            WORLD,
            {name: [Speed(1_000.0, 9.0, 0.1, COST if name in OURS else None)] for name in (*OURS, *PEERS[1:])},
            {"kafka_streams": "no javac"},
        ),
        latency={"1000": Latency(events_per_second=999.0, profiles=10, p50=40.0, p90=60.0, p99=90.0, max=95.0)},
        http={
            "1000": Answers(
                events_per_second=999.0, questions_per_second=10.0, refused=0, p50=1.0, p90=2.0, p99=3.0, max=4.0
            )
        },
        growth=Growth(
            users=users,
            items=[Items(100, COST), Items(200, COST)],
            users_flatness=1.0,
            items_flatness=1.0,
            bytes_per_user=1_900,
            disk_bytes_per_user=400,
            us_per_event=14.0,
            us_per_row=7.0,
            back=back,
        ),
        memory=Memory(resident, resident, 1.0),
        scaling=Scaling(arrangement, arrangement, arrangement),
    )


def test_the_page_shows_every_part_and_its_pictures_are_there(tmp_path: Path) -> None:
    markdown.write(report(), tmp_path)
    page = (tmp_path / "BENCHMARKS.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", page)
    assert len(linked) > 5
    assert all((tmp_path / name).stat().st_size for name in linked)
    assert {f"images/{path.name}" for path in (tmp_path / "images").iterdir()} <= set(linked)
    assert all(note in page for note in markdown.NOTES.values())
    assert "left out, no javac" in page
    assert "but it could" in page
    for table in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_same_figures_give_the_same_files(tmp_path: Path) -> None:
    for name in "ab":
        markdown.write(report(), tmp_path / name)
    for first in (path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        assert first.read_bytes() == (tmp_path / "b" / first.relative_to(tmp_path / "a")).read_bytes()


def test_the_object_has_what_others_look_for_at_its_top() -> None:
    found = as_object(report())
    assert {"events_per_second", "ratios", "ratios_light", "latency_ms", "bytes_per_user"} <= set(found)
    assert found["restore_rows_per_second"] == 100_000
    only = as_object(msgspec.structs.replace(report(), speed=None, growth=None, latency=None))
    assert not {"events_per_second", "latency_ms", "bytes_per_user"} & set(only)


# ---- on a real broker
def test_a_peer_that_counts_wrong_is_found_out(kafka: EmbeddedKafka, prefix: str) -> None:
    settings = Settings(brokers=kafka.brokers, topic_prefix=prefix, app_id="peer", partitions=2)
    create_topics(settings)
    rows = {b"user-%d" % user: update(BLANK, Event("", "item-1", 1)) for user in range(3)}
    with closing(KafkaProducer(**kafka_python_options(settings))) as producer:
        for key, row in rows.items():
            producer.send(settings.changelog_topic, key=key, value=row)

    def check(wanted: list[int], *, complete: bool = True) -> None:
        check_counts(settings, lambda raw: map(light_job.events_of, raw), np.array(wanted), complete=complete)

    check([1, 1, 1])
    check([1, 2, 5], complete=False)
    with pytest.raises(StreamerError, match=r"wrong for 1 of 3 users: user-1: 1 instead of 2"):
        check([1, 2, 1])
    with pytest.raises(StreamerError, match="user-2: 1 instead of 0"):
        check([1, 1, 0], complete=False)


def bench(directory: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "streamer", "bench", "--json", "--data-dir", str(directory / "scratch"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert list((directory / "scratch").iterdir()) == []
    return json.loads(done.stdout), done.stderr


@pytest.mark.timeout(600)
def test_a_part_can_be_run_alone(tmp_path: Path) -> None:
    found, _ = bench(tmp_path, "--quick", "--only", "latency", "--only", "http", "--report", str(tmp_path / "out"))
    assert found["seconds"].keys() == {"latency", "http"}
    for at in found["http_ms"].values():
        assert (0 < at["p50"] <= at["p90"] <= at["p99"] <= at["max"], at["refused"]) == (True, 0)
    for at in found["latency_ms"].values():
        assert 0 <= at["p50"] <= at["p90"] <= at["p99"] <= at["max"]
        assert at["profiles"] > 0
    assert json.loads((tmp_path / "out" / "benchmarks.json").read_text()) == found
    assert "## Latency" in (tmp_path / "out" / "BENCHMARKS.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quick_run_prints_one_json_object_of_positive_numbers(tmp_path: Path) -> None:
    found, said = bench(tmp_path, "--quick")
    assert found["seconds"].keys() == set(PARTS), said
    assert set(found["events_per_second"]) | set(found["left_out"]) == {*OURS, *PEERS}
    assert found["ratios"].keys() == found["ratios_light"].keys() == found["events_per_second"].keys() - set(OURS)
    assert {"latency_ms", "restore_rows_per_second", "bytes_per_user", "growth", "memory", "scaling"} <= set(found)
    assert all(math.isfinite(value) for _, value in numbers(found))
    assert found["growth"]["back"]["missing"]["misses"] > 0.2
    assert found["growth"]["back"]["restored_rows"] > found["growth"]["back"]["users"]
