"""The view of all items that every worker keeps: what is there when somebody asked for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.shared import Shared, shared_state
from streamer.events import Click, Item
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed, record

LIMIT, MORNING = 1000, 1_760_000_000_000


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path) as own:
        yield own


@pytest.fixture
def shared(deployment: Deployment) -> Shared:
    return shared_state(deployment.settings)


@pytest.fixture
async def reader(deployment: Deployment, shared: Shared) -> AsyncIterator[CatalogueReader]:
    reading = CatalogueReader(deployment.settings, shared)
    await reading.start()
    await reading.loaded.wait()
    yield reading
    await reading.stop()


def test_made_up_ids_fill_no_memory_and_count_for_their_users(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """Each click names an item and a tag that nobody saw before; profiles name them all, also after a restart."""
    limits = {"catalogue_items": LIMIT, "publish_within_ms": 500, "partitions": 2}
    with deployed(kafka.brokers, tmp_path, **limits) as deployment:
        deployment.send([Item("mug", "Mug", ("kitchen",))])
        worker = deployment.worker().wait_ready()
        for half in (range(25), range(25, 30)):
            deployment.send(
                Click(
                    f"c{n}-{user}", f"user-{user}", f"junk-{n}-{user}", MORNING + 97 * n + user, tags=(f"t{n}-{user}",)
                )
                for n in half
                for user in range(60)
            )
            deployment.check_profiles()
            assert worker.metric("streamer_catalogue_items") <= LIMIT + 1
            assert worker.metric("streamer_catalogue_tags") <= LIMIT
            assert worker.said.count("catalogue full") == 1
            assert worker.stop() == 0
            worker.start().wait_ready()
        assert len({each.key for each in deployment.read(deployment.settings.models_topic)}) <= LIMIT
        deployment.send([Item("late", "Listed late", ("kitchen",)), Click("c", "user-0", "late", MORNING + 10**6)])
        deployment.check_profiles()


async def test_who_catches_up_finds_every_item_that_was_acknowledged_before(
    deployment: Deployment, shared: Shared, reader: CatalogueReader
) -> None:
    """Also those that are fetched and not taken in: a fetch of several partitions is taken in piece by piece."""
    topic = deployment.settings.topic("items")
    async with AIOKafkaProducer(bootstrap_servers=deployment.settings.brokers) as producer:
        for batch in range(30):
            items = [record(Item(f"item-{batch}-{n}", "An item", tuple("abcdefgh"))) for n in range(1500)]
            await asyncio.gather(*[await producer.send(topic, key=each.key, value=each.value) for each in items])
            await reader.catch_up()
            known = shared.catalogue.slot_of
            assert [each.key for each in items if each.key is None or each.key.decode() not in known] == []
