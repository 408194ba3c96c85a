import gzip
import json
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import pytest

from streamer.errors import StreamerError
from streamer.events import Click, Item, Purchase
from streamer.settings import Settings
from streamer.tools import simulate
from streamer.tools.lines import encode_line, read
from streamer.tools.population import Truth, user_name
from streamer.tools.visits import Simulation, generate

START = 1_700_000_000_000
HOUR_MS = 3_600_000


def made(seed: int = 7, users: int = 200, items: int = 500, rate: float = 20.0, hours: float = 0.1):
    truth: list[Truth] = []
    stream = generate(seed, users, items, rate, START, until_ms=START + int(hours * HOUR_MS), on_truth=truth.append)
    return list(stream), truth


@pytest.fixture(scope="module")
def busy_day():
    """300 people and about 40,000 events in a day."""
    stream, truth = made(users=300, rate=0.5, hours=24)
    return [event for event in stream if not isinstance(event, Item)], truth


def test_the_same_seed_makes_the_same_bytes():
    assert [encode_line(event) for event in made()[0]] == [encode_line(event) for event in made()[0]]
    assert made()[1] == made()[1]


def test_another_seed_makes_other_events():
    assert made(seed=1)[0] != made(seed=2)[0]


def test_the_catalogue_comes_first_and_whole():
    stream, _ = made(items=123)
    assert all(isinstance(event, Item) for event in stream[:123])
    assert not any(isinstance(event, Item) for event in stream[123:])
    assert len({event.item_id for event in stream[:123]}) == 123


def test_events_are_in_the_order_of_time_within_their_span(busy_day):
    times = [event.ts for event in busy_day[0]]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < START + 24 * HOUR_MS


def test_event_ids_are_unique(busy_day):
    assert max(Counter(event.event_id for event in busy_day[0]).values()) == 1


@pytest.mark.parametrize(("users", "rate", "hours"), [(50, 20, 1), (5000, 100, 0.2), (300, 0.5, 24)])
def test_the_rate_is_kept_however_many_people_there_are(users, rate, hours):
    stream, _ = made(users=users, items=100, rate=rate, hours=hours)
    assert (len(stream) - 100) / (hours * 3600) == pytest.approx(rate, rel=0.06)


def test_every_event_is_about_an_item_of_the_catalogue():
    stream, _ = made()
    items = {event.item_id for event in stream if isinstance(event, Item)}
    assert {event.item_id for event in stream} == items | {
        event.item_id for event in stream if not isinstance(event, Item)
    }


def test_a_purchase_follows_a_click_on_the_same_item_in_the_same_visit(busy_day):
    seen = {(event.session_id, event.item_id) for event in busy_day[0] if isinstance(event, Click)}
    bought = [event for event in busy_day[0] if isinstance(event, Purchase)]
    assert bought
    assert sum((event.session_id, event.item_id) in seen for event in bought) / len(bought) > 0.99


def test_visits_have_several_clicks_of_one_person(busy_day):
    visits = defaultdict(list)
    for event in busy_day[0]:
        visits[event.session_id].append(event.user_id)
    assert all(len(set(users)) == 1 for users in visits.values())
    assert sum(map(len, visits.values())) / len(visits) == pytest.approx(6.4, rel=0.1)


def test_a_person_pays_in_one_currency(busy_day):
    currencies = defaultdict(set)
    for event in busy_day[0]:
        if isinstance(event, Purchase):
            currencies[event.user_id].add(event.currency)
    assert {len(of_user) for of_user in currencies.values()} == {1}


def shelf(item_id: str) -> str:
    return item_id.rpartition("-")[0]


def test_people_mostly_look_at_what_they_truly_care_for(busy_day):
    events, truth = busy_day
    caring: dict[str, set[str]] = defaultdict(set)
    for entry in truth:
        caring[entry.user_id] |= entry.interests.keys()
    fitting = sum(shelf(event.item_id) in caring[event.user_id] for event in events)
    assert fitting / len(events) > 0.85


def test_after_a_drift_the_old_interest_is_rare_and_the_new_one_is_not(busy_day):
    events, truth = busy_day
    before = {entry.user_id: entry for entry in truth if entry.change == "arrived"}
    drifts = [entry for entry in truth if entry.change == "drifted"]
    once = Counter(entry.user_id for entry in drifts)
    old_clicks = new_clicks = 0
    for drift in (entry for entry in drifts if once[entry.user_id] == 1):
        old = before[drift.user_id].interests.keys() - drift.interests.keys()
        new = drift.interests.keys() - before[drift.user_id].interests.keys()
        after = [shelf(event.item_id) for event in events if event.user_id == drift.user_id and event.ts > drift.ts]
        old_clicks += sum(name in old for name in after)
        new_clicks += sum(name in new for name in after)
    assert new_clicks > 10 * old_clicks


