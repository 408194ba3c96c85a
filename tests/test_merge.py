"""Two topics of a partition come together in the order in which Kafka got their records, however they are fetched."""

from collections.abc import Iterator
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from streamer.engine.buffers import Buffer, Memory
from streamer.engine.merge import Taken, merge
from streamer.pipeline.records import Record, Records

Logs = dict[str, list[Record]]
Fetches = list[tuple[str, int]]  # topic, how many of its records


def log(topic: str, timestamps: list[int]) -> list[Record]:
    """Offsets have gaps, as compaction and transactions leave them."""
    return [Record(topic.encode(), None, ts, 3 * i + 5) for i, ts in enumerate(timestamps)]


def logs_of(timestamps: st.SearchStrategy[list[int]]) -> st.SearchStrategy[Logs]:
    pair = st.tuples(timestamps, timestamps)
    return pair.map(lambda two: {"clicks": log("clicks", two[0]), "purchases": log("purchases", two[1])})


some_times = st.lists(st.integers(0, 30), max_size=25)
any_logs = logs_of(some_times)
ordered_logs = logs_of(some_times.map(sorted))
fetches = st.lists(st.tuples(st.sampled_from(["clicks", "purchases"]), st.integers(1, 6)), max_size=30)


def empty() -> Buffer:
    return Buffer(0, Memory(1 << 20))


def fill(buffer: Buffer, records: list[Record]) -> None:
    if records:
        buffer.add(Records.of(records), len(records))


class Reader:
    """Fetches records into buffers as told, then all that is left, and merges after every fetch."""

    def __init__(self, logs: Logs, limit: int, *, patient: bool) -> None:
        self.limit, self.patient = limit, patient
        self.left = {topic: list(records) for topic, records in logs.items()}
        self.buffers = {topic: empty() for topic in logs}
        self.batches: list[dict[str, Taken]] = []

    def read(self, plan: Fetches) -> None:
        for topic, count in chain(plan, self._rest()):
            fill(self.buffers[topic], self.left[topic][:count])
            del self.left[topic][:count]
            while takes := merge(self.buffers, self.more, self.limit, waited=not self.patient):
                self.batches.append(takes)

    def _rest(self) -> Iterator[tuple[str, int]]:
        while self.more:
            yield min(self.more, key=lambda topic: len(self.buffers[topic])), 2

    @property
    def more(self) -> list[str]:
        return [topic for topic, records in self.left.items() if records]

    @property
    def records(self) -> list[Record]:
        """Everything handed on; within a batch as the pipeline orders it."""
        return [
            record
            for takes in self.batches
            for record in sorted((r for taken in takes.values() for r in taken.records), key=lambda r: r.timestamp)
        ]


def read(logs: Logs, plan: Fetches, limit: int = 100, *, patient: bool = True) -> Reader:
    reader = Reader(logs, limit, patient=patient)
    reader.read(plan)
    return reader


@given(ordered_logs, fetches, st.integers(1, 8))
def test_records_come_in_the_order_of_their_timestamps_over_both_topics(logs: Logs, plan: Fetches, limit: int) -> None:
    timestamps = [record.timestamp for record in read(logs, plan, limit).records]
    assert timestamps == sorted(timestamps)


@given(any_logs, fetches, st.integers(1, 8), st.booleans())
def test_nothing_is_lost_or_repeated_and_each_topic_keeps_its_order(
    logs: Logs, plan: Fetches, limit: int, patient: bool
) -> None:
    reader = read(logs, plan, limit, patient=patient)
    for topic, records in logs.items():
        handed_on = [r for takes in reader.batches if topic in takes for r in takes[topic].records]
        assert handed_on == records


@given(any_logs, fetches, st.integers(1, 8), st.booleans())
def test_every_take_follows_the_one_before_and_keeps_to_the_limit(
    logs: Logs, plan: Fetches, limit: int, patient: bool
) -> None:
    positions = dict.fromkeys(logs, 0)
    for takes in read(logs, plan, limit, patient=patient).batches:
        for topic, (after, records, _) in takes.items():
            assert after == positions[topic]
            assert 0 < len(records) <= limit
            positions[topic] = records[-1].offset + 1


@given(any_logs, st.integers(1, 8), st.lists(st.sampled_from(["clicks", "purchases"]), unique=True))
def test_while_there_is_something_from_every_topic_there_is_progress(logs: Logs, limit: int, more: list[str]) -> None:
    buffers = {topic: buffer(topic, *(record.timestamp for record in records)) for topic, records in logs.items()}
    blocked = [topic for topic in more if not logs[topic]]
    takes = merge(buffers, more, limit, waited=False)
    assert bool(takes) == (not blocked and any(logs.values()))
    if not takes:
        assert bool(merge(buffers, more, limit, waited=True)) == any(logs.values())


def buffer(topic: str, *timestamps: int) -> Buffer:
    filled = empty()
    fill(filled, log(topic, list(timestamps)))
    return filled


def timestamps(takes: dict[str, Taken]) -> dict[str, list[int]]:
    return {topic: [record.timestamp for record in taken.records] for topic, taken in takes.items()}


def test_a_topic_with_more_to_come_holds_the_other_back_until_it_took_too_long() -> None:
    buffers = {"clicks": buffer("clicks", 1, 2), "purchases": buffer("purchases")}
    assert merge(buffers, ["purchases"], 10, waited=False) == {}
    assert timestamps(merge(buffers, ["purchases"], 10, waited=True)) == {"clicks": [1, 2]}


def test_a_topic_that_is_read_to_its_end_holds_nobody_back() -> None:
    buffers = {"clicks": buffer("clicks", 1, 2), "purchases": buffer("purchases")}
    assert timestamps(merge(buffers, [], 10, waited=False)) == {"clicks": [1, 2]}


def test_what_is_younger_than_the_end_of_an_open_buffer_waits() -> None:
    buffers = {"clicks": buffer("clicks", 1, 2, 9), "purchases": buffer("purchases", 1, 3)}
    assert timestamps(merge(buffers, ["purchases"], 10, waited=False)) == {"clicks": [1, 2], "purchases": [1, 3]}
    assert timestamps(merge(buffers, [], 10, waited=False)) == {"clicks": [9]}


def test_a_full_batch_of_one_topic_does_not_let_the_other_run_ahead() -> None:
    buffers = {"clicks": buffer("clicks", 1, 2, 3, 4), "purchases": buffer("purchases", 1, 3, 5)}
    assert timestamps(merge(buffers, [], 2, waited=False)) == {"clicks": [1, 2], "purchases": [1]}


def test_timestamps_that_run_backwards_do_not_stop_the_merge() -> None:
    buffers = {"clicks": buffer("clicks", 9, 1), "purchases": buffer("purchases", 8, 2)}
    assert timestamps(merge(buffers, ["clicks", "purchases"], 10, waited=False)) == {"clicks": [9, 1]}
