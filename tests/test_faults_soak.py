"""A long run (`--soak-minutes`): memory, descriptors and lag stay where they are once everything is warm."""

import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import pytest

from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed
from tests.fleet import RATE, check, fleet_on
from tests.worker_process import WorkerProcess

USERS, CACHED = 5000, 2000  # some are always on their way in or out
SAMPLES = 60
GROWTH = 1.05  # of memory between the second and the last third: what an allocator may still take
MORE_DESCRIPTORS = 20  # RocksDB's files come and go
LAG_S = 10.0  # of events; in a healthy run it is well below one

pytestmark = [pytest.mark.slow, pytest.mark.timeout(24 * 3600)]


class Sample(NamedTuple):
    """A worker at one moment."""

    memory: int  # bytes, resident
    descriptors: int
    lag: int  # events sent and not committed


def sample(fleet: Deployment, process: WorkerProcess, feed: Feed) -> Sample:
    worker, names = psutil.Process(process.pid), {fleet.settings.topic(name) for name in ("clicks", "purchases")}
    committed = sum(offset for tp, offset in fleet.committed().items() if tp.topic in names)
    return Sample(worker.memory_info().rss, worker.num_fds(), feed.sent - committed)


def test_memory_descriptors_and_lag_stay_flat(
    kafka: EmbeddedKafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = 60 * float(request.config.getoption("--soak-minutes"))
    with fleet_on(kafka.brokers, tmp_path, publish_within_ms=20_000, cache_users=CACHED) as fleet:
        process = fleet.worker().wait_ready()
        samples = []
        with Feed(fleet, RATE, users=USERS) as feed:
            for _ in range(SAMPLES):
                time.sleep(seconds / SAMPLES)  # not a wait for something: time has to pass
                fleet.tend()
                samples.append(sample(fleet, process, feed))
        second, last = samples[SAMPLES // 3 : 2 * SAMPLES // 3], samples[2 * SAMPLES // 3 :]
        assert median(s.memory for s in last) < GROWTH * median(s.memory for s in second), samples
        assert max(s.descriptors for s in last) <= max(s.descriptors for s in second) + MORE_DESCRIPTORS, samples
        assert median(s.lag for s in last) < LAG_S * RATE, samples
        check(fleet)
        assert fleet.ends == []
