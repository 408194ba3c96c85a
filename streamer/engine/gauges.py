"""What is read off the worker when its metrics are asked for: lag, state on disk, disk, RocksDB. Changes nothing."""

import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamer.engine.engine import Engine
from streamer.engine.ingest import Ingest
from streamer.engine.ranking import Ranking
from streamer.engine.store import Store

# Name of a property of RocksDB: what it is called here, and what it is. Summed over the worker's partitions.
ROCKSDB: Final = {
    "size-all-mem-tables": ("memtable_bytes", "Memory of rows that are not in files yet."),
    "estimate-table-readers-mem": ("table_reader_bytes", "Memory for reading files, outside the block cache."),
    "num-running-compactions": ("running_compactions", "Compactions that run."),
    "estimate-pending-compaction-bytes": ("pending_compaction_bytes", "Bytes that compaction has still to rewrite."),
    "num-immutable-mem-table": ("waiting_memtables", "Full write buffers that wait to be written to files."),
    "is-write-stopped": ("write_stopped", "Partitions whose writes stand still until compaction has caught up."),
    "background-errors": ("background_errors", "Flushes and compactions that failed since the partition was opened."),
}
_STALLS: Final = re.compile(r"total-(?:delays|stops): (\d+)")


class Gauges(Collector):
    """Families of one worker, for the registry."""

    def __init__(self, engine: Engine, ingest: Ingest) -> None:
        self._engine, self._ingest = engine, ingest

    def collect(self) -> Iterator[Metric]:
        """All families, as of now."""
        yield from self._lag()
        yield self._checkpoints()
        stores = {n: p.store for n, p in self._engine.partitions.items() if p.store is not None}
        yield from _state(stores)
        yield from _rocksdb(list(stores.values()))
        yield from self._deployment()
        ranking = self._engine.shared.ranking
        if ranking is not None:
            yield from _model(ranking)

    def _lag(self) -> Iterable[Metric]:
        labels = ["topic", "partition"]
        records = GaugeMetricFamily(
            "streamer_lag_records", "Records of a source partition that are not yet applied.", labels=labels
        )
        seconds = GaugeMetricFamily(
            "streamer_lag_seconds",
            "Age of a source partition's oldest record that is fetched and not handed on; 0: none.",
            labels=labels,
        )
        for number, partition in self._engine.partitions.items():
            for topic, at in partition.position.next.items():
                end = self._ingest.end_offset(topic, number)
                if end is not None:
                    where = [topic, str(number)]
                    records.add_metric(where, max(end - at, 0))
                    seconds.add_metric(where, self._ingest.lag_seconds_of(topic, number))
        return records, seconds

    def _checkpoints(self) -> Metric:
        family = GaugeMetricFamily(
            "streamer_checkpoint_timestamp_seconds",
            "When a partition's state was last written: its last checkpoint, or its restore.",
            labels=["partition"],
        )
        for number, partition in self._engine.partitions.items():
            if partition.store is not None and partition.store.written_at:
                family.add_metric([str(number)], partition.store.written_at / 1000)
        return family

    def _deployment(self) -> Iterable[Metric]:
        settings = self._engine.settings
        disk = shutil.disk_usage(settings.data_dir)
        for name, what, value in (
            ("partitions", "Partitions of the deployment: all workers together own so many.", settings.partitions),
            ("disk_free_bytes", "What is free on the disk of STREAMER_DATA_DIR.", disk.free),
            ("disk_size_bytes", "How large the disk of STREAMER_DATA_DIR is.", disk.total),
        ):
            yield GaugeMetricFamily(f"streamer_{name}", what, value)


def _model(ranking: Ranking) -> Iterable[Metric]:
    events = CounterMetricFamily(
        "streamer_model_events",
        "Events that were predicted before they were learned from, by users: cold, warm.",
        labels=["users"],
    )
    hits = CounterMetricFamily(
        "streamer_model_hits",
        "Of these, whose item stood among the first 20 of a ranker: model, popularity.",
        labels=["users", "ranker"],
    )
    loss = CounterMetricFamily(
        "streamer_model_log_loss", "Sum of their log loss in nats, by ranker.", labels=["users", "ranker"]
    )
    expected = CounterMetricFamily(
        "streamer_model_expected_hits",
        "Hits that the model expected: the sum of the probabilities of its first 20.",
        labels=["users"],
    )
    for users, (count, sums) in ranking.meter.totals().items():
        events.add_metric([users], count)
        expected.add_metric([users], sums.expected)
        hits.add_metric([users, "model"], sums.hit)
        hits.add_metric([users, "popularity"], sums.popularity_hit)
        loss.add_metric([users, "model"], sums.log_loss)
        loss.add_metric([users, "popularity"], sums.popularity_log_loss)
    return events, hits, expected, loss


def _state(stores: dict[int, Store]) -> Iterable[Metric]:
    labels = ["partition"]
    rows = GaugeMetricFamily("streamer_state_rows", "Rows of state on disk, as RocksDB estimates them.", labels=labels)
    size = GaugeMetricFamily("streamer_state_bytes", "Size of the files of state on disk.", labels=labels)
    stalls = CounterMetricFamily(
        "streamer_rocksdb_write_stalls",
        "Times that RocksDB slowed or stopped a partition's writes since it was opened.",
        labels=labels,  # their sum would fall when a partition leaves, and that would read as a reset
    )
    for number, store in stores.items():
        where = [str(number)]
        rows.add_metric(where, store.property("rocksdb.estimate-num-keys"))
        size.add_metric(where, store.property("rocksdb.total-sst-files-size"))
        found = _STALLS.findall(store.text_property("rocksdb.cf-write-stall-stats"))
        stalls.add_metric(where, sum(map(int, found)))
    return rows, size, stalls


def _rocksdb(stores: list[Store]) -> Iterator[Metric]:
    for key, (name, what) in ROCKSDB.items():
        total = sum(store.property(f"rocksdb.{key}") for store in stores)
        yield GaugeMetricFamily(f"streamer_rocksdb_{name}", what, total)
    cache = max((store.property("rocksdb.block-cache-usage") for store in stores), default=0)  # they share one
    yield GaugeMetricFamily("streamer_rocksdb_block_cache_bytes", "Memory of the block cache that is in use.", cache)
