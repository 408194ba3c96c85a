"""The view of all items that every worker keeps: what is there when somebody asked for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.shared import Shared, shared_state
from streamer.events import Item
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed, record


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path) as own:
        yield own


@pytest.fixture
def shared(deployment: Deployment) -> Shared:
    return shared_state(deployment.settings)


@pytest.fixture
async def reader(deployment: Deployment, shared: Shared) -> AsyncIterator[CatalogueReader]:
    reading = CatalogueReader(deployment.settings, shared.catalogue, shared.space, shared.limits)
    await reading.start()
    await reading.loaded.wait()
    yield reading
    await reading.stop()


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
