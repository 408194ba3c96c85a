"""The workers of an evaluation: the engine's own partitions, fed one event at a time, with a mailbox in place of Kafka.

With several partitions each is a worker of its own, with its own catalogue, and signals arrive a checkpoint later, as
they would through the topic.
"""

from collections.abc import Sequence
from pathlib import Path

from streamer.engine.partition import Partition
from streamer.engine.position import Take
from streamer.engine.shared import shared_state
from streamer.engine.store import Store, shared_cache
from streamer.errors import SettingsError
from streamer.pipeline.assemble import Part
from streamer.pipeline.decode import decode_items
from streamer.pipeline.item_model import decode_model
from streamer.pipeline.records import Record, Records
from streamer.settings import Settings
from streamer.tools.lines import Line
from streamer.upstream import partition_of

CACHE_MB = 16
SIGNALS = "item-signals"


class Worker:
    """One partition, its view of all items, and what it ranks with. Event time is its clock."""

    def __init__(self, number: int, settings: Settings, directory: Path) -> None:
        self.now_ms = 0
        self.shared = shared_state(settings)._replace(now_ms=lambda: self.now_ms)
        self.partition = Partition(number, self.shared)
        self.partition.store = Store(directory / str(number), shared_cache(CACHE_MB))
        if self.shared.ranking is None:
            raise SettingsError("evaluate ranks: set STREAMER_RANKING_MB above 0")
        self.ranking = self.shared.ranking
        self.ranking.spare_no_time()
        self.ranker, self.mixer = self.ranking.ranker, self.ranking.mixers[number]
        self._offset = 0

    def apply_item(self, line: Line, *, owned: bool) -> None:
        """A line of the catalogue: every worker reads it, its owner takes care of the model."""
        take = self._take(line, 0)
        for item_id, item in decode_items(list(take.records), self.shared.limits)[0]:
            if item is None:
                self.shared.catalogue.forget(item_id)
            else:
                self.shared.catalogue.describe(item)
        if owned:
            self.partition.apply_items([take])

    def decode(self, line: Line) -> list[Part]:
        """A user's event, got when it happened; none where it is rejected."""
        return self.partition.decode([self._take(line, line.ts or 0)])

    def apply_signals(self, values: Sequence[bytes]) -> None:
        """What events taught about our items."""
        first = self.partition.position.next.get(SIGNALS, 0)
        records = [Record(b"", value, self.now_ms, n) for n, value in enumerate(values, first)]
        take = Take(SIGNALS, Records.of(records), first)
        self.partition.apply_signals([take])
        if records:
            self.partition.advance(take)

    def apply_models(self, models: Sequence[tuple[bytes, bytes | None]]) -> None:
        """What the owners of items learned."""
        catalogue = self.shared.catalogue
        for key, value in models:
            if value is None:
                catalogue.drop_model(key.decode())
            else:
                catalogue.apply_model(decode_model(value))
        self.shared.space.refresh()
        self.ranking.renew_at_once()

    def close(self) -> None:
        """Let go of the store."""
        if self.partition.store is not None:
            self.partition.store.close()

    def _take(self, line: Line, ts: int) -> Take:
        self._offset += 1
        return Take(line.topic, Records.of([Record(line.key, line.value, ts, self._offset)]), self._offset)


class Workers:
    """All of them, and what is on its way between them."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._all = [Worker(n, settings, directory) for n in range(settings.partitions)]
        self._late = settings.partitions > 1
        self._signals: list[tuple[int, bytes]] = []

    def of(self, key: bytes) -> Worker:
        """The worker that a user or an item belongs to."""
        return self._all[partition_of(key, len(self._all))]

    def apply_item(self, line: Line) -> None:
        """A line of the catalogue."""
        for worker in self._all:
            worker.apply_item(line, owned=worker is self.of(line.key))

    def checkpoint(self, now_ms: int) -> None:
        """Signals go out, owners learn from those that have arrived, and everybody reads the models."""
        arriving = self._signals
        self._signals, models = [], []
        for number, worker in enumerate(self._all):
            worker.now_ms = now_ms
            effects = worker.partition.cut()
            worker.partition.write_to_store(effects, number)
            self._signals += effects.signals
            models += effects.models
        if not self._late:
            arriving, self._signals = self._signals, []
        for number, worker in enumerate(self._all):
            worker.apply_signals([value for owner, value in arriving if owner == number])
            models += worker.partition.own_items.take_models(now_ms)
        for worker in self._all:
            worker.apply_models(models)

    def close(self) -> None:
        """Let go of the stores."""
        for worker in self._all:
            worker.close()
