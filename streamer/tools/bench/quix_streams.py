"""A peer: Quix Streams doing the light job, as its documentation shows stateful processing.

    python -m streamer.tools.bench.quix_streams

One dataframe over both event topics, the row in its state store (RocksDB, changelog on). It has no timers: a user's
profile goes out with an event, at most once a second. Events are decoded with msgspec and rows are packed bytes: both
are faster than its JSON. librdkafka is given larger batches and fetches than its defaults.
"""

import sys
import time
from typing import Any

from quixstreams import Application
from quixstreams.models import TopicConfig

from streamer.events import KINDS
from streamer.settings import Settings, load
from streamer.tools.bench.light_job import BLANK, COMMIT_S, FIRST_EVENT, PROFILE_S, decode, profile, update, warm_up

RAW: dict[str, Any] = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
PRODUCER = {"linger.ms": 50, "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000}
CONSUMER = {"queued.min.messages": 200_000, "fetch.min.bytes": 1 << 16, "fetch.wait.max.ms": 100}


def build(settings: Settings) -> Application:
    """The application with its one dataframe."""
    app = Application(
        broker_address=settings.brokers,
        consumer_group=settings.group_id,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_S,
        state_dir=settings.data_dir,
        loglevel="WARNING",
        consumer_extra_config=CONSUMER,
        producer_extra_config=PRODUCER,
    )
    config = TopicConfig(num_partitions=settings.partitions, replication_factor=1)
    clicks, purchases = (app.dataframe(app.topic(settings.topic(kind.topic), config=config, **RAW)) for kind in KINDS)
    profiles = app.topic(settings.topic("profiles"), config=config, key_serializer="bytes", value_serializer="bytes")
    learned = clicks.concat(purchases).apply(_Job().learn, stateful=True, metadata=True)
    learned.filter(lambda value: value is not None).to_topic(profiles)
    return app


class _Job:
    def __init__(self) -> None:
        self._published: dict[bytes, float] = {}  # by user: when

    def learn(self, value: bytes, key: bytes, _timestamp: int, _headers: Any, state: Any) -> bytes | None:
        """The profile of the user, or None while the last one is young."""
        if not self._published:
            sys.stdout.write(f"{FIRST_EVENT}\n")
            sys.stdout.flush()
        row = update(state.get_bytes("row") or BLANK, decode(value))
        state.set_bytes("row", row)
        now = time.monotonic()
        if now - self._published.get(key, 0.0) < PROFILE_S:
            return None
        self._published[key] = now
        return profile(key.decode(), row)


if __name__ == "__main__":
    warm_up()
    build(load()).run()
