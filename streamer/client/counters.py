"""What a subscriber has counted: plain numbers that any thread may read, and a view of them for Prometheus."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric


@dataclass(slots=True)
class Counters:
    """Counts since the subscriber was made. `lag_records` is what was still to be read at the last fetch.

    Records that were read are `updated` or `erased` (handed over), `repeated` (not newer than what was handed over
    before) or `undecodable` (not a profile: logged and skipped).
    """

    updated: int = 0
    erased: int = 0
    repeated: int = 0
    undecodable: int = 0
    commits: int = 0
    commit_failures: int = 0
    lag_records: int = 0


class CountersCollector:
    """The counters of one subscriber as metrics `streamer_client_…`, read when they are scraped."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable["Metric"]:
        """All metrics as they are now."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        counters = self._counters
        records = CounterMetricFamily(
            "streamer_client_records", "Records of the profile topic that were read, by outcome.", labels=["outcome"]
        )
        for outcome in ("updated", "erased", "repeated", "undecodable"):
            records.add_metric([outcome], getattr(counters, outcome))
        commits = CounterMetricFamily(
            "streamer_client_commits", "Commits of the group's position, by outcome.", labels=["outcome"]
        )
        commits.add_metric(["done"], counters.commits)
        commits.add_metric(["failed"], counters.commit_failures)
        lag = GaugeMetricFamily("streamer_client_lag_records", "Records that were still to be read at the last fetch.")
        lag.add_metric([], counters.lag_records)
        return [records, commits, lag]

    # A registry asks for the names when it gets a collector, and refuses a second one that has the same.
    describe = collect


@contextmanager
def registered(counters: Counters, registry: "CollectorRegistry") -> Iterator[None]:
    """On the registry inside the block. Raises ValueError when a subscriber is there already: give each its own."""
    collector = CountersCollector(counters)
    registry.register(collector)
    try:
        yield
    finally:
        registry.unregister(collector)
