"""When the rows of items are stored, and where the position in the signals stands then."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from streamer.engine.partition import Partition
from streamer.engine.position import CATALOGUE, SIGNALS, USER_EVENTS, Effects, Take
from streamer.engine.shared import shared_state
from streamer.engine.store import ITEM, Store, shared_cache
from streamer.pipeline.records import Records
from streamer.pipeline.storing import ROWS_EVERY_MS
from streamer.settings import load
from tests.pipeline_world import T0, click


class Record(NamedTuple):
    """A record as Kafka would bring it."""

    key: bytes | None
    value: bytes
    offset: int
    timestamp: int = T0


class World:
    """One open partition with a clock of its own, and nothing around it."""

    def __init__(self, home: Path) -> None:
        self.now_ms = T0
        self.settings = load(data_dir=home, partitions=1)
        self.store = Store(home / "store", shared_cache(8))
        self.signals: list[Record] = []  # as they stand in the topic
        self.open()

    def open(self) -> None:
        """As a worker that starts on this disk."""
        shared = shared_state(self.settings)._replace(now_ms=lambda: self.now_ms)
        self.partition = Partition(0, shared)
        self.partition.store = self.store
        self.partition.load()
        for topic in (SIGNALS, CATALOGUE, *USER_EVENTS):
            at = self.partition.position.next.setdefault(topic, 0)
            self.partition.saved.setdefault(topic, at)

    def click(self, number: int, ts: int | None = None) -> None:
        record = click(f"e{number}", "mug", T0 + number if ts is None else ts)
        take = Take("clicks", Records.of([Record(record.key, record.value or b"", number)]), number)
        self.partition.apply_events(self.partition.decode([take]))
        self.partition.advance(take)

    def checkpoint(self, *, last: bool = False) -> Effects:
        effects = self.partition.cut(last=last)
        self.partition.write_to_store(effects, effects.position.checkpoint)
        for _, value in effects.signals:
            self.signals.append(Record(None, value, len(self.signals)))
        return effects

    def learn(self) -> None:
        """From all signals that are there and not learned yet."""
        at = self.partition.position.next[SIGNALS]
        take = Take(SIGNALS, Records.of(self.signals[at:]), at)
        self.partition.apply_signals([take])
        self.partition.advance(take)

    @property
    def has_work(self) -> bool:
        return self.partition.has_work(self.now_ms)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An event is applied and stored, and its signal is learned."""
    made = World(tmp_path)
    made.click(0)
    made.checkpoint()
    made.learn()
    yield made
    made.store.close()


def items_in(effects: Effects) -> int:
    return sum(key.startswith(ITEM) for key, _ in effects.rows)


def where(effects: Effects) -> tuple[int, int, int]:
    """Stored item rows, and the stored position in the signals: offset and count."""
    return items_in(effects), effects.position.next[SIGNALS], effects.position.signals


def test_rows_of_items_wait_and_the_position_in_the_signals_with_them(world: World) -> None:
    world.click(1)
    effects = world.checkpoint()
    assert where(effects) == (0, 0, 0)
    assert effects.position.next["clicks"] == 2
    world.now_ms += ROWS_EVERY_MS
    assert world.has_work
    assert where(world.checkpoint()) == (1, 1, 1)
    assert not world.has_work


def test_signals_alone_are_work_only_when_their_rows_are_due(world: World) -> None:
    world.checkpoint()  # publishes the new model
    assert not world.has_work
    world.now_ms += ROWS_EVERY_MS - 1
    world.checkpoint()  # and the model as it is five seconds later
    assert not world.has_work
    world.now_ms += 1
    assert world.has_work


def test_the_last_checkpoint_stores_what_waits(world: World) -> None:
    assert world.partition.has_work(world.now_ms, last=True)
    assert where(world.checkpoint(last=True)) == (1, 1, 1)


def test_a_change_of_the_catalogue_is_stored_at_once_and_rows_go_on_waiting(world: World) -> None:
    take = Take(CATALOGUE, Records.of([Record(b"mug", b'{"item_id":"mug","title":"Mug","tags":["kitchen"]}', 0)]), 0)
    world.partition.apply_items([take])
    world.partition.advance(take)
    assert world.has_work
    effects = world.checkpoint()
    assert where(effects) == (0, 0, 0)
    assert effects.position.next[CATALOGUE] == 1


def test_after_a_crash_the_same_is_learned_from_the_signals_again(world: World) -> None:
    world.click(1)
    world.checkpoint()
    world.learn()
    before = world.partition.own_items
    world.open()
    assert (world.partition.own_items.signals, world.partition.position.next[SIGNALS]) == (0, 0)
    world.learn()
    again = world.partition.own_items
    assert again.signals == before.signals == 2
    assert again.events.tolist() == before.events.tolist()
    assert again.vectors.tolist() == before.vectors.tolist()
