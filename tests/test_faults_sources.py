"""Source topics as they come: with holes in their offsets, markers of transactions, and records that are cut short."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice

import msgspec
from aiokafka import AIOKafkaProducer

from streamer.events import Click, Purchase
from tests.deployment import Deployment, Record, made_up, record
from tests.fleet import check, named

TS = 1_760_000_000_000
EVENTS = 600
IN_A_TRANSACTION = 20  # events
Event = Click | Purchase


@asynccontextmanager
async def transactions(brokers: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that is told where each begins and how it ends."""
    async with AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=uuid.uuid4().hex) as producer:
        yield producer


async def send_and_withdraw(fleet: Deployment, events: list[Event]) -> None:
    """Each event in a transaction that is committed, between two that are withdrawn: a third of the offsets is left."""
    async with transactions(fleet.settings.brokers) as producer:
        for first in range(0, len(events), IN_A_TRANSACTION):
            some = events[first : first + IN_A_TRANSACTION]
            for commit in (False, True, False):
                await producer.begin_transaction()
                await produce(producer, fleet, some)
                await (producer.commit_transaction() if commit else producer.abort_transaction())


async def produce(producer: AIOKafkaProducer, fleet: Deployment, events: Iterable[Event]) -> None:
    """Have them acknowledged."""
    ready = [record(event) for event in events]
    topic = fleet.settings.topic
    sent = [await producer.send(topic(each.topic), key=each.key, value=each.value) for each in ready]
    await asyncio.gather(*sent)


def test_offsets_with_holes_are_read_to_the_last_event_and_over_a_crash(fleet: Deployment) -> None:
    process = named(fleet, "w").wait_ready()
    events = list(islice(made_up(users=30, items=10), EVENTS))
    asyncio.run(send_and_withdraw(fleet, events[: EVENTS // 2]))
    process.crash()
    asyncio.run(send_and_withdraw(fleet, events[EVENTS // 2 :]))
    fleet.check_profiles()
    assert sum(user.clicks + user.purchases for user in fleet.truth().users.values()) == EVENTS
    assert_rejects_what_is_cut_short(fleet)
    check(fleet)


def assert_rejects_what_is_cut_short(fleet: Deployment) -> None:
    """A record that ends at any of its bytes but the last."""
    whole = msgspec.json.encode(Click("cut", "ann", "mug", TS, session_id="s", tags=("täg",)))
    fleet.send(Record("clicks", b"ann", whole[:size]) for size in range(len(whole)))
    fleet.send([Click("uncut", "ann", "mug", TS)])
    fleet.wait_drained()
    rejected = fleet.read(fleet.settings.topic("rejected"))
    assert [dict(each.headers)["reason"] for each in rejected] == [b"malformed_json"] * len(whole)
