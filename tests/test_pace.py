"""Pace: when the next checkpoint starts, with a clock of our own."""

import pytest

from streamer.engine import pace
from streamer.engine.pace import Pace
from streamer.settings import load


class Clock:
    """Seconds that pass when we say so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Now."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def test_a_lone_event_is_written_at_once(clock: Clock) -> None:
    keeper = Pace(load())
    keeper.restart()
    clock.now += 0.001
    keeper.applied(1, waiting=0)
    assert not keeper.may_wait()
    assert keeper.shortest_ms(rows=1) < 10


def test_many_rows_make_the_next_checkpoint_later_but_not_for_long() -> None:
    keeper = Pace(load(checkpoint_ms=500))
    assert keeper.shortest_ms(rows=100) == pytest.approx(15)
    assert keeper.shortest_ms(rows=100_000) == 500


def test_who_is_ten_seconds_behind_waits_five_more(clock: Clock) -> None:
    keeper = Pace(load(checkpoint_backlog_ms=60_000))
    clock.now += 1
    keeper.applied(1000, waiting=10_000)
    assert keeper.longest_ms() == pytest.approx(5000)
    assert keeper.may_wait()


def test_a_deep_backlog_does_not_put_checkpoints_off_for_ever(clock: Clock) -> None:
    keeper = Pace(load(checkpoint_backlog_ms=3000))
    clock.now += 1
    keeper.applied(10, waiting=1_000_000)
    assert keeper.longest_ms() == 3000
    clock.now += 2.5
    assert not keeper.may_wait()


def test_when_the_backlog_is_gone_what_it_held_back_is_written(clock: Clock) -> None:
    keeper = Pace(load())
    clock.now += 1
    keeper.applied(1000, waiting=100_000)
    assert keeper.may_wait()
    keeper.applied(1000, waiting=0)
    assert not keeper.may_wait()


def test_held_back_changes_do_not_wait_for_the_backlog(clock: Clock) -> None:
    keeper = Pace(load(publish_within_ms=2000))
    clock.now += 1
    keeper.applied(10, waiting=1_000_000)
    assert keeper.longest_ms() == 500
