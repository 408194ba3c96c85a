"""A stock Faust agent that counts events in a Table: the control of the fault tests. What the worker replaces.

    STREAMER_BROKERS=… STREAMER_DATA_DIR=… python -m tests.stock_agent worker --without-web

Reads the topic `clicks`, counts by user in a Table with a changelog, and sends the id of every event that it counted
to `rejected`, a topic that happens to be there. Faust's own defaults, but for two that only make it quicker.
"""

from typing import Any

import faust
import msgspec

from streamer.events import Click
from streamer.settings import load


def build() -> faust.App:
    """The app: one agent, one Table."""
    settings = load()
    app = faust.App(
        settings.group_id,
        broker=f"kafka://{settings.brokers}",
        store="memory://",  # the changelog brings it back
        datadir=settings.data_dir,
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        broker_commit_interval=0.5,
        broker_session_timeout=settings.session_timeout_ms / 1000,
        web_enabled=False,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    clicks, counted = app.topic(settings.topic("clicks"), **raw), app.topic(settings.topic("rejected"), **raw)
    counts = app.Table("counts", default=int, partitions=settings.partitions)

    @app.agent(clicks)
    async def count(stream: Any) -> None:
        async for key, value in stream.items():
            counts[key.decode()] += 1
            await counted.send(key=key, value=msgspec.json.decode(value, type=Click).event_id.encode())

    return app


if __name__ == "__main__":
    build().main()
