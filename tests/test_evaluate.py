"""The evaluation: its protocol against a plain replay, and the very rows that a worker would have."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from streamer.cli import app
from streamer.engine.position import Take
from streamer.model.experts import NAMES
from streamer.pipeline.records import Records
from streamer.pipeline.rows import pack
from streamer.settings import Settings, load
from streamer.tools.evaluate import Options, run
from streamer.tools.evaluate.recovery import EVENTS, recovery
from streamer.tools.evaluate.references import References
from streamer.tools.evaluate.run import Evaluation, ordered
from streamer.tools.evaluate.tally import UNRANKED, Tally, first, ranks
from streamer.tools.evaluate.workers import Record, Worker, Workers
from streamer.tools.lines import Line, parse
from tests.pipeline_world import DAY_MS, T0

SHELVES = 4
ON_SHELF = 12


def some_lines(events: int = 400, users: int = 20, seed: int = 1) -> list[bytes]:
    """People who stay with one of four shelves of a catalogue."""
    rng = Random(seed)
    items = [
        {"type": "item", "item_id": f"i{s}-{n}", "title": f"Thing {n}", "tags": [f"shelf {s}"]}
        for s in range(SHELVES)
        for n in range(ON_SHELF)
    ]
    clicks = [
        {"type": "click", "event_id": f"e{n}", "user_id": f"u{u}", "item_id": item, "ts": T0 + n // 3 * 60_000}
        for n in range(events)
        for u in [rng.randrange(users)]
        for item in [f"i{u % SHELVES}-{rng.randrange(ON_SHELF)}"]
    ]
    return [json.dumps(line).encode() for line in [*items, *clicks]]


def parsed(raw: list[bytes]) -> list[Line]:
    return list(parse(raw, lambda bad: pytest.fail(bad.reason)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(some_lines()) + b"\n")
    return path


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STREAMER_CACHE_USERS", "10000")
    return load(partitions=1)


def evaluated(settings: Settings, tmp_path: Path, lines: list[Line], options: Options = Options()) -> Evaluation:  # noqa: B008
    evaluation = Evaluation(settings, tmp_path, options)
    try:
        for line in ordered(lines, options):
            evaluation.feed(line)
    finally:
        evaluation.close()
    return evaluation


def figures(evaluation: Evaluation) -> list[dict[str, float]]:
    return [tally.figures(1) for tally in (evaluation.mix, *evaluation.experts.values())]


# The protocol


def fields(line: Line) -> Any:
    return json.loads(line.value or b"")


def plain_popularity(lines: list[Line], repeats: bool) -> list[float]:
    """Ranks by counting."""
    counts: dict[str, int] = {}
    taken: dict[bytes, set[str]] = {}
    out = []
    for line in lines:
        if line.topic == "items":
            continue
        item = fields(line)["item_id"]
        had = taken.get(line.key)
        if had is not None and (repeats or item not in had):
            others = [i for i in counts if i != item and (repeats or i not in had)]
            above = sum(counts[i] > counts.get(item, 0) for i in others)
            equal = sum(counts[i] == counts.get(item, 0) for i in others)
            out.append(1 + above + equal / 2 if item in counts else UNRANKED)
        counts[item] = counts.get(item, 0) + 1
        taken.setdefault(line.key, set()).add(item)
    return out


@pytest.mark.parametrize("repeats", [False, True])
def test_events_are_tested_as_the_protocol_says(settings: Settings, tmp_path: Path, repeats: bool) -> None:
    lines = parsed(some_lines())
    found = evaluated(settings, tmp_path, lines, Options(repeats=repeats))
    expected = Tally()
    for rank in plain_popularity(lines, repeats):
        expected.add(rank)
    assert found.mix.tested == expected.tested
    assert found.references["popularity"].figures(1) == expected.figures(1)


def test_the_mix_learns_what_people_do_and_beats_counting(settings: Settings, tmp_path: Path) -> None:
    found = evaluated(settings, tmp_path, parsed(some_lines(1500, users=150)))
    mix, popularity = (tally.figures(1)["hr@10"] for tally in (found.mix, found.references["popularity"]))
    best = max(tally.figures(1)["hr@10"] for tally in found.experts.values())
    assert mix > 2 * popularity
    assert mix > 0.9 * best


def test_the_same_lines_give_the_same_figures(settings: Settings, tmp_path: Path) -> None:
    lines = parsed(some_lines())
    one, two = (evaluated(settings, tmp_path / name, lines) for name in "ab")
    assert figures(one) == figures(two)
    assert one.interests.figures() == two.interests.figures()


def test_one_worker_and_four_are_about_as_good(settings: Settings, tmp_path: Path) -> None:
    lines = parsed(some_lines(1500, users=150))
    one = evaluated(settings, tmp_path / "one", lines)
    four = evaluated(settings.model_copy(update={"partitions": 4}), tmp_path / "four", lines)
    assert four.mix.tested == one.mix.tested
    assert four.mix.figures(1)["hr@20"] > 0.9 * one.mix.figures(1)["hr@20"]


class Rehearsed:
    """A worker that learned the first events, and what it published of items; `state` is all that it knows, by bits."""

    def __init__(self, settings: Settings, directory: Path, lines: list[Line]) -> None:
        self.settings, self.directory, self.items = settings, directory, lines[: SHELVES * ON_SHELF]
        self.models: list[tuple[bytes, bytes | None]] = []
        self.open()
        for line in lines[len(self.items) :]:
            self.worker.partition.apply_events(self.worker.decode(line))
        self.checkpoint()

    def open(self) -> None:
        self.worker = Worker(0, self.settings, self.directory)
        self.worker.partition.load()
        for line in self.items:
            self.worker.apply_item(line, owned=True)
        self.worker.apply_models(self.models)

    def checkpoint(self) -> None:
        self.worker.now_ms += DAY_MS
        partition = self.worker.partition
        effects = partition.cut(last=True)
        partition.write_to_store(effects, partition.position.checkpoint)
        self.worker.apply_signals([value for _, value in effects.signals])
        self.models += partition.own_items.take_models(self.worker.now_ms)
        self.worker.apply_models(self.models)

    def restart(self) -> None:
        """Without a word: what was not checkpointed is gone."""
        self.worker.close()
        self.open()

    def learn(self, lines: list[Line]) -> None:
        records = [Record(line.key, line.value, line.ts or 0, n) for n, line in enumerate(lines)]
        self.worker.partition.apply_events(self.worker.partition.decode([Take("clicks", Records.of(records), 0)]))

    @property
    def state(self) -> tuple[list[bytes], bytes, bytes]:
        keys = [f"u{u}".encode() for u in range(20)]
        cache, partition = self.worker.shared.cache, self.worker.partition
        slots = cache.slots(0, keys, partition._load_users)
        rows = pack(cache.users, slots, [cache.cause[slot] for slot in slots.tolist()])
        return rows, *(column.tobytes() for column in self.worker.mixer.mix)


@pytest.fixture
def rehearsed(settings: Settings, tmp_path: Path) -> Iterator[tuple[list[Rehearsed], list[Line]]]:
    lines = parsed(some_lines(800))
    known = SHELVES * ON_SHELF + 300
    made = [Rehearsed(settings, tmp_path / name, lines[:known]) for name in "ab"]
    yield made, lines[known:]
    for one in made:
        one.worker.close()


def test_events_are_learned_as_a_worker_learns_them_in_batches(
    rehearsed: tuple[list[Rehearsed], list[Line]],
) -> None:
    (one_by_one, at_once), clicks = rehearsed
    before = at_once.state
    assert one_by_one.state == before
    for line in clicks:
        one_by_one.learn([line])
    at_once.learn(clicks)
    assert one_by_one.state == at_once.state
    assert at_once.state[1] != before[1]  # the mix learned


def test_a_worker_that_crashed_learns_the_same_again(rehearsed: tuple[list[Rehearsed], list[Line]]) -> None:
    (steady, crashed), clicks = rehearsed
    first, second = clicks[:250], clicks[250:]
    for one in (steady, crashed):
        one.learn(first)
        one.checkpoint()
    steady.learn(second)
    crashed.learn(second[:100])
    crashed.restart()
    crashed.learn(second)
    assert crashed.state == steady.state


def test_interests_are_held_against_the_population_and_against_counts(settings: Settings, tmp_path: Path) -> None:
    found = evaluated(settings, tmp_path, parsed(some_lines())).interests.figures()
    assert found["nll"] < found["global"]["nll"]  # type: ignore[index]
    assert found.keys() == {"nll", "hr@5", "global", "lifetime", "new_items"}


def test_a_profile_follows_a_switch_of_interest(settings: Settings, tmp_path: Path) -> None:
    shelves = [[f"i{shelf}-{n}" for n in range(EVENTS)] for shelf in range(2)]
    lines = [
        {"type": "item", "item_id": item, "title": item, "tags": [f"shelf {shelf}"]}
        for shelf, items in enumerate(shelves)
        for item in items
    ]
    workers = Workers(settings, tmp_path)
    for line in parsed([json.dumps(line).encode() for line in lines]):
        workers.apply_item(line)
    taken = {f"u{n}": dict.fromkeys(shelves[n % 2], 0) for n in range(4)}
    found = recovery(workers, taken, T0)
    workers.close()
    assert found["users"] == 2
    assert 1 < found["median"] <= EVENTS
    assert found["mean"] == found["median"]


# Order and limits


def timed(*ts: int) -> Iterator[Line]:
    for number, t in enumerate(ts):
        yield Line(number, "clicks", b"u", b"", T0 + t)


def test_a_limit_counts_events_and_not_items() -> None:
    lines = parsed(some_lines(10))
    assert len(list(ordered(lines, Options(limit=4)))) == SHELVES * ON_SHELF + 4
    assert list(ordered(lines, Options())) == lines


def test_only_events_of_equal_times_are_shuffled_and_always_alike() -> None:
    times = [t // 10 * DAY_MS for t in range(40)]
    one, two = (list(ordered(timed(*times), Options(shuffle_ties=True))) for _ in range(2))
    assert one == two
    assert [line.ts for line in one] == [T0 + t for t in times]
    assert [line.number for line in one] != list(range(40))
    assert sorted(line.number for line in one) == list(range(40))


# Figures


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12), st.integers(0, 5), st.data())
def test_ranks_count_who_is_ahead_and_half_of_the_ties(
    candidates: list[tuple[int, bool]], outside: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(candidates) - 1))
    values = np.array([[float(value)] for value, _ in candidates])
    allowed = np.array([is_allowed for _, is_allowed in candidates])
    own = values[place, 0]
    others = [value for n, (value, is_allowed) in enumerate(candidates) if is_allowed and n != place]
    equal = sum(value == own for value in others) + (outside if own == values.min() else 0)
    assert ranks(values, allowed, place, outside).tolist() == [1 + sum(value > own for value in others) + equal / 2]


def test_a_tally_says_how_often_and_how_high() -> None:
    tally = Tally()
    for rank in (1.0, 3.0, 20.5, UNRANKED):
        tally.add(rank)
    tally.show(np.array([4, 7]))
    found = tally.figures(8)
    assert found["hr@1"] == 0.25
    assert found["hr@5"] == found["hr@20"] == 0.5
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 20.5) / 4)
    assert found["ndcg@20"] == pytest.approx((1 + 0.5) / 4)
    assert found["coverage"] == 0.25


def test_the_first_twenty_are_the_best_that_are_allowed() -> None:
    column = np.arange(50.0)
    allowed = column % 2 == 0
    assert sorted(first(column, allowed).tolist()) == list(range(10, 50, 2))
    assert first(column, column < 3).tolist() == [0, 1, 2]


def test_plain_factorisation_comes_to_know_a_user() -> None:
    reference = References(seed=1)
    for _ in range(200):
        for user, item in (("a", "x"), ("b", "y")):
            reference.learn(user, item)
    found = reference.test("a", "x", repeats=True)
    assert found is not None
    assert found["isgd"] == 1
    assert reference.test("new", "x", repeats=True) is None
    assert reference.test("a", "new", repeats=True) is None


# The command


def test_the_command_prints_one_object_for_programs(file: Path, settings: Settings) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(file), "--json", "--limit", "100", "--shuffle-ties"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["events"] == 100
    assert 0 < found["tested"] < 100
    assert found["experts"].keys() == set(NAMES)
    assert found["references"].keys() == {"popularity", "isgd"}
    assert found["mix"].keys() == {"hr@1", "hr@5", "hr@10", "hr@20", "ndcg@20", "mrr", "coverage"}
    assert found["interests"]["global"].keys() == {"nll", "hr@5"}
    assert set(found["experts"]["titles"]) - found["mix"].keys() == {"worth"}
    assert found["recovery"] == {"users": 0}
    assert found["us_learn"] > 0
    assert found["us_rank"] > 0


def test_the_command_prints_a_table_for_people(file: Path, settings: Settings) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(file), "--limit", "60", "--partitions", "2"])
    assert result.exit_code == 0, result.output
    assert "mix, new users" in result.stdout
    assert "reference: isgd" in result.stdout


def test_files_apart_are_each_evaluated_from_nothing(file: Path, settings: Settings) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(file), str(file), "--apart", "--json", "--limit", "60"])
    assert result.exit_code == 0, result.output
    one, two = map(json.loads, result.stdout.splitlines())
    assert one["events"] == two["events"] == 60
    assert one["mix"] == two["mix"]


def test_rank_speed_tells_of_each_size() -> None:
    result = CliRunner().invoke(app, ["rank-speed", "--items", "300", "--items", "500", "--users", "3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["items"] for one in found] == [300, 500]
    assert all(one["ms_rank_p99"] >= one["ms_rank"] > 0 for one in found)
    assert all(one["ms_of"].keys() == {"transitions", "interests, titles", "factors"} for one in found)


def test_bad_lines_are_named_and_skipped(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([b"oops", *some_lines(20), b'{"type":"click","user_id":"u","ts":1}']))
    found = run(settings, [path], Options())
    assert found.events == 20
    assert "line 1 skipped" in capsys.readouterr().err
