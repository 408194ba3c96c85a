"""The peer: a Faust agent with a Table, as Faust's documentation shows it, doing the light half of our job.

    python -m streamer.tools.bench.stock_faust

For each event one SGD step of a user vector of 64 numbers against the item's, 16 decayed tags, and the row to the Table
(RocksDB through rocksdict, changelog on); once a second the profiles of those who changed. The settings say where Kafka
is. Rows are packed bytes and events are decoded with msgspec: in both Faust is helped over its default, JSON.
"""

import sys
import time
import zlib
from typing import Any

import faust
import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import KINDS
from streamer.settings import load

DIM, TAGS = 64, 16
RATE, REGULARISATION = 0.05, 0.01
HALF_LIFE_MS = 30 * 86_400_000
COMMIT_S = 1.0  # Faust's default of 2.8 s would need longer runs to be told apart from noise

ROW = np.dtype([("vector", "<f4", (DIM,)), ("tag", "<u4", (TAGS,)), ("weight", "<f4", (TAGS,)), ("ts", "<i8")])
BLANK = np.zeros((), ROW).tobytes()


class Event(msgspec.Struct):
    """What the job needs of an event."""

    user_id: str
    item_id: str
    ts: int


decode = msgspec.json.Decoder(Event).decode
item_vectors: dict[str, NDArray[np.float32]] = {}


def item_vector(item_id: str) -> NDArray[np.float32]:
    """A fixed vector of length 1 for each item."""
    vector = item_vectors.get(item_id)
    if vector is None:
        rng = np.random.default_rng(zlib.crc32(item_id.encode()))
        vector = rng.standard_normal(DIM).astype(np.float32)
        item_vectors[item_id] = vector = vector / np.linalg.norm(vector)
    return vector


def update(raw: bytes, event: Event) -> bytes:
    """The row after an event."""
    row = np.frombuffer(raw, ROW)[0].copy()
    user, item = row["vector"], item_vector(event.item_id)
    error = 1.0 - float(user @ item)
    user += RATE * (error * item - REGULARISATION * user)
    row["weight"] *= 2.0 ** (-max(event.ts - int(row["ts"]), 0) / HALF_LIFE_MS)
    tag = zlib.crc32(event.item_id.rpartition("-")[2][-2:].encode())
    found = np.flatnonzero(row["tag"] == tag)
    place = int(found[0]) if len(found) else int(row["weight"].argmin())
    row["weight"][place] = row["weight"][place] + 1 if len(found) else 1
    row["tag"][place], row["ts"] = tag, max(event.ts, int(row["ts"]))
    packed: bytes = row.tobytes()
    return packed


def profile(user_id: str, raw: bytes) -> bytes:
    """What goes out for a user."""
    row = np.frombuffer(raw, ROW)[0]
    tags = {str(tag): weight for tag, weight in zip(row["tag"].tolist(), row["weight"].tolist(), strict=True) if tag}
    return msgspec.json.encode({"user_id": user_id, "tags": tags, "vector": row["vector"].tobytes()})


def build() -> faust.App:
    """The app: one agent over both event topics, one Table, one timer."""
    settings = load()
    app = faust.App(
        settings.group_id,
        broker=f"kafka://{settings.brokers}",
        store="rocksdb://",
        datadir=settings.data_dir,
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        broker_commit_interval=COMMIT_S,
        web_enabled=False,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes}
    names = [settings.topic(kind.topic) for kind in KINDS]
    events = app.topic(*names, key_serializer="raw", value_serializer="raw", **raw)
    profiles = app.topic(settings.topic("profiles"), key_serializer="raw", value_serializer="raw", **raw)
    options = {"driver": "rocksdict"}
    table = app.Table("users", partitions=settings.partitions, default=lambda: BLANK, options=options, **raw)
    changed: set[bytes] = set()

    @app.agent(events)  # type: ignore[untyped-decorator]
    async def learn(stream: Any) -> None:
        sys.stdout.write(f"first event at {time.monotonic()}\n")
        sys.stdout.flush()
        async for key, value in stream.items():
            table[key] = update(table[key], decode(value))
            changed.add(key)

    @app.timer(1.0)  # type: ignore[untyped-decorator]
    async def publish() -> None:
        users = list(changed)
        changed.clear()
        for key in users:
            await profiles.send(key=key, value=profile(key.decode(), table[key]))

    return app


if __name__ == "__main__":
    faust.Worker(build(), loglevel="WARNING").execute_from_commandline()
