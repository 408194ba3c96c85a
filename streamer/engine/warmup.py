"""Compile the kernels before joining the group.

The first start after an installation takes some seconds for it; later ones read them from disk.
"""

import tempfile
import time
from pathlib import Path

import structlog
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streamer import metrics
from streamer.engine.partition import Partition
from streamer.engine.position import Take
from streamer.engine.record_batches import packed
from streamer.engine.shared import shared_state
from streamer.engine.store import Store, shared_cache
from streamer.pipeline.item_model import decode_model
from streamer.pipeline.reader import Reader
from streamer.pipeline.recommend import Wanted
from streamer.pipeline.records import Record, Records, unpack
from streamer.settings import Settings

log = structlog.get_logger(__name__)

EVENTS = 8
SLOW_S = 2.0  # reading compiled kernels from disk takes less


def compile_kernels(settings: Settings) -> None:
    """Run a few events through a partition of its own, from record to row and back."""
    start = time.monotonic()
    log.info("preparing kernels")
    with tempfile.TemporaryDirectory() as directory:
        _rehearse(settings.model_copy(update={"cache_users": 1000, "partitions": 1}), Path(directory))
    metrics.forget()
    seconds = time.monotonic() - start
    if seconds > SLOW_S:
        log.info("kernels compiled and kept for the next start", seconds=round(seconds, 1))


def _rehearse(settings: Settings, directory: Path) -> None:
    store = Store(directory / "rehearsal", shared_cache(8))
    try:
        for first in (0, EVENTS):  # the second time the user comes from the store
            partition = Partition(0, shared_state(settings))
            partition.store = store
            _run(partition, Reader(settings.recent_items, settings.interests, settings.vector_dim), first)
    finally:
        store.close()


def _run(partition: Partition, reader: Reader, first: int) -> None:
    now = partition.shared.now_ms()
    text = b'{"event_id":"%d","user_id":"u","item_id":"%d","ts":%d,"price":1,"currency":"EUR","tags":["a"]}'
    values = [text % (i, i, now) for i in range(first, first + EVENTS)]
    takes = [Take("clicks", _fetched(values[:6], now), 0), Take("purchases", _fetched(values[6:], now), 0)]
    partition.apply_events(partition.decode(takes))
    list(takes[0].records)  # as those that are rejected
    value = partition.outbox.take(partition.shared.catalogue)[0][1]
    partition.apply_signals([Take("item-signals", Records.of([Record(b"", value, now, 0)]), 0)])
    partition.shared.space.refresh()
    effects = partition.cut()
    for _, model in effects.models:
        partition.shared.catalogue.apply_model(decode_model(model or b""))
    partition.write_to_store(effects, 1)
    reader.read(partition.world, 0, "u")
    _rank(partition)


def _fetched(values: list[bytes], now_ms: int) -> Records:
    """Events as the consumer brings them."""
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset, value in enumerate(values):
        batch.append(offset, now_ms, b"u", value, [("header", b"")])
    return unpack([packed(memoryview(batch.build()))])


def _rank(partition: Partition) -> None:
    ranking, users = partition.shared.ranking, partition.shared.cache.users
    if ranking is None:
        return
    ranking.renew_at_once()
    ranking.recommend(partition.number, partition.world, 0, "u", Wanted(1))
    mixer = ranking.mixers[partition.number]
    tested = mixer.test(users, 0, partition.shared.catalogue.see("another"), partition.shared.now_ms())
    if tested is not None:
        mixer.learn(tested._replace(known=True))  # the catalogue has no more items than the user
