"""All Prometheus metrics of a worker, on one registry. Base units, `streamer_` prefix.

No label ever holds a user, an item or an event id: the number of series stays small, and metrics hold nothing personal.
The engine updates these once per batch or checkpoint, never once per event. What can be read off the worker when it is
scraped (lag, state, disk, RocksDB) is not kept here: engine/gauges.py.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, get_args

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streamer import __version__
from streamer.events import KINDS
from streamer.pipeline.decode import Reason
from streamer.profile import What

disable_created_metrics()  # type: ignore[no-untyped-call] # when a series began: half of a scrape, of use to nobody
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


class BatchHistogram(Collector):
    """A histogram that takes many values at once, in about 10 µs; the library's takes 1.4 µs for each."""

    def __init__(self, name: str, what: str, edges: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._what, self._edges = name, what, edges
        self._counts, self._sum = np.zeros(len(edges) + 1, np.int64), 0.0
        registry.register(self)

    def observe(self, values: ArrayLike) -> None:
        """Count values f64[n]."""
        these = np.asarray(values, np.float64)
        places = np.searchsorted(self._edges, these)  # an edge belongs to the bucket that it closes
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(these.sum())

    def collect(self) -> Iterator[Metric]:
        """As the registry asks for it."""
        names = [*map(floatToGoString, self._edges), "+Inf"]
        buckets = list(zip(names, np.cumsum(self._counts).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._what, buckets, self._sum)


# Edges in seconds. 1 is the objective, for a material change; the rest of the changes has a minute.
PUBLISH_EDGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# A checkpoint costs some 20 ms of transaction at least; the session time-out (10 s) is where others take over.
CHECKPOINT_EDGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# A cached profile is to be answered within 5 ms (99 of 100).
HTTP_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
BATCH_EDGES = (1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

# What comes in
EVENTS = Counter(
    "streamer_events_total",
    "Records taken in, by type (click, purchase, item) and outcome (applied, duplicate, rejected, tombstone).",
    ["type", "outcome"],
    registry=REGISTRY,
)
REJECTED = Counter(
    "streamer_rejected_total", "Records sent to the rejected topic, by reason.", ["reason"], registry=REGISTRY
)
FETCHED_BYTES = Gauge(
    "streamer_fetched_bytes",
    "Memory taken by records that are fetched and not applied; half of STREAMER_FETCH_BUFFER_MB at most.",
    registry=REGISTRY,
)
BATCH_RECORDS = Histogram(
    "streamer_batch_records", "Records in one batch handed to the pipeline.", buckets=BATCH_EDGES, registry=REGISTRY
)
# Of a batch, of what is learned of items, of a checkpoint. `send` and `commit` wait for Kafka most of their time.
STAGES: Final = ("decode", "load", "assemble", "fold", "learn", "refresh", "board", "gate", "send", "commit", "store")
STAGE_SECONDS = Counter(
    "streamer_stage_seconds_total",
    f"Time spent by stage: {', '.join(STAGES)}.",
    ["stage"],
    registry=REGISTRY,
)

# What goes out
PROFILES = Counter(
    "streamer_profiles_published_total",
    "Profiles published, by cause: the first of what changed; activity: a small change that was held back until now.",
    ["cause"],
    registry=REGISTRY,
)
PUBLISH_LATENCY = BatchHistogram(
    "streamer_publish_latency_seconds",
    "Time from the append of a user's first new event to the commit of the profile; changes held back are not in it.",
    PUBLISH_EDGES,
    REGISTRY,
)
HELD_PROFILES = Gauge(
    "streamer_held_profiles", "Profiles with a small change that waits to be published.", registry=REGISTRY
)

# Checkpoints and state
CHECKPOINT_SECONDS = Histogram(
    "streamer_checkpoint_seconds",
    "Duration of one checkpoint of a partition, from its cut to the local write.",
    buckets=CHECKPOINT_EDGES,
    registry=REGISTRY,
)
CHECKPOINT_ROWS = Counter("streamer_checkpoint_rows_total", "Rows of state written by checkpoints.", registry=REGISTRY)
CACHE_USERS = Gauge("streamer_cache_users", "Users whose state is in memory.", registry=REGISTRY)
CACHE_HITS = Counter("streamer_cache_hits_total", "Users that a batch found in memory.", registry=REGISTRY)
CACHE_MISSES = Counter("streamer_cache_misses_total", "Users that a batch had to load or to create.", registry=REGISTRY)
CACHE_EVICTIONS = Counter(
    "streamer_cache_evictions_total", "Users that left memory to make room for others.", registry=REGISTRY
)
ITEMS = Gauge("streamer_items", "Items of the catalogue that this worker knows.", registry=REGISTRY)
CATALOGUE_ITEMS = Gauge(
    "streamer_catalogue_items",
    "Items in memory, those among them that only events named; STREAMER_CATALOGUE_ITEMS bounds them.",
    registry=REGISTRY,
)
CATALOGUE_TAGS = Gauge(
    "streamer_catalogue_tags",
    "Names of tags in memory, those among them that only events named; STREAMER_CATALOGUE_ITEMS bounds them.",
    registry=REGISTRY,
)

# Partitions
RESTORE_ROWS = Counter("streamer_restore_rows_total", "Rows of state restored from the changelog.", registry=REGISTRY)
RESTORE_REMAINING = Gauge(
    "streamer_restore_remaining_records", "Changelog records that are still to be restored.", registry=REGISTRY
)
RESTORE_SECONDS_LEFT = Gauge(
    "streamer_restore_seconds_left", "Time that the rest of a restore takes at its rate so far.", registry=REGISTRY
)
REBALANCES = Counter("streamer_rebalances_total", "Assignments of partitions to this worker.", registry=REGISTRY)
PARTITIONS_OWNED = Gauge("streamer_partitions_owned", "Partitions that this worker owns.", registry=REGISTRY)
STALLED_SECONDS = Gauge(
    "streamer_stalled_seconds",
    "How long work has waited without a step forward; 0 while something moves or nothing waits.",
    registry=REGISTRY,
)
STALLS = Counter(
    "streamer_stalls_total",
    "Times that liveness failed because nothing moved for STREAMER_STALL_MS.",
    registry=REGISTRY,
)
READY = Gauge("streamer_ready", "1 when this worker answers for its partitions, else 0.", registry=REGISTRY)

# HTTP
HTTP_REQUESTS = Counter(
    "streamer_http_requests_total", "Answers, by route and status.", ["route", "status"], registry=REGISTRY
)
HTTP_SECONDS = Histogram(
    "streamer_http_request_seconds",
    "Time to answer a request, by route; live streams are not counted.",
    ["route"],
    buckets=HTTP_EDGES,
    registry=REGISTRY,
)
HTTP_STREAMS = Gauge("streamer_http_streams", "Live streams that are open.", registry=REGISTRY)
HTTP_STREAMS_DROPPED = Counter(
    "streamer_http_streams_dropped_total", "Live streams closed because their reader was too slow.", registry=REGISTRY
)

# Runs
ENDS = Counter(
    "streamer_ends_total",
    "How earlier runs on this data directory ended: stopped, fenced, stalled, kafka, fault, refused, killed.",
    ["how"],
    registry=REGISTRY,
)
LAST_EXIT_CODE = Gauge(
    "streamer_last_exit_code", "Exit code of the run before; 137: it was killed, 0 also: none.", registry=REGISTRY
)

BUILD = Info("streamer_build", "The version that runs.", registry=REGISTRY)
BUILD.info({"version": __version__})


def begin() -> None:
    """Every series that there can be, at 0: a rate misses the first count of a series that appears with it."""
    for kind in KINDS:
        for outcome in ("applied", "duplicate", "rejected"):
            EVENTS.labels(kind.name, outcome)
    for outcome in ("applied", "tombstone", "rejected"):
        EVENTS.labels("item", outcome)
    for labelled, values in ((REJECTED, get_args(Reason)), (STAGE_SECONDS, STAGES), (PROFILES, get_args(What))):
        for value in values:
            labelled.labels(value)


begin()


def forget() -> None:
    """Start counting anew what a rehearsal of the pipeline counted."""
    for labelled in (EVENTS, REJECTED, STAGE_SECONDS):
        labelled.clear()
    for plain in (CACHE_HITS, CACHE_MISSES, CACHE_EVICTIONS):
        plain.reset()
    CACHE_USERS.set(0)
    begin()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time that a block takes as the stage `name`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).inc(time.perf_counter() - start)
