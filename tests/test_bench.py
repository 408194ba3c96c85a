"""The benchmark: what it works on is as from producers, what it prints a program can read. Speed is not tested."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.events import KIND_OF_TOPIC, Item
from streamer.settings import Settings
from streamer.tools.bench.memory import bytes_per_user
from streamer.tools.bench.stock_faust import BLANK, Event, profile, update
from streamer.tools.bench.world import World, events, items

WORLD = World(users=300, items=120, events=2_000)


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


def test_a_tour_meets_every_user() -> None:
    met = {key for _, key, _ in events(WORLD._replace(tour=True, events=WORLD.users))}
    assert met == {b"user-%d" % i for i in range(WORLD.users)}


def test_the_stock_agent_learns_and_forgets() -> None:
    first = update(BLANK, Event("u", "item-1", 1_000))
    second = update(first, Event("u", "item-1", 1_000))
    later = update(second, Event("u", "item-2", 1_000 + 30 * 86_400_000))
    weights = sorted(json.loads(profile("u", later))["tags"].values())
    assert weights == pytest.approx([1.0, 1.0])  # two events, halved, and a new one
    assert sorted(json.loads(profile("u", second))["tags"].values()) == pytest.approx([2.0])


def test_a_cached_user_takes_its_columns_and_little_more() -> None:
    assert 1_000 < bytes_per_user(Settings()) < 10_000


@pytest.mark.timeout(600)
def test_quick_run_prints_one_json_object_of_positive_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamer", "bench", "--quick", "--json", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {
        "machine",
        "versions",
        "events_per_second",
        "ratios",
        "stages_us_per_event",
        "bytes_per_user",
        "memory",
    } <= set(report)
    assert set(report["events_per_second"]) == {"streamer", "stock_faust", "floor"}
    assert set(report["ratios"]) == {"stock_faust", "floor"}
    found = dict(numbers(report))
    assert all(math.isfinite(value) for value in found.values())
    assert not {name: value for name, value in found.items() if value <= 0 and name != ".machine.load"}
    assert list(tmp_path.iterdir()) == []
