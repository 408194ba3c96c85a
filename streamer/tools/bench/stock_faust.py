"""A peer: a Faust agent with a Table, as Faust's documentation shows it, doing the light job.

    python -m streamer.tools.bench.stock_faust

Each event's row goes to the Table (RocksDB through rocksdict, changelog on); once a second the profiles of those who
changed go out. The settings say where Kafka is. Rows are packed bytes and events are decoded with msgspec: in both
Faust is helped over its default, JSON.
"""

import sys
from typing import Any

import faust

from streamer.events import KINDS
from streamer.settings import load
from streamer.tools.bench.light_job import BLANK, COMMIT_S, FIRST_EVENT, PROFILE_S, decode, profile, update, warm_up


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
        sys.stdout.write(f"{FIRST_EVENT}\n")
        sys.stdout.flush()
        async for key, value in stream.items():
            table[key] = update(table[key], decode(value))
            changed.add(key)

    @app.timer(PROFILE_S)  # type: ignore[untyped-decorator]
    async def publish() -> None:
        users = list(changed)
        changed.clear()
        for key in users:
            await profiles.send(key=key, value=profile(key.decode(), table[key]))

    return app


if __name__ == "__main__":
    warm_up()
    faust.Worker(build(), loglevel="WARNING").execute_from_commandline()