def test_some_people_are_new_and_some_never_come_back(busy_day):
    events, truth = busy_day
    left = {entry.user_id: entry.ts for entry in truth if entry.change == "left"}
    assert left
    assert any(entry.change == "arrived" and entry.ts > START for entry in truth)
    late = [event for event in events if event.ts > left.get(event.user_id, event.ts) + 10 * 60_000]
    assert not late


def test_interests_of_everybody_present_add_up_to_one(busy_day):
    sums = [sum(entry.interests.values()) for entry in busy_day[1] if entry.change != "left"]
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-3)


def test_popular_items_are_looked_at_more_than_others(busy_day):
    ranks = Counter(int(event.item_id.rpartition("-")[2]) for event in busy_day[0])
    assert ranks[1] > ranks[2] > ranks[4]


def test_people_have_their_hours(busy_day):
    hours: dict[str, Counter[int]] = defaultdict(Counter)
    for event in busy_day[0]:
        hours[event.user_id][event.ts // HOUR_MS % 24] += 1
    busiest = [sum(n for _, n in of_user.most_common(8)) / of_user.total() for of_user in hours.values()]
    assert sum(busiest) / len(busiest) > 0.6


@pytest.mark.parametrize(("users", "items"), [(1, 1), (1, 50), (40, 1), (3, 2)])
def test_the_smallest_towns_and_shops_work(users, items):
    stream = generate(1, users, items, 5.0, START)
    assert len(list(islice(stream, items + 200))) == items + 200


def test_time_goes_on_where_it_stopped_at_another_rate():
    town = Simulation(3, 100, 50, START)
    history = list(town.events(1.0, START + HOUR_MS))
    present = list(town.events(50.0, START + HOUR_MS + 60_000))
    assert history[-1].ts < START + HOUR_MS <= present[0].ts
    assert len(present) > 2000
    assert not {event.event_id for event in history} & {event.event_id for event in present}


def test_user_names_are_all_different():
    assert len({user_name(number) for number in range(5000)}) == 5000


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_a_file_is_the_same_byte_for_byte_and_its_truth_lies_beside(tmp_path: Path, name: str):
    contents = []
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        path = tmp_path / turn / name
        summary = simulate.run(Settings(), users=20, items=30, rate=10, seed=5, seconds=60, to_file=path)
        contents.append((path.read_bytes(), path.with_name(name + ".truth.jsonl").read_bytes()))
        assert summary.lines == sum(summary.sent.values()) == sum(1 for _ in read(path, pytest.fail))
        assert sorted(file.name for file in (tmp_path / turn).iterdir()) == [name, name + ".truth.jsonl"]
    assert contents[0] == contents[1]
    truth = [json.loads(line) for line in contents[0][1].splitlines()]
    assert {entry["change"] for entry in truth} >= {"arrived"}


def test_a_zipped_file_holds_what_the_plain_one_holds(tmp_path: Path):
    for name in ("events.jsonl", "events.jsonl.gz"):
        simulate.run(Settings(), users=20, items=30, rate=10, seed=5, seconds=60, to_file=tmp_path / name)
    assert gzip.decompress((tmp_path / "events.jsonl.gz").read_bytes()) == (tmp_path / "events.jsonl").read_bytes()


def test_a_file_without_an_end_is_refused(tmp_path: Path):
    with pytest.raises(StreamerError, match="--to-file needs --seconds"):
        simulate.run(Settings(), to_file=tmp_path / "events.jsonl")


@pytest.mark.parametrize("wrong", [{"users": 0}, {"items": 0}, {"rate": 0}, {"seconds": 0}])
def test_numbers_that_cannot_work_are_refused(tmp_path: Path, wrong):
    with pytest.raises(StreamerError, match="needs at least one user"):
        simulate.run(Settings(), to_file=tmp_path / "events.jsonl", **({"seconds": 1} | wrong))


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(StreamerError, match=r"cannot write .*nowhere/events"):
        simulate.run(Settings(), seconds=1, to_file=tmp_path / "nowhere" / "events.jsonl")
