"""A day of clicks and purchases, read as it happens or after an outage, leaves the same behind."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from streamer.events import Click, Item, Purchase
from streamer.pipeline import signals
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.layout import PREDECESSORS
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Record, counted, deployed, record

MORNING, QUARTER_MS = 1_760_000_000_000, 15 * 60_000
USERS, ITEMS, QUARTERS = 5, 40, 24
SMALL_BATCHES = {"batch_records": 7, "publish_within_ms": 500}
Transitions = dict[tuple[str, int], list[int]]


def quarter(n: int) -> list[Click | Purchase]:
    """What everybody does in a quarter of an hour: one thing each, all at different times."""
    chance = random.Random(n)
    events: list[Click | Purchase] = []
    for user in range(USERS):
        who, what, ts = f"user-{user}", f"item-{chance.randrange(ITEMS)}", MORNING + n * QUARTER_MS + user
        if chance.random() < 0.5:
            events.append(Click(f"c{n}-{user}", who, what, ts))
        else:
            events.append(Purchase(f"p{n}-{user}", who, what, ts, price=1, currency="EUR"))
    return events


DAY = [event for n in range(QUARTERS) for event in quarter(n)]


def at_its_time(event: Click | Purchase) -> Record:
    return record(event)._replace(timestamp=event.ts)


@pytest.fixture(scope="module")
def live(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The worker runs all day."""
    with deployed(kafka.brokers, tmp_path_factory.mktemp("live"), partitions=2, **SMALL_BATCHES) as deployment:
        deployment.send(Item(f"item-{n}", f"Item {n}", ("tag",)) for n in range(ITEMS))
        deployment.worker().wait_ready()
        for n in range(QUARTERS):
            deployment.send(map(at_its_time, quarter(n)))
            deployment.wait_drained()
        yield deployment


@pytest.fixture(scope="module")
def late(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The worker starts in the evening; its topics were written one after the other."""
    with deployed(kafka.brokers, tmp_path_factory.mktemp("late"), partitions=2, **SMALL_BATCHES) as deployment:
        deployment.send(Item(f"item-{n}", f"Item {n}", ("tag",)) for n in range(ITEMS))
        for kind in (Purchase, Click):
            deployment.send(at_its_time(event) for event in DAY if isinstance(event, kind))
        deployment.worker().wait_ready()
        deployment.wait_drained()
        yield deployment


def transitions(deployment: Deployment) -> Transitions:
    """By item and time of each event: the items that its user had before, newest first, as the signals say."""
    found: Transitions = {}
    for each in deployment.read(deployment.settings.signals_topic):
        told = signals.decode(each.value, each.offset)
        for n, item in enumerate(told.item.tolist()):
            found[told.items[item], int(told.ts[n])] = [hashed for hashed in told.predecessors[n].tolist() if hashed]
    return found


def true_transitions() -> Transitions:
    """The same of what happened, in plain Python."""
    found: Transitions = {}
    histories: dict[str, list[int]] = {}
    for event in DAY:
        history = histories.setdefault(event.user_id, [])
        found[event.item_id, event.ts] = history[:PREDECESSORS]
        history.insert(0, hash_id(event.item_id))
    return found


def recent_items(deployment: Deployment) -> dict[str, list[Any]]:
    def profiles() -> dict[str, Any]:
        return deployment.latest()

    deployment.until(lambda: sum(map(counted, profiles().values())) == len(DAY), "all events in the profiles")
    return {user: profile["recent_items"] for user, profile in profiles().items()}


@pytest.mark.parametrize("when", ["live", "late"])
def test_transitions_are_those_of_the_day(when: str, request: pytest.FixtureRequest) -> None:
    assert transitions(request.getfixturevalue(when)) == true_transitions()


def test_recent_items_are_the_same_live_and_after_an_outage(live: Deployment, late: Deployment) -> None:
    told = recent_items(late)
    assert told == recent_items(live)
    assert {len(items) for items in told.values()} == {QUARTERS}
